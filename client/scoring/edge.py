"""Next items and events on a host that has ONNX Runtime and numpy, and nothing else. `fedcart export --onnx` copies this file.

    python score.py < events.jsonl

reads one JSON object per line (``consumer``, ``timestamp``, ``event``, and where known ``item``, ``category``, ``price``) and answers
each with the ``k`` most probable next items, event types and categories of that consumer. The state of each consumer is
carried, so an event costs the same whatever came before. Nothing of fedcart is imported.
"""

import argparse
import hashlib
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

NAMES_FILE = "names.json"
MODELS = ("step.onnx", "step.int8.onnx", "step.pruned.onnx", "step.pruned.int8.onnx")
"""The first that is there is used, unless one is named."""
FORMAT = "fedcart-edge/1"


class EdgeError(ValueError):
    """A file or an event that cannot be used; says why."""


@dataclass
class _Kept:
    """What is carried of one consumer. ``logits`` by head; ``seen`` items, ``category`` the last known."""

    state: Any
    last_s: float
    logits: dict[str, Any] = field(default_factory=dict)
    seen: dict[int, None] = field(default_factory=dict)
    category: int = 0


class EdgeScorer:
    """Scores events one after another from the files of an export. At most ``capacity`` consumers are remembered.

    Guarantee: on the same cleaned events the probabilities are those of ``fedcart predict`` with the same weights, up to rounding.
    """

    def __init__(self, folder: Path, model: str = "", capacity: int = 100_000) -> None:
        import onnxruntime

        try:
            self._facts = json.loads((folder / NAMES_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise EdgeError(f"cannot read {folder / NAMES_FILE}: {error}") from None
        if self._facts.get("format") != FORMAT:
            raise EdgeError(f"{folder / NAMES_FILE} is of another version")
        there = [name for name in ((model,) if model else MODELS) if (folder / name).is_file()]
        if not there:
            raise EdgeError(f"no ONNX file in {folder}: export with --onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / there[0]), options, providers=["CPUExecutionProvider"]
        )
        self._items = {str(name): (int(local), int(category)) for name, local, category in self._facts["items"]}
        self._names = {local: name for name, (local, _) in self._items.items() if local}
        self._names |= {int(local): f"bucket:{number}" for number, local in self._facts["bucket_rows"].items()}
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._capacity = capacity

    def push(self, event: Mapping[str, Any]) -> str:
        """Take one event into account; returns the consumer. Raises: EdgeError for one that cannot be read."""
        who = str(event.get("consumer") or "").strip()
        if not who:
            raise EdgeError("consumer is missing")
        moment = _moment(event.get("timestamp"))
        stamp, before = moment.timestamp(), self._kept.pop(who, None)
        features = self._features(event, moment, None if before is None else max(stamp - before.last_s, 0.0))
        state = np.zeros(
            (self._facts["state"][0], self._facts["state"][1], 1, self._facts["state"][2]), np.float32
        )
        row = np.array([[features[name] for name in self._facts["inputs"]]], dtype=np.int64)
        carried = state if before is None else before.state
        *answers, following = self._session.run(None, {"features": row, "state": carried})
        kept = before or _Kept(following, stamp)
        kept.state, kept.last_s = following, stamp
        kept.logits = dict(zip(self._facts["heads"], (answer[0] for answer in answers), strict=True))
        if features["item"]:
            kept.seen[features["item"]] = None
        kept.category = features["category"] or kept.category
        self._kept[who] = kept
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return who

    def next(
        self, consumer: str, what: str = "item", k: int = 10, *, exclude_known: bool = False
    ) -> list[tuple[str, float]]:
        """The most probable next items, categories or event types, with probabilities. Raises: EdgeError if unknown."""
        kept, head = self._kept.get(consumer), f"next-{what}"
        if kept is None or head not in kept.logits:
            raise EdgeError(
                f"nothing is known of {consumer!r}" if kept is None else f"the model has no head {head}"
            )
        logits = kept.logits[head].astype(np.float64).copy()
        bonus = {"item": list(kept.seen), "category": [kept.category] if kept.category else []}.get(what, [])
        logits[bonus] += self._facts["copy_bonus"]
        logits[0] = -np.inf
        if exclude_known and what == "item":
            logits[list(kept.seen)] = -np.inf
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:k]
        return [(self._name(what, int(i)), float(shares[i])) for i in best if shares[i] > 0]

    @property
    def heads(self) -> list[str]:
        """What can be asked for: of item, category, event."""
        return [name.removeprefix("next-") for name in self._facts["heads"] if name.startswith("next-")]

    def _name(self, what: str, index: int) -> str:
        if what == "item":
            return str(self._names.get(index, f"row:{index}"))
        words = self._facts["categories" if what == "category" else "events"]
        return str(words[index - 1]) if index <= len(words) else f"bucket:{index - len(words)}"

    def _features(self, event: Mapping[str, Any], moment: datetime, pause_s: float | None) -> dict[str, int]:
        facts, events = self._facts, self._facts["events"]
        kind = str(event.get("event") or "").strip().lower()
        if kind not in events:
            raise EdgeError(f"event type {kind!r} is unknown, known are: {', '.join(events)}")
        item, category = str(event.get("item") or "").strip(), str(event.get("category") or "").strip()
        local, listed = self._items.get(item, (0, 0))
        if item and item not in self._items and facts["item_buckets"]:
            local = int(facts["bucket_rows"].get(str(_bucket(item, facts["item_buckets"])), 0))
        own = facts["categories"].index(category) + 1 if category in facts["categories"] else 0
        if category and not own and facts["category_buckets"]:
            own = len(facts["categories"]) + _bucket(category, facts["category_buckets"])
        return {
            "event": events.index(kind) + 1,
            "item": local,
            "category": listed or own,
            "price": _price(event.get("price"), facts["price_edges"]),
            "gap": 0 if pause_s is None else int(np.searchsorted(facts["gap_edges_s"], pause_s, side="right")) + 1,
            "hour": moment.hour + 1,
            "weekday": moment.isoweekday(),
            "month": moment.month,
        }


def _bucket(name: str, buckets: int) -> int:
    """Number of a name's public bucket, from 1."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"fedcart-bucket").digest()
    return 1 + int.from_bytes(digest, "little") % buckets


def _price(value: Any, edges: list[float]) -> int:
    try:
        price = float(value)
    except (TypeError, ValueError):
        return 0
    if not math.isfinite(price) or not 0 < price <= 100_000:
        return 0
    return int(np.searchsorted(edges, np.float32(price), side="right")) + 1


def _moment(value: Any) -> datetime:
    """ISO 8601 (UTC where no zone is named) or seconds since 1970."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        raise EdgeError(f"timestamp {str(value)[:60]!r} is no time") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if not 1995 <= moment.year < 2037:
        raise EdgeError(f"timestamp {str(value)[:60]!r} is before 1995 or after 2036")
    return moment


def answers(lines: Iterable[str], scorer: EdgeScorer, k: int = 10) -> Iterator[dict[str, Any]]:
    """One answer per line; a line that cannot be used is answered with ``error`` and its number."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise EdgeError("not a JSON object")
            who = scorer.push(event)
            yield {"consumer": who, **{what: scorer.next(who, what, k) for what in scorer.heads}}
        except (ValueError, RecursionError) as error:  # EdgeError and what json raises are ValueErrors
            yield {"line": number, "error": str(error)}


def main() -> int:
    """Events on stdin, answers on stdout."""
    parser = argparse.ArgumentParser(description="next items from events, one JSON object per line")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="folder of the export")
    parser.add_argument(
        "--model", default="", metavar="FILE", help=f"of {', '.join(MODELS)}; the first that is there"
    )
    parser.add_argument("--k", type=int, default=10)
    asked = parser.parse_args()
    try:
        for answer in answers(sys.stdin, EdgeScorer(asked.folder, asked.model), asked.k):
            sys.stdout.write(json.dumps(answer, allow_nan=False) + "\n")
    except EdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
