"""The live state in one file: written whole or not at all, with a digest; refused if damaged or of another model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.serving.store import Frozen
from common.atomic import disk_errors, private_folder, write_atomic
from common.errors import BadInputError, WorkFailedError
from common.strict_json import one_line

MAGIC = b"fedcart-live/1\n"
SNAPSHOT_FILE = "live.snapshot"
_DIGEST_BYTES = 32
_FRESH = "begin with an empty memory: --fresh (the old file is kept beside it), or restore it from a copy"


@dataclass(frozen=True)
class Snapshot:
    """All that a service knows at one moment. ``model``: digest of the model, the personal one, the site and the key; ``facts``: plain
    values (clock, counters, what is usual); ``repeats``: event ids answered, as (place, consumer, answer)."""

    model: str
    facts: dict[str, Any]
    consumers: Frozen
    repeats: list[tuple[int, int, bytes]]


def write_snapshot(path: Path, snapshot: Snapshot) -> int:
    """Write it, readable by the owner only; returns its size in bytes. Raises: WorkFailedError (disk)."""
    frozen, repeats = snapshot.consumers, snapshot.repeats
    lengths = [len(row) for row in frozen.rows], [len(answer) for _, _, answer in repeats]
    head = {
        "model": snapshot.model, "facts": snapshot.facts, "consumers": len(frozen.rows),
        "state": frozen.states.shape[1], "repeats": len(repeats),
    }  # fmt: skip
    told = one_line(head).encode()
    parts = [
        MAGIC, len(told).to_bytes(4, "little"), told,
        _bytes(frozen.consumers, "<u8"), _bytes(lengths[0], "<u4"), _bytes(frozen.states, "<f4"), b"".join(frozen.rows),
        _bytes([place for place, _, _ in repeats], "<u8"), _bytes([who for _, who, _ in repeats], "<u8"),
        _bytes(lengths[1], "<u4"), b"".join(answer for _, _, answer in repeats),
    ]  # fmt: skip
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    private_folder(path.parent)
    write_atomic(path, *parts, digest.digest(), mode=0o600)
    return sum(map(len, parts)) + _DIGEST_BYTES


def _bytes(values: Any, kind: str) -> bytes:
    return np.ascontiguousarray(values, dtype=kind).tobytes()


def read_snapshot(path: Path, model: str, state_size: int) -> Snapshot | None:
    """What was written last, None if nothing was. Raises: BadInputError if it is damaged, or of another model, site or key."""
    if not path.exists():
        return None
    found = read_any(path)
    if found.model != model or found.consumers.states.shape[1] != state_size:
        raise BadInputError(
            f"the live state in {path} is of another model, site or key of pseudonyms", hint=_FRESH
        )
    return found


def read_any(path: Path) -> Snapshot:
    """The state in a file, of whatever model. Raises: BadInputError if it is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}", hint=_FRESH) from None
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        raise BadInputError(f"the live state in {path} is damaged", hint=_FRESH)
    try:
        return _parsed(memoryview(body)[len(MAGIC) :])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"the live state in {path} is of another version: {error}", hint=_FRESH) from None


def _parsed(body: memoryview) -> Snapshot:
    size = int.from_bytes(body[:4], "little")
    head = json.loads(bytes(body[4 : 4 + size]))
    place, count, width, known = 4 + size, int(head["consumers"]), int(head["state"]), int(head["repeats"])

    def array(kind: str, entries: int) -> NDArray[Any]:
        nonlocal place
        found = np.frombuffer(body, dtype=kind, count=entries, offset=place)
        place += found.nbytes
        return found

    def pieces(lengths: NDArray[Any]) -> list[bytes]:
        nonlocal place
        ends = place + np.cumsum(lengths, dtype=np.int64)
        cut = [bytes(body[end - int(length) : end]) for end, length in zip(ends.tolist(), lengths, strict=True)]
        place = int(ends[-1]) if len(ends) else place
        return cut

    consumers, lengths = array("<u8", count), array("<u4", count)
    states = array("<f4", count * width).reshape(count, width)
    frozen = Frozen(consumers.astype(np.uint64), states, pieces(lengths))
    places, owners, answers = array("<u8", known), array("<u8", known), array("<u4", known)
    repeats = list(zip(places.tolist(), owners.tolist(), pieces(answers), strict=True))
    return Snapshot(str(head["model"]), dict(head["facts"]), frozen, repeats)


def remove_from(path: Path, consumers: list[int]) -> int:
    """Remove consumers from a kept state, whatever model it is of; how many entries went. Raises: BadInputError if damaged."""
    if not path.exists():
        return 0
    found = read_any(path)
    stay = ~np.isin(found.consumers.consumers, np.array(consumers, dtype=np.uint64))
    rows = [row for row, keep in zip(found.consumers.rows, stay, strict=True) if keep]
    repeats = [one for one in found.repeats if one[1] not in consumers]
    gone = len(found.consumers.rows) - len(rows) + len(found.repeats) - len(repeats)
    if gone:
        kept = Frozen(found.consumers.consumers[stay], found.consumers.states[stay], rows)
        write_snapshot(path, Snapshot(found.model, found.facts, kept, repeats))
    return gone


def remove_from_aside(path: Path, consumers: list[int]) -> int:
    """As ``remove_from``, of the state that was put aside: a damaged one goes as a whole, for nobody can say whom it holds."""
    other = set_aside_at(path)
    try:
        return remove_from(other, consumers)
    except BadInputError:
        with disk_errors(other):
            other.unlink()
        return 1


def set_aside_at(path: Path) -> Path:
    """The name that a snapshot gets which cannot be used."""
    return path.with_stem(f"{path.stem}-set-aside")


def set_aside(path: Path) -> Path | None:
    """Give a snapshot that cannot be used another name; None if there is none. Raises: WorkFailedError."""
    if not path.exists():
        return None
    other = set_aside_at(path)
    try:
        path.replace(other)
    except OSError as error:
        raise WorkFailedError(f"cannot rename {path}: {error.strerror}", hint="look at the folder") from None
    return other
