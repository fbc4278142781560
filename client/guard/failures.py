"""Answers that came to nothing after they were charged: what is given back, and when a site pauses for a run."""

from __future__ import annotations

from common.errors import PausedError
from common.privacy import Forfeit, Replay, Reservation, Void

FAILED_HERE = "failed here"
OVER_VOIDS = "voids_max"
IN_A_ROW = 3  # answers of a run that all came to nothing, whatever the cause


def paused_in(state: Replay, run: str, failures_max: int) -> bool:
    """Whether a site takes no further part in a run: it would be asked every round, and be charged for nothing."""
    return state.count(run, "forfeit", FAILED_HERE) >= failures_max


def refuse_paused(state: Replay, run: str, failures_max: int) -> None:
    """Return if a site may answer in a run. Raises: PausedError after failures of its own."""
    if not paused_in(state, run, failures_max):
        return
    failed = state.count(run, "forfeit", FAILED_HERE)
    raise PausedError(
        f"{failed} answer{'s' if failed > 1 else ''} of run {run} failed here and {'were' if failed > 1 else 'was'} "
        f"charged; failures_max is {failures_max}",
        hint="see the log and put the cause right; the site takes part in the next run, or in this one "
        "again if failures_max in policy.toml allows it and the run is resumed",
    )


def closing(
    state: Replay, reservation: Reservation, voids_max: int, *, stored: bool, reason: str
) -> Void | Forfeit:
    """What ends a reservation that never left: so many of a run are given back, then they are charged.

    How long computing took was seen, so a run cannot have that for ever. ``stored``: the answer was complete. One that
    was not, because its process was killed, is a failure of the site's own; so is the last of ``IN_A_ROW``.
    """
    run, sequence = reservation.body.run, reservation.sequence
    if state.count(run, "void") < voids_max:
        return Void(reserve=sequence, reason=reason)
    before = [r.state for r in state.reservations.values() if r.body.run == run and r.sequence < sequence]
    in_vain = before[1 - IN_A_ROW :]
    own = not stored or (len(in_vain) == IN_A_ROW - 1 and set(in_vain) <= {"void", "forfeit"})
    return Forfeit(reserve=sequence, reason=FAILED_HERE if own else OVER_VOIDS)
