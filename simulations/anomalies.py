"""Labelled anomalies, injected into synthetic or real consumers' sequences.

Public logs carry no anomaly labels; an injected stretch of known kind is what a detector can be measured on. A burst at machine
pace is easy to find; the same done slowly, with the pauses and the daily amounts of ordinary consumers, is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EVENT_TYPES, EventLog, schema
from common.errors import ConfigError

KINDS = ("account-takeover", "bot", "brushing", "fake-reviews")
PACES = ("burst", "hour", "week")
_SITTING = 4  # events in a row, at human pace, of kinds whose cycle is shorter
_TOGETHER_S = 1_800.0  # pauses up to which events are one sitting

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
    log: EventLog,
    share: float,
    *,
    seed: int,
    kinds: tuple[str, ...] = KINDS,
    pace: str = "burst",
    amount: float = 1.0,
) -> tuple[EventLog, pl.DataFrame]:
    """Give a share of the consumers one stretch of anomalous events after their last genuine one.

    ``pace``: ``burst``, at the machine's; ``hour``, a few events an hour, with the pauses and the daily amounts that the log
    itself has; ``week``, a few every day or three, so that it takes weeks. ``amount``: how much of what the
    kind usually does, at least one turn of its cycle.

    At human pace it lies among the last genuine events instead, and items are chosen as often as the log has them.
    Items, categories, prices and the site come from the log itself. Returns the new log and a line per
    anomaly: consumer, site, kind, begin, end.
    Guarantee: no genuine event is removed or changed; each chosen consumer gets exactly one kind.
    Raises: ConfigError for an unknown kind or pace, or a share outside of [0, 1].
    """
    if pace not in PACES:
        raise ConfigError(f"no pace is called {pace!r}", hint=f"one of: {', '.join(PACES)}")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds or not 0 <= share <= 1:
        raise ConfigError(
            f"cannot inject {unknown or kinds} into a share of {share}", hint=f"kinds: {', '.join(KINDS)}"
        )
    rng = np.random.default_rng(seed)
    last = log.offsets[1:] - 1  # the last genuine event of each consumer
    chosen = np.flatnonzero(rng.random(len(last)) < share)
    sold = log.frame.drop_nulls("item").select("item", "category", "price", pl.len().over("item").alias("count"))
    shelf = sold.unique("item", maintain_order=True)
    if not len(chosen) or not shelf.height:
        return log, empty_labels()
    kind = rng.permutation(np.arange(len(chosen)) % len(kinds))
    pauses = Pauses.of(log, pace, amount)
    bursts = [_burst(log, shelf, last[chosen[kind == k]], (name, pauses), rng) for k, name in enumerate(kinds)]
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
    log: EventLog,
    shelf: pl.DataFrame,
    last: NDArray[np.int64],
    what: tuple[str, Pauses],
    rng: np.random.Generator,
) -> pl.DataFrame:
    """The added events of one kind, one stretch behind each of the lines ``last``."""
    kind, pauses = what
    pattern = _PATTERNS[kind]
    rounds = pauses.scaled(rng.integers(pattern.rounds[0], pattern.rounds[1] + 1, size=len(last)))
    lengths = rounds * len(pattern.cycle)
    owner = np.repeat(np.arange(len(last)), lengths)
    begin = np.concatenate([[0], np.cumsum(lengths)])[:-1] if len(last) else np.zeros(0, dtype=np.int64)
    number = np.arange(len(owner)) - begin[owner]
    # whole seconds, as in the logs: finer times would give the label away
    pause_s = np.rint(pauses.draw(pattern, lengths, rng)).clip(1)
    pause_s[number == 0] = np.rint(rng.uniform(3_600, 5 * 86_400, size=len(last)))
    elapsed = np.cumsum(pause_s)
    elapsed -= (elapsed - pause_s)[begin][owner]
    if pauses.slow and len(last):
        elapsed += _among_genuine(log, last, elapsed[begin + lengths - 1])[owner]
    item = _choose_items(shelf, pattern, (owner, number // len(pattern.cycle)), rng, popular=pauses.slow)
    codes = np.array([EVENT_TYPES.index(name) for name in pattern.cycle], dtype=np.uint32)[
        number % len(pattern.cycle)
    ]
    home = log.frame[last[owner]]
    reviewed = codes == EVENT_TYPES.index("review")
    columns = [
        home["consumer"],
        home["timestamp"] + pl.Series((elapsed * 1e6).astype(np.int64)).cast(pl.Duration("us")),
        pl.Series("event", EVENT_TYPES, dtype=schema()["event"]).gather(codes),
        shelf["item"].gather(item),
        shelf["category"].gather(item),
        shelf["price"].gather(item).set(pl.Series(reviewed), None),
        pl.Series("quantity", _pieces(codes, kind)).fill_nan(None),
        *([home["site"]] if "site" in home.columns else []),
        pl.Series("kind", [kind] * len(owner), dtype=pl.Enum(KINDS)),
    ]
    return pl.DataFrame(columns)


def _pieces(codes: NDArray[np.uint32], kind: str) -> NDArray[np.float32]:
    """How many pieces each event is of; NaN for those that are of none."""
    bought = np.isin(codes, [EVENT_TYPES.index("cart"), EVENT_TYPES.index("purchase")])
    return np.where(bought, 5.0 if kind == "brushing" else 1.0, np.nan).astype(np.float32)


def _among_genuine(log: EventLog, last: NDArray[np.int64], took_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much a stretch is moved so that it ends with the last genuine event, and does not begin before the first."""
    time = log.frame["timestamp"].to_physical().to_numpy()
    first = log.offsets[np.searchsorted(log.offsets[1:] - 1, last)]
    known_s = (time[last] - time[first]) / 1e6
    moved: NDArray[np.float64] = -np.rint(np.minimum(took_s, known_s))
    return moved


@dataclass(frozen=True)
class Pauses:
    """How far apart injected events are, and how many. ``within_s``: pauses of the log inside a sitting; ``per_day``: events of its
    consumers on the days that they came.
    """

    pace: str
    within_s: NDArray[np.float64]
    per_day: NDArray[np.int64]
    amount: float = 1.0

    @property
    def slow(self) -> bool:
        """Whether it is at human pace: then among the consumer's genuine events, and of items as they are asked for."""
        return self.pace != "burst"

    @staticmethod
    def of(log: EventLog, pace: str, amount: float = 1.0) -> Pauses:
        """From a log, for a pace and an amount."""
        time = log.frame["timestamp"].to_physical().to_numpy()
        pause_s = np.diff(time) / 1e6
        pause_s[log.offsets[1:-1] - 1] = np.nan  # between consumers
        within_s = pause_s[(pause_s >= 1) & (pause_s <= _TOGETHER_S)]
        owner = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
        _, per_day = np.unique(np.stack([owner, time // 86_400_000_000]), axis=1, return_counts=True)
        return Pauses(pace, within_s if len(within_s) else np.array([30.0, 60.0, 120.0]), per_day, amount)

    def scaled(self, rounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many turns of the cycle are done of so many: at least one."""
        turns: NDArray[np.int64] = np.maximum(np.rint(rounds * self.amount), 1).astype(np.int64)
        return turns

    def draw(self, pattern: _Pattern, lengths: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        """The pause before each event of stretches of these lengths, the first of each to be set by the caller."""
        total = int(lengths.sum())
        if self.pace == "burst":
            return rng.uniform(*pattern.pause_s, size=total)
        pause_s = rng.choice(self.within_s, size=total)
        sitting, begin = max(len(pattern.cycle), _SITTING if len(pattern.cycle) == 1 else 0), 0
        for length in lengths.tolist():
            left = int(rng.choice(self.per_day))
            for number in range(sitting, length, sitting):
                left -= sitting
                if self.pace == "week":
                    pause_s[begin + number] = rng.uniform(0.7, 3.0) * 86_400
                elif left <= 0:  # as much as an ordinary day has: on another day
                    pause_s[begin + number], left = rng.uniform(10, 20) * 3_600, int(rng.choice(self.per_day))
                else:
                    pause_s[begin + number] = rng.uniform(20, 90) * 60
            begin += length
        return pause_s


def _choose_items(
    shelf: pl.DataFrame,
    pattern: _Pattern,
    whose: tuple[NDArray[np.int64], NDArray[np.int64]],
    rng: np.random.Generator,
    *,
    popular: bool,
) -> NDArray[np.int64]:
    """Position on the shelf for each event (owner, turn of the cycle): one per stretch, or one per turn; ``popular``: as
    often as the log has each.
    """
    owner, turn = whose
    allowed = np.arange(shelf.height)
    if pattern.dear:
        price = shelf["price"].fill_null(0.0).to_numpy()
        allowed = np.argsort(-price, kind="stable")[: max(1, shelf.height // 5)]
    key = owner if pattern.one_item else owner * (int(turn.max(initial=0)) + 1) + turn
    distinct, inverse = np.unique(key, return_inverse=True)
    if popular:
        weight = shelf["count"].to_numpy()[allowed].astype(np.float64)
        return rng.choice(allowed, size=len(distinct), p=weight / weight.sum())[inverse]
    return allowed[rng.integers(len(allowed), size=len(distinct))][inverse]
