"""Labelled anomalies, injected into synthetic or real consumers' sequences.

Public logs carry no anomaly labels; an injected burst of known kind is what a detector can be measured on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EVENT_TYPES, EventLog, schema
from common.errors import ConfigError

KINDS = ("account-takeover", "bot", "brushing", "fake-reviews")

LABEL_SCHEMA = pl.Schema(
    {
        "consumer": pl.UInt64(),
        "site": pl.String(),
        "kind": pl.Enum(KINDS),
        "begin": pl.Datetime("us"),
        "end": pl.Datetime("us"),
    }
)


@dataclass(frozen=True)
class _Pattern:
    """How a kind behaves: which events repeat, over how many items, with which pauses."""

    cycle: tuple[str, ...]
    rounds: tuple[int, int]
    pause_s: tuple[float, float]
    one_item: bool
    dear: bool


# A takeover looks around briefly, then buys dear items fast; a bot views on and on at machine pace; brushing
# buys and praises one item again and again without looking; fake reviews praise many items never bought.
_PATTERNS = {
    "account-takeover": _Pattern(("view", "cart", "purchase"), (3, 6), (2.0, 15.0), one_item=False, dear=True),
    "bot": _Pattern(("view",), (15, 40), (0.9, 1.1), one_item=False, dear=False),
    "brushing": _Pattern(("cart", "purchase", "review"), (4, 8), (20.0, 40.0), one_item=True, dear=False),
    "fake-reviews": _Pattern(("review",), (8, 16), (5.0, 60.0), one_item=False, dear=False),
}


def empty_labels() -> pl.DataFrame:
    """A label table without lines."""
    return pl.DataFrame(schema=LABEL_SCHEMA)


def inject(
    log: EventLog, share: float, *, seed: int, kinds: tuple[str, ...] = KINDS
) -> tuple[EventLog, pl.DataFrame]:
    """Give a share of the consumers one burst of anomalous events after their last genuine one.

    Items, categories, prices and the site come from the log itself. Returns the new log and a line per
    anomaly: consumer, site, kind, begin, end.
    Guarantee: no genuine event is removed or changed; each chosen consumer gets exactly one kind.
    Raises: ConfigError for an unknown kind or a share outside of [0, 1].
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds or not 0 <= share <= 1:
        raise ConfigError(
            f"cannot inject {unknown or kinds} into a share of {share}", hint=f"kinds: {', '.join(KINDS)}"
        )
    rng = np.random.default_rng(seed)
    last = log.offsets[1:] - 1  # the last genuine event of each consumer
    chosen = np.flatnonzero(rng.random(len(last)) < share)
    shelf = log.frame.drop_nulls("item").select("item", "category", "price").unique("item", maintain_order=True)
    if not len(chosen) or not shelf.height:
        return log, empty_labels()
    kind = rng.permutation(np.arange(len(chosen)) % len(kinds))
    bursts = [_burst(log, shelf, last[chosen[kind == k]], name, rng) for k, name in enumerate(kinds)]
    added = pl.concat([burst for burst in bursts if burst.height])
    labels = added.group_by("consumer", maintain_order=True).agg(
        *([pl.col("site").first()] if "site" in added.columns else [pl.lit(None, pl.String).alias("site")]),
        pl.col("kind").first(),
        pl.col("timestamp").min().alias("begin"),
        pl.col("timestamp").max().alias("end"),
    )
    frame = pl.concat([log.frame, added.select(log.frame.columns)])
    return EventLog.from_frame(frame), labels.cast(LABEL_SCHEMA).sort("consumer")


def _burst(
    log: EventLog, shelf: pl.DataFrame, last: NDArray[np.int64], kind: str, rng: np.random.Generator
) -> pl.DataFrame:
    """The added events of one kind, one burst behind each of the lines ``last``."""
    pattern = _PATTERNS[kind]
    rounds = rng.integers(pattern.rounds[0], pattern.rounds[1] + 1, size=len(last))
    lengths = rounds * len(pattern.cycle)
    owner = np.repeat(np.arange(len(last)), lengths)
    begin = np.concatenate([[0], np.cumsum(lengths)])[:-1] if len(last) else np.zeros(0, dtype=np.int64)
    number = np.arange(len(owner)) - begin[owner]
    # whole seconds, as in the logs: finer times would give the label away
    pause_s = np.rint(rng.uniform(*pattern.pause_s, size=len(owner))).clip(1)
    pause_s[number == 0] = np.rint(rng.uniform(3_600, 5 * 86_400, size=len(last)))
    elapsed = np.cumsum(pause_s)
    elapsed -= (elapsed - pause_s)[begin][owner]
    item = _choose_items(shelf, pattern, owner, number // len(pattern.cycle), rng)
    codes = np.array([EVENT_TYPES.index(name) for name in pattern.cycle], dtype=np.uint32)[
        number % len(pattern.cycle)
    ]
    home = log.frame[last[owner]]
    bought = np.isin(codes, [EVENT_TYPES.index("cart"), EVENT_TYPES.index("purchase")])
    reviewed = codes == EVENT_TYPES.index("review")
    amount = 5.0 if kind == "brushing" else 1.0
    columns = [
        home["consumer"],
        home["timestamp"] + pl.Series((elapsed * 1e6).astype(np.int64)).cast(pl.Duration("us")),
        pl.Series("event", EVENT_TYPES, dtype=schema()["event"]).gather(codes),
        shelf["item"].gather(item),
        shelf["category"].gather(item),
        shelf["price"].gather(item).set(pl.Series(reviewed), None),
        pl.Series("quantity", np.where(bought, amount, np.nan).astype(np.float32)).fill_nan(None),
        *([home["site"]] if "site" in home.columns else []),
        pl.Series("kind", [kind] * len(owner), dtype=pl.Enum(KINDS)),
    ]
    return pl.DataFrame(columns)


def _choose_items(
    shelf: pl.DataFrame,
    pattern: _Pattern,
    owner: NDArray[np.int64],
    turn: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Position on the shelf for each event: one per burst, or one per turn of the cycle."""
    allowed = np.arange(shelf.height)
    if pattern.dear:
        price = shelf["price"].fill_null(0.0).to_numpy()
        allowed = np.argsort(-price, kind="stable")[: max(1, shelf.height // 5)]
    key = owner if pattern.one_item else owner * (int(turn.max(initial=0)) + 1) + turn
    distinct, inverse = np.unique(key, return_inverse=True)
    return allowed[rng.integers(len(allowed), size=len(distinct))][inverse]
