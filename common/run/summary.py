"""``Summary``: how a run stands or ended. One schema, whoever ran it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common.run.records import COMPLETED, FAILED, RoundRecord

Values = dict[str, float]


@dataclass(frozen=True)
class Summary:
    """The content of ``summary.json``; fields that are not known yet have their defaults.

    ``rounds``: training rounds that were run, ``sums``: those of them that gave a sum. ``metrics``: released, public
    and oracle (empty in a deployment); ``baselines`` are oracle; ``epsilon`` is spent per site, from the signed
    attestations, reservations included. ``error``, ``hint``, ``exit_code`` say why a run was interrupted.
    """

    status: str
    rounds: int = 0
    sums: int = 0
    metrics: dict[str, Values] = field(default_factory=dict)
    baselines: dict[str, Values] = field(default_factory=dict)
    epsilon: Values = field(default_factory=dict)
    aggregation: str = ""
    private: bool = True
    paths: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    exit_code: int = 0

    @property
    def completed(self) -> bool:
        """Whether all planned rounds were run, and the model is made of at least one sum."""
        return self.status == COMPLETED

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Summary:
        """Inverse of ``to_json``. Raises: TypeError on foreign values."""
        return Summary(**{**plain, "notes": tuple(plain.get("notes", ()))})


def sums_in(records: Sequence[RoundRecord]) -> tuple[int, int]:
    """How many training rounds were run, and how many of them gave a sum."""
    rounds = [record for record in records if record.kind == "train"]
    return len(rounds), sum(not record.aborted for record in rounds)


def without_sum(records: Sequence[RoundRecord]) -> str:
    """A sentence on the rounds that gave no sum; empty if all did."""
    rounds, sums = sums_in(records)
    if sums == rounds:
        return ""
    reasons = ", ".join(
        sorted({record.aborted for record in records if record.kind == "train" and record.aborted})
    )
    return f"{rounds - sums} of {rounds} rounds gave no sum ({reasons})"


def checked_status(status: str, records: Sequence[RoundRecord]) -> str:
    """``failed`` in place of ``completed`` where no round gave a sum: such a model is untrained."""
    rounds, sums = sums_in(records)
    return FAILED if status == COMPLETED and rounds and not sums else status
