"""A reservation: what a RESERVE says, the right to one release that it gives, and when that right is good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from client.guard.budget import Projection
from client.guard.policy import Proposal, SitePolicy
from common.errors import LocalProtocolError, PolicyRefusedError
from common.privacy import Attestation, Losses, PrivacyEvent, Replay, Reserve, SignedAttestation, round_up


@dataclass(frozen=True)
class ReservationKey:
    """The right to release one contribution, already charged: a RESERVE by its sequence and hash."""

    sequence: int
    head: str
    run: str
    round: int


@dataclass(frozen=True)
class Grant(ReservationKey):
    """A reservation just made, with the attestation that goes to the server.

    ``reused``: an earlier attempt has computed the contribution and it never left: take it from ``stored``.
    """

    attestation: SignedAttestation
    reused: bool = False


class ChargedError(Exception):
    """Something failed after a RESERVE was on disk: what went wrong, and what the server must hear of the charge."""

    def __init__(self, cause: Exception, attestation: SignedAttestation) -> None:
        super().__init__(str(cause))
        self.cause, self.attestation = cause, attestation


def reserve_body(proposal: Proposal, code: str, source: int | None, order: float | None, by: str) -> Reserve:
    """The RESERVE of a proposal; ``source``, ``order`` and ``by`` as ``Reserve`` has them."""
    return Reserve(
        run=proposal.run,
        round=proposal.round,
        attempt=proposal.attempt,
        query=proposal.query,
        config=proposal.config,
        code=code,
        events=proposal.events,
        holdout=proposal.holdout,
        split_key=proposal.split_key,
        validation=proposal.validation,
        source=source,
        order=order,
        by=by,
        roster=proposal.roster,
        witness=proposal.witness,
    )


def attestation_of(
    site: str, state: Replay, proposal: Proposal, projection: Projection, policy: SitePolicy
) -> Attestation:
    """The site's word on a RESERVE that has just been made, or on one whose answer is used again."""
    header = state.header
    assert header is not None
    return Attestation(
        site=site,
        scope=header.scope,
        run=proposal.run,
        round=proposal.round,
        attempt=proposal.attempt,
        query=proposal.query,
        events=proposal.events,
        totals=projection.totals,
        sequence=state.sequence - 1,
        head=state.head,
        epsilon_before=round_up(projection.before),
        epsilon_after=round_up(projection.after),
        order=projection.order,
        adaptive=projection.adaptive,
        delta=header.delta,
        limit=policy.epsilon_max,
        simulated=header.simulated,
        roster=proposal.roster,
        witness=proposal.witness,
    )


def source_of(state: Replay, proposal: Proposal, by: str = "") -> int | None:
    """The charged release that a derived proposal is post-processing of; None for one that is charged itself.

    Raises: PolicyRefusedError (rule ``release``) if nothing of this run has left.
    """
    if not proposal.derived:
        return None
    release = state.released(proposal.run, proposal.config, by)
    if release is None:
        raise PolicyRefusedError(
            "release",
            f"policy rule release: run {proposal.run} has no released series in this ledger to learn from",
            hint="a site that was not in round 0 of a sales run waits for the next run",
        )
    return release.sequence


def must_be_open(state: Replay, reservation: ReservationKey) -> None:
    """Return if a reservation is in the ledger and still open. Raises: LocalProtocolError."""
    entry = state.reservations.get(reservation.sequence)
    if entry is None or entry.hash != reservation.head:
        raise LocalProtocolError(f"reservation {reservation.sequence} is not in this ledger")
    if entry.state != "open":
        raise LocalProtocolError(f"reservation {reservation.sequence} is {entry.state}: its contribution is dead")


def must_be_charged(charged: Sequence[PrivacyEvent], ran: Sequence[PrivacyEvent]) -> None:
    """Return if what ran is what was charged. Raises: LocalProtocolError."""
    if Losses.of(charged) != Losses.of(ran):
        raise LocalProtocolError(
            f"what ran ({_in_words(ran)}) is not what was charged ({_in_words(charged)})",
            hint="nothing has left; this is a bug of this program: report it",
        )


def _in_words(events: Sequence[PrivacyEvent]) -> str:
    words = [
        f"{e.sub_scope} {e.steps} x noise {e.noise_multiplier:.4g} at rate {e.sampling_rate:g}" for e in events
    ]
    return ", ".join(words) or "nothing"
