"""Answers that came to nothing after they were charged: what is given back, and when a site pauses for a run."""

from __future__ import annotations

from common.errors import PausedError
from common.privacy import Forfeit, Replay, Reservation, Void

FAILED_HERE = "failed here"
OVER_VOIDS = "voids_max"
UNFINISHED = "not finished"
IN_A_ROW = 6  # answers of a run that all came to nothing: more than a coordinator asks for while it aborts round after round


def paused_in(state: Replay, run: str, failures_max: int, by: str = "") -> bool:
    """Whether a site takes no further part in a run: it would be asked every round, and be charged for nothing.

    ``by``: its public key, in a ledger that other kits use too: what failed at them is theirs.
    """
    if state.count(run, "forfeit", FAILED_HERE, by=by) >= failures_max:
        return True
    last = [r.state for r in state.of_run(run, by) if r.state != "open"]
    last = last[-IN_A_ROW * failures_max :]
    return len(last) == IN_A_ROW * failures_max and set(last) <= {"void", "forfeit"}


def refuse_paused(state: Replay, run: str, failures_max: int, by: str = "") -> None:
    """Return if a site may answer in a run. Raises: PausedError after failures of its own, or many answers in vain."""
    if not paused_in(state, run, failures_max, by):
        return
    failed = state.count(run, "forfeit", FAILED_HERE, by=by)
    if failed >= failures_max:
        words = f"{failed} answer{'s' if failed > 1 else ''} of run {run} failed here and {'were' if failed > 1 else 'was'}"
    else:
        words = (
            f"the last {IN_A_ROW * failures_max} answers of run {run} came to nothing and all but the first were"
        )
    raise PausedError(
        f"{words} charged; failures_max is {failures_max}",
        hint="see the log and put the cause right; the site takes part in the next run, or in this one "
        "again if failures_max in policy.toml allows it and the run is resumed",
    )


def closing(
    state: Replay, reservation: Reservation, voids_max: int, *, stored: bool, reason: str
) -> Void | Forfeit:
    """What ends a reservation that never left: so many of a run are given back, then they are charged.

    How long computing took was seen, so a run cannot have that for ever. ``stored``: the answer was complete. One that
    was not, because its process was killed, is a failure of the site's own.
    """
    sequence = reservation.sequence
    if state.count(reservation.body.run, "void", by=reservation.body.by) < voids_max:
        return Void(reserve=sequence, reason=reason if stored else UNFINISHED)
    return Forfeit(reserve=sequence, reason=OVER_VOIDS if stored else FAILED_HERE)


def unfinished_in(state: Replay, run: str, by: str = "") -> int:
    """How many answers of a run were given back because the process that computed them was ended."""
    return state.count(run, "void", UNFINISHED, by=by)
