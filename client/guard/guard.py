"""``Guard``: the one door through which a contribution leaves a site.

    reserve   policy, rollback check, budget gate and RESERVE, before the first gradient
    store     what ran is what was charged: the computed contribution waits in the outbox
    commit    COMMIT on disk, then the bytes may leave, once
    fail      no contribution came about, and the server will hear so: charged for good
    close     the round is over: what never left is voided, what left stays charged
    restart   after any crash: the same for everything that was under way

Guarantee: spent = COMMITs + FORFEITs + open RESERVEs at every instant, whatever process dies where: an entry is
on disk before the act it allows, and a RESERVE is voided only after its contribution is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from client.guard.budget import (
    Projection,
    check_run_total,
    check_split,
    gate,
    gate_alone,
    project,
    rest_of_run,
    with_later_runs,
)
from client.guard.failures import FAILED_HERE, closing, refuse_paused
from client.guard.ledger import Ledger
from client.guard.outbox import Outbox
from client.guard.policy import Proposal, SitePolicy
from client.guard.reservation import (
    ChargedError,
    Grant,
    ReservationKey,
    attestation_of,
    must_be_charged,
    must_be_open,
    reserve_body,
    source_of,
)
from client.guard.status import GuardStatus, status_of
from common.deployment import ACCOUNT_FILE, LEDGER_FILE
from common.errors import FedcartError, LocalProtocolError, PolicyRefusedError, RollbackError
from common.privacy import (
    Commit,
    Forfeit,
    PrivacyEvent,
    Replay,
    Reservation,
    ScopeAccountant,
    SignedAttestation,
    epsilon_of,
    round_up,
    rounds_left,
)
from common.trust import Identity


class Guard:
    """A site's policy, budget, ledger and outbox for one scope. Any number of processes may share it."""

    def __init__(
        self,
        ledger: Ledger,
        outbox: Outbox,
        policy: SitePolicy,
        identity: Identity,
        code: str,
        *,
        shared: bool = False,
    ) -> None:
        self._ledger, self._outbox, self._policy = ledger, outbox, policy
        self._identity, self._code = identity, code
        self._by = identity.public_key.hex() if shared else ""

    def __repr__(self) -> str:
        return f"Guard({self._ledger!r})"

    @property
    def ledger(self) -> Ledger:
        """The ledger, for reading."""
        return self._ledger

    @property
    def policy(self) -> SitePolicy:
        """The site's rules."""
        return self._policy

    def reopen(self, scope: str, *, simulated: bool) -> None:
        """Catch up with the ledger's file, with every check of the first opening. Raises: as ``open_guard``."""
        self._ledger.open(scope=scope, delta=self._policy.delta, simulated=simulated)

    def reserve(self, proposal: Proposal, echoed: SignedAttestation | None = None) -> Grant:
        """Decide on a proposal and charge it, durably, before anything is computed.

        ``echoed`` is the latest attestation of this site that the server keeps. A contribution of an
        earlier attempt of the same query that never left is used again, at no further charge.
        Raises: PolicyRefusedError, BudgetExhaustedError, RollbackError; WorkFailedError (disk); ChargedError if the disk
        fails once the RESERVE is on it.
        """
        with self._ledger.transaction() as state:
            self._ledger.refuse_rollback(echoed, self._identity)
            self._check(state, proposal)
            unsent = self._unsent(state, proposal)
            self._refuse_repeated(state, proposal, unsent)
            if unsent is not None:
                limit = self._policy.epsilon_max
                projection = project(state, proposal, self._delta(state), limit, again=True)
                return self._reservation(unsent, proposal, projection, reused=True)
            self._forget_attempt(state, proposal)
            check_run_total(state, proposal, self._by)
            projection = gate(state, proposal, self._delta(state), self._policy.epsilon_max)
            gate_alone(state, proposal, self._delta(state), self._policy.epsilon_alone_max)
            order = projection.order if proposal.events and state.order is None else None
            body = reserve_body(proposal, self._code, source_of(state, proposal, self._by), order, self._by)
            sequence = self._ledger.append(body)
            grant = self._reservation(state.reservations[sequence], proposal, projection)
            try:
                self._ledger.renew_anchor()
            except Exception as error:  # the RESERVE is on disk already, and the server hears that this failed
                with suppress(FedcartError):
                    self._ledger.append(Forfeit(reserve=sequence, reason=FAILED_HERE))
                raise ChargedError(error, grant.attestation) from error
            return grant

    def check_proposal(self, proposal: Proposal) -> None:
        """Return if policy, ledger and budget allow a proposal and the whole run behind it; nothing is charged.

        Raises: PolicyRefusedError; BudgetExhaustedError if the rest of the run does not fit: then nobody is asked for a
        yes that cannot be kept.
        """
        with self._ledger.transaction() as state:
            self._check(state, proposal)
            check_run_total(state, proposal, self._by)
            rest = rest_of_run(state, proposal, self._by)
            gate(state, rest, self._delta(state), self._policy.epsilon_max)
            gate_alone(state, rest, self._delta(state), self._policy.epsilon_alone_max)

    def with_run(self, proposal: Proposal, later: int = 0) -> tuple[float, float]:
        """Epsilon now, and when all that is left of the run behind a proposal, and so many more like it, is charged."""
        with self._ledger.transaction() as state:
            delta, limit = self._delta(state), self._policy.epsilon_max
            before = epsilon_of(state.spent, delta, state.adaptive_order)
            after = with_later_runs(state, proposal, delta, limit, later, self._by)
        return round_up(before), round_up(after)

    def _check(self, state: Replay, proposal: Proposal) -> None:
        self._policy.check_proposal(proposal)
        check_split(state, proposal)
        refuse_paused(state, proposal.run, self._policy.failures_max, self._by)

    def _mine(self, reservations: Iterable[Reservation]) -> list[Reservation]:
        """Those of this kit: other kits of a shared ledger close their own."""
        return [r for r in reservations if r.body.by == self._by]

    def _refuse_repeated(self, state: Replay, proposal: Proposal, unsent: Reservation | None) -> None:
        """(round, attempt) of a run only rises, and a round is over once an answer to it has left."""
        mine = [r for r in self._mine(state.reservations.values()) if r.body.run == proposal.run]
        left = max((r.body.round for r in mine if r.state == "committed"), default=-1)
        asked = max(((r.body.round, r.body.attempt) for r in mine if r is not unsent), default=(-1, -1))
        first = unsent.body.attempt if unsent else 0
        if proposal.round <= left or (proposal.round, proposal.attempt) <= asked or proposal.attempt < first:
            raise PolicyRefusedError(
                "round",
                f"policy rule round: round {proposal.round} attempt {proposal.attempt} of run {proposal.run} comes after "
                f"round {max(left, asked[0])}: a round is answered once",
                hint="the coordinator resumes a run from its newest checkpoint; an older one starts a new run",
            )

    def _unsent(self, state: Replay, proposal: Proposal) -> Reservation | None:
        """An open reservation for the very same question whose answer waits in the outbox.

        A share of a sum's noise serves one session: it would be in two sums with other sites' fresh noise.
        """
        if proposal.in_quorum:
            return None
        asked = (proposal.run, proposal.round, proposal.query, proposal.config, proposal.events)
        for old in reversed(self._mine(state.open_reservations())):
            body = old.body
            if (body.run, body.round, body.query, body.config, body.events) == asked and self._outbox.has(
                old.sequence
            ):
                return old
        return None

    def _forget_attempt(self, state: Replay, proposal: Proposal) -> None:
        """End an earlier attempt at the same round in a quorum, which never left: its ring lived in memory only."""
        if not proposal.in_quorum:
            return
        self._end_round(state, proposal.run, proposal.round, "another attempt")

    def _reservation(
        self, entry: Reservation, proposal: Proposal, projection: Projection, *, reused: bool = False
    ) -> Grant:
        attestation = attestation_of(self._identity.name, self._ledger.state, proposal, projection, self._policy)
        signed = SignedAttestation.sign(attestation, self._identity)
        return Grant(entry.sequence, entry.hash, proposal.run, proposal.round, signed, reused)

    def store(
        self, reservation: ReservationKey, contribution: bytes | memoryview, events: Sequence[PrivacyEvent]
    ) -> None:
        """Put the computed contribution into the outbox, durably, if what made it is what was charged.

        ``events``: what the mechanisms that made it did, from its releases.
        Raises: LocalProtocolError if that is not what was reserved, or the reservation is no longer open: the
        caller then lets it ``fail``; WorkFailedError (disk).
        """
        with self._ledger.transaction() as state:
            must_be_open(state, reservation)
            must_be_charged(state.reservations[reservation.sequence].body.events, events)
            self._outbox.put(reservation.sequence, contribution)

    def note_made(self, reservation: ReservationKey, digest: bytes, events: Sequence[PrivacyEvent]) -> None:
        """As ``store``, of a contribution that lives in memory only: the outbox holds its ``outbox_digest``."""
        self.store(reservation, digest, events)

    def commit_in_memory(self, reservation: ReservationKey, digest: bytes) -> None:
        """As ``commit_known``, of the contribution in memory whose ``digest`` was noted.

        Raises: LocalProtocolError if another contribution, or none, was noted."""
        with self._ledger.transaction() as state:
            must_be_open(state, reservation)
            if self._outbox.get(reservation.sequence) != digest:
                raise LocalProtocolError(f"reservation {reservation.sequence} is of no such contribution")
            self._commit(reservation, digest)

    def find(self, run: str, number: int) -> ReservationKey | None:
        """The newest open reservation of a round, for a process that did not make it itself."""
        with self._ledger.transaction() as state:
            mine = [
                r for r in self._mine(state.open_reservations()) if (r.body.run, r.body.round) == (run, number)
            ]
        return ReservationKey(mine[-1].sequence, mine[-1].hash, run, number) if mine else None

    def released_digest(self, run: str, config: str) -> str:
        """Digest (hex) of what left and was charged in a run, of which more may be computed; empty if nothing did."""
        with self._ledger.transaction() as state:
            release = state.released(run, config, self._by)
        return release.outbox if release else ""

    def stored(self, reservation: ReservationKey) -> bytes | None:
        """The contribution that waits for this reservation. Raises: VerificationError if it is damaged."""
        return self._outbox.get(reservation.sequence)

    def stored_with_digest(self, reservation: ReservationKey) -> tuple[bytes, bytes] | None:
        """As ``stored``, with its ``outbox_digest``: for ``commit_known``."""
        return self._outbox.get_with_digest(reservation.sequence)

    def commit(self, reservation: ReservationKey) -> bytes:
        """Record that the contribution leaves, then return it: from here it is charged for good, and dead.

        Guarantee: returns at most once for a reservation, over all processes, and only after the COMMIT
        is on disk. Raises: LocalProtocolError if it is not open or nothing is stored.
        """
        with self._ledger.transaction() as state:
            must_be_open(state, reservation)
            if (stored := self._outbox.get_with_digest(reservation.sequence)) is None:
                raise LocalProtocolError(f"reservation {reservation.sequence} has no stored contribution")
            self._commit(reservation, stored[1])
            return stored[0]

    def commit_known(self, reservation: ReservationKey, digest: bytes) -> None:
        """As ``commit``, for who has the contribution and its ``digest`` in hand from ``stored_with_digest``.

        Raises: LocalProtocolError if another contribution, or none, waits now."""
        with self._ledger.transaction() as state:
            must_be_open(state, reservation)
            if self._outbox.digest_of(reservation.sequence) != digest:
                raise LocalProtocolError(f"reservation {reservation.sequence} has no such stored contribution")
            self._commit(reservation, digest)

    def _commit(self, reservation: ReservationKey, digest: bytes) -> None:
        self._ledger.append(Commit(reserve=reservation.sequence, outbox=digest.hex()))
        self._outbox.remove([reservation.sequence])
        self._ledger.renew_anchor()

    def fail(self, reservation: ReservationKey) -> None:
        """Charge a reservation for good whose answer could not be computed, before the server hears of it.

        Whether computing fails may depend on the data, so that it failed is a release like any other.
        Raises: LocalProtocolError if the reservation is not open; WorkFailedError (disk).
        """
        with self._ledger.transaction() as state:
            must_be_open(state, reservation)
            self._ledger.append(Forfeit(reserve=reservation.sequence, reason=FAILED_HERE))
            self._outbox.remove([reservation.sequence])
            self._ledger.renew_anchor()

    def close_round(self, run: str, number: int, *, reason: str = "round closed") -> None:
        """Forget the contributions of a round and void the reservations whose contribution never left."""
        with self._ledger.transaction() as state:
            self._end_round(state, run, number, reason)

    def _end_round(self, state: Replay, run: str, number: int, reason: str) -> None:
        everything = self._mine(state.reservations.values())
        mine = [r for r in everything if (r.body.run, r.body.round) == (run, number)]
        open_ = [r for r in mine if r.state == "open"]
        stored = self._stored(open_)
        self._outbox.remove([r.sequence for r in mine])
        self._end(open_, stored, reason)

    def restart(self) -> None:
        """After the site's processes have ended: void what provably did not leave, keep the rest charged."""
        with self._ledger.transaction() as state:
            open_ = self._mine(state.open_reservations())
            stored = self._stored(open_)
            self._outbox.clear()
            self._end(open_, stored, "restart")

    def _stored(self, reservations: Sequence[Reservation]) -> set[int]:
        return {r.sequence for r in reservations if self._outbox.has(r.sequence)}

    def _end(self, reservations: Sequence[Reservation], stored: set[int], reason: str) -> None:
        """End what never left; its contribution is gone. ``stored``: those whose answer had been complete."""
        state, allowed = self._ledger.state, self._policy.voids_max
        for one in reservations:
            self._ledger.append(closing(state, one, allowed, stored=one.sequence in stored, reason=reason))
        self._ledger.renew_anchor()

    def status(self) -> GuardStatus:
        """What is spent and what is left. Reads the ledger anew."""
        with self._ledger.transaction() as state:
            return status_of(state, self._identity.name, self._policy, self._by)

    def left_in(self, run: str) -> list[int]:
        """The rounds of a run of which this kit's answer has left."""
        with self._ledger.transaction() as state:
            return [r.body.round for r in state.of_run(run, self._by) if r.state == "committed"]

    def rounds_left(self, events: Sequence[PrivacyEvent]) -> int:
        """How many more rounds with these events fit into the budget."""
        state = self._ledger.state
        return rounds_left(
            ScopeAccountant(state.spent, state.adaptive_order),
            events,
            self._delta(state),
            self._policy.epsilon_max,
        )

    def _delta(self, state: Replay) -> float:
        assert state.header is not None
        return state.header.delta


def open_guard(
    state_dir: Path,
    identity: Identity,
    policy: SitePolicy,
    scope: str,
    *,
    ledger_path: Path | None = None,
    ledger_key: Identity | None = None,
    simulated: bool = False,
    code: str = "unknown",
) -> Guard:
    """Open a site's guard, making the ledger at first use.

    ``ledger_key``: the key of a ledger that several kits share; this one is admitted to it, and keeps a copy of its signed
    end: who is pointed elsewhere later, or to an older copy, would begin anew.

    ``scope`` names the consumers whose losses add up, over all runs and models. ``ledger_path`` defaults
    to ``state_dir/ledger.jsonl``; ``code`` is the version that every RESERVE records.
    Raises: BadInputError if the ledger belongs to another site, scope or delta; VerificationError if
    it is damaged; RollbackError if it is older than its anchor, or gone.
    """
    shared, copy = ledger_key is not None, state_dir / ACCOUNT_FILE
    if copy.exists() and not (shared or simulated):
        raise RollbackError(
            f"this kit keeps its account in a shared ledger, says {copy.name}, and site.toml names none",
            hint="set ledger in site.toml to that folder again: the same consumers have one account",
        )
    ledger = Ledger(ledger_path or state_dir / LEDGER_FILE, ledger_key or identity, copy if shared else None)
    ledger.open(scope=scope, delta=policy.delta, simulated=simulated, shared=shared)
    if shared:
        ledger.admit(identity)
    outbox = Outbox(state_dir / "outbox", durable=not simulated)
    return Guard(ledger, outbox, policy, identity, code, shared=shared)
