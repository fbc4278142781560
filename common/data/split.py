"""``Split``: who is trained on, by whom a run chooses, and on whom it reports; with dates, also what is read of them.

Parts are by consumer, whatever else is cut: nobody is in two, so each part is charged apart. See docs/adr.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.sequences import ConsumerSequences, holdout_mask

Mask = NDArray[np.bool_]
_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Sides:
    """The rows of the three parts; no consumer is in two."""

    train: ConsumerSequences
    validation: ConsumerSequences
    holdout: ConsumerSequences


@dataclass(frozen=True)
class Split:
    """``holdout``: share of the consumers that is held out; ``validation``: share of those by whom a run chooses, the others
    are reported on. ``dates``: from when on the first and the latter are asked; training reads what was before both.
    ``most``: events of a row that is cut at dates.

    Units: dates in microseconds since 1970, UTC.
    """

    key: bytes
    holdout: float
    validation: float = 0.0
    dates: tuple[int, int] | None = None
    most: int = 50

    def masks(self, consumers: NDArray[np.uint64]) -> tuple[Mask, Mask]:
        """True for those who choose, and for those who are reported on: ``bool[N]`` each.

        Guarantee: which part a consumer is in depends on the key and the pseudonym only, never on events or on other
        consumers; who is held out does not depend on ``validation``. Raises: as ``holdout_mask``.
        """
        held = holdout_mask(consumers, self.key, self.holdout)
        chooses = holdout_mask(consumers, self.key, self.holdout * self.validation)
        return chooses, held & ~chooses

    def of(self, rows: ConsumerSequences) -> Sides:
        """The rows of each part. With dates: to learn from, what was before the first; to choose by, what was before the
        second; to report on, all of it; the last ``most`` events each.
        """
        chooses, reported = self.masks(rows.consumers)
        sides = Sides(rows.take(~(chooses | reported)), rows.take(chooses), rows.take(reported))
        if self.dates is None:
            return sides
        ends = (*self.dates, _END)
        return Sides(*(part.until(end, self.most) for part, end in zip(parts_of(sides), ends, strict=True)))


def parts_of(sides: Sides) -> tuple[ConsumerSequences, ConsumerSequences, ConsumerSequences]:
    """The parts in one order."""
    return sides.train, sides.validation, sides.holdout
