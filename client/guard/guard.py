"""``Guard``: the one door through which a contribution leaves a site.

    reserve   policy, rollback check, budget gate and RESERVE, before the first gradient
    store     what ran is what was charged: the computed contribution waits in the outbox
    commit    COMMIT on disk, then the bytes may leave, once
    fail      no contribution came about, and the server will hear so: charged for good
    close     the round is over: what never left is voided, what left stays charged
    restart   after any crash: the same for everything that was under way

**Guarantee** spent = COMMITs + FORFEITs + open RESERVEs at every instant, whatever process dies where: an entry is
on disk before the act it allows, and a RESERVE is voided only after its contribution is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import common.privacy.entries as entries
from client.guard.budget import Projection, check_run_total, check_split, gate, project
from client.guard.ledger import Ledger
from client.guard.outbox import Outbox
from client.guard.policy import Proposal, SitePolicy
from client.guard.remains import gather
from common.atomic import sync_directory
from common.errors import BadInputError, LocalProtocolError, PolicyRefusedError
from common.privacy.accountant import Reading, ScopeAccountant, epsilon_of, round_up
from common.privacy.attestation import Attestation, SignedAttestation
from common.privacy.calibration import rounds_left
from common.privacy.entries import Commit, Forfeit, Replay, Reserve, Void, count_events
from common.privacy.mechanism import PrivacyEvent
from common.trust.identity import Identity


@dataclass(frozen=True)
class Reservation:
    """The right to release one contribution, already charged: a RESERVE by its sequence and hash."""

    sequence: int
    head: str
    run: str
    round: int


@dataclass(frozen=True)
class Grant(Reservation):
    """A reservation just made, with the attestation that goes to the server.

    ``reused``: an earlier attempt has computed the contribution and it never left: take it from ``stored``.
    """

    attestation: SignedAttestation
    reused: bool = False


@dataclass(frozen=True)
class GuardStatus:
    """Where a scope stands. ``epsilon`` counts open reservations; ``left`` is limit minus epsilon, at least 0."""

    site: str
    scope: str
    epsilon: float
    limit: float
    left: float
    delta: float
    reading: Reading
    entries: int
    committed: int
    open: int
    void: int
    forfeit: int = 0


class Guard:
    """A site's policy, budget, ledger and outbox for one scope. Any number of processes may share it."""

    def __init__(self, ledger: Ledger, outbox: Outbox, policy: SitePolicy, identity: Identity, code: str) -> None:
        self._ledger, self._outbox, self._policy = ledger, outbox, policy
        self._identity, self._code = identity, code

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

    def reserve(self, proposal: Proposal, echoed: SignedAttestation | None = None) -> Grant:
        """Decide on a proposal and charge it, durably, before anything is computed.

        ``echoed`` is the latest attestation of this site that the server keeps. A contribution of an
        earlier attempt of the same query that never left is used again, at no further charge.
        **Raises** PolicyRefusedError, BudgetExhaustedError, RollbackError; WorkFailedError (disk).
        """
        with self._ledger.transaction() as state:
            self._ledger.refuse_rollback(echoed)
            self._check(state, proposal)
            found = self._unsent(state, proposal)
            if found is not None:
                rest = state.spent - count_events(proposal.events)
                projection = project(rest, proposal.events, self._delta(state))
                return self._reservation(found, proposal, projection, reused=True)
            check_run_total(state, proposal)
            projection = gate(state.spent, proposal.events, self._delta(state), self._policy.epsilon_max)
            sequence = self._ledger.append(_reserve_body(proposal, self._code, source_of(state, proposal)))
            self._ledger.renew_anchor()
            return self._reservation(state.reservations[sequence], proposal, projection)

    def check_proposal(self, proposal: Proposal) -> None:
        """Return if policy and ledger allow a proposal; nothing is charged. **Raises** PolicyRefusedError."""
        with self._ledger.transaction() as state:
            self._check(state, proposal)
            check_run_total(state, proposal)

    def _check(self, state: Replay, proposal: Proposal) -> None:
        self._policy.check_proposal(proposal)
        check_split(state, proposal)

    def _unsent(self, state: Replay, proposal: Proposal) -> entries.Reservation | None:
        """An open reservation for the very same question whose answer waits in the outbox."""
        asked = (proposal.run, proposal.round, proposal.query, proposal.config, proposal.events)
        for old in reversed(state.open_reservations()):
            body = old.body
            if (body.run, body.round, body.query, body.config, body.events) == asked and self._outbox.has(
                old.sequence
            ):
                return old
        return None

    def _reservation(
        self, entry: entries.Reservation, proposal: Proposal, projection: Projection, *, reused: bool = False
    ) -> Grant:
        state = self._ledger.state
        header = state.header
        assert header is not None
        attestation = Attestation(
            site=header.site,
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
            delta=header.delta,
            limit=self._policy.epsilon_max,
            simulated=header.simulated,
        )
        signed = SignedAttestation.sign(attestation, self._identity)
        return Grant(entry.sequence, entry.hash, proposal.run, proposal.round, signed, reused)

    def store(self, reservation: Reservation, contribution: bytes, events: Sequence[PrivacyEvent]) -> None:
        """Put the computed contribution into the outbox, durably, if what made it is what was charged.

        ``events``: what the mechanisms that made it did, from its releases.
        **Raises** LocalProtocolError if that is not what was reserved, or the reservation is no longer open: the
        caller then lets it ``fail``; WorkFailedError (disk).
        """
        with self._ledger.transaction() as state:
            _must_be_open(state, reservation)
            _must_be_charged(state.reservations[reservation.sequence].body.events, events)
            self._outbox.put(reservation.sequence, contribution)

    def find(self, run: str, number: int) -> Reservation | None:
        """The newest open reservation of a round, for a process that did not make it itself."""
        with self._ledger.transaction() as state:
            mine = [r for r in state.open_reservations() if (r.body.run, r.body.round) == (run, number)]
        return Reservation(mine[-1].sequence, mine[-1].hash, run, number) if mine else None

    def released_digest(self, run: str, config: str) -> str:
        """Digest (hex) of what left and was charged in a run, of which more may be computed; empty if nothing did."""
        with self._ledger.transaction() as state:
            found = state.released(run, config)
        return found.outbox if found else ""

    def stored(self, reservation: Reservation) -> bytes | None:
        """The contribution that waits for this reservation. **Raises** VerificationError if it is damaged."""
        return self._outbox.get(reservation.sequence)

    def commit(self, reservation: Reservation) -> bytes:
        """Record that the contribution leaves, then return it: from here it is charged for good, and dead.

        **Guarantee** returns at most once for a reservation, over all processes, and only after the COMMIT
        is on disk. **Raises** LocalProtocolError if it is not open or nothing is stored.
        """
        with self._ledger.transaction() as state:
            _must_be_open(state, reservation)
            found = self._outbox.get_with_digest(reservation.sequence)
            if found is None:
                raise LocalProtocolError(f"reservation {reservation.sequence} has no stored contribution")
            contribution, digest = found
            self._ledger.append(Commit(reserve=reservation.sequence, outbox=digest.hex()))
            self._outbox.remove([reservation.sequence])
            self._ledger.renew_anchor()
            return contribution

    def fail(self, reservation: Reservation) -> None:
        """Charge a reservation for good whose answer could not be computed, before the server hears of it.

        Whether computing fails may depend on the data, so that it failed is a release like any other.
        **Raises** LocalProtocolError if the reservation is not open; WorkFailedError (disk).
        """
        with self._ledger.transaction() as state:
            _must_be_open(state, reservation)
            self._ledger.append(Forfeit(reserve=reservation.sequence))
            self._outbox.remove([reservation.sequence])
            self._ledger.renew_anchor()

    def close_round(self, run: str, number: int, *, reason: str = "round closed") -> None:
        """Forget the contributions of a round and void the reservations whose contribution never left."""
        with self._ledger.transaction() as state:
            mine = [r for r in state.reservations.values() if (r.body.run, r.body.round) == (run, number)]
            self._outbox.remove([r.sequence for r in mine])
            self._void([r for r in mine if r.state == "open"], reason)

    def restart(self) -> None:
        """After the site's processes have ended: void what provably did not leave, keep the rest charged."""
        with self._ledger.transaction() as state:
            self._outbox.clear()
            self._void(state.open_reservations(), "restart")

    def _void(self, reservations: Sequence[entries.Reservation], reason: str) -> None:
        for reservation in reservations:
            self._ledger.append(Void(reserve=reservation.sequence, reason=reason))
        self._ledger.renew_anchor()

    def status(self) -> GuardStatus:
        """What is spent and what is left. Reads the ledger anew."""
        with self._ledger.transaction() as state:
            header = state.header
            assert header is not None
            spent, states = state.events, [r.state for r in state.reservations.values()]
            count = len(state.hashes)
        epsilon = round_up(epsilon_of(spent, header.delta))
        limit = self._policy.epsilon_max
        return GuardStatus(
            site=header.site,
            scope=header.scope,
            epsilon=epsilon,
            limit=limit,
            left=max(0.0, limit - epsilon),
            delta=header.delta,
            reading=ScopeAccountant(spent).reading(header.delta),
            entries=count,
            committed=states.count("committed"),
            open=states.count("open"),
            void=states.count("void"),
            forfeit=states.count("forfeit"),
        )

    def rounds_left(self, events: Sequence[PrivacyEvent]) -> int:
        """How many more rounds with these events fit into the budget."""
        state = self._ledger.state
        return rounds_left(ScopeAccountant(state.events), events, self._delta(state), self._policy.epsilon_max)

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
    simulated: bool = False,
    code: str = "unknown",
) -> Guard:
    """Open a site's guard, making the ledger at first use.

    ``scope`` names the consumers whose losses add up, over all runs and models. ``ledger_path`` defaults
    to ``state_dir/ledger.jsonl``; ``code`` is the version that every RESERVE records.
    **Raises** BadInputError if the ledger belongs to another site, scope or delta; VerificationError if
    it is damaged; RollbackError if it is older than its anchor, or gone.
    """
    ledger = Ledger(ledger_path or state_dir / "ledger.jsonl", identity)
    ledger.open(scope=scope, delta=policy.delta, simulated=simulated)
    return Guard(ledger, Outbox(state_dir / "outbox", durable=not simulated), policy, identity, code)


def recover_guard(
    state_dir: Path,
    identity: Identity,
    policy: SitePolicy,
    known: SignedAttestation,
    *,
    former_key: bytes | None = None,
    code: str = "unknown",
) -> Guard:
    """Begin a new ledger that charges what ``known``, the server's highest attestation of this site, shows.

    What the anchor and readable old ledgers show beyond that is charged too. A ledger that is still there is
    moved to ``ledger.lost-N.jsonl``, never removed. ``former_key`` signed all this, if the keys were rotated.
    **Raises** VerificationError if this site did not sign ``known``; BadInputError.
    """
    path, said = state_dir / "ledger.jsonl", known.attestation
    known.verify(former_key or identity.public_key)
    if said.site != identity.name:
        raise BadInputError(f"the attestation is of {said.site}, not of {identity.name}")
    lost = gather(path, said, {identity.public_key, former_key or identity.public_key})
    if path.exists() and path.stat().st_size:
        number = sum(1 for _ in state_dir.glob("ledger.lost-*.jsonl")) + 1
        path.rename(state_dir / f"ledger.lost-{number}.jsonl")
        sync_directory(state_dir)
    ledger = Ledger(path, identity)
    ledger.recover(lost, scope=said.scope, delta=policy.delta, simulated=said.simulated)
    guard = Guard(ledger, Outbox(state_dir / "outbox"), policy, identity, code)
    guard.restart()
    return guard


def source_of(state: Replay, proposal: Proposal) -> int | None:
    """The charged release that a derived proposal is post-processing of; None for one that is charged itself.

    **Raises** PolicyRefusedError (rule ``release``) if nothing of this run has left.
    """
    if not proposal.derived:
        return None
    found = state.released(proposal.run, proposal.config)
    if found is None:
        raise PolicyRefusedError(
            "release",
            f"policy rule release: run {proposal.run} has no released series in this ledger to learn from",
            hint="a site that was not in round 0 of a sales run waits for the next run",
        )
    return found.sequence


def _reserve_body(proposal: Proposal, code: str, source: int | None) -> Reserve:
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
        source=source,
    )


def _must_be_charged(charged: Sequence[PrivacyEvent], ran: Sequence[PrivacyEvent]) -> None:
    if _steps_by_mechanism(charged) != _steps_by_mechanism(ran):
        raise LocalProtocolError(
            f"what ran ({_in_words(ran)}) is not what was charged ({_in_words(charged)})",
            hint="nothing has left; this is a bug of this program: report it",
        )


def _steps_by_mechanism(events: Sequence[PrivacyEvent]) -> Counter[PrivacyEvent]:
    total: Counter[PrivacyEvent] = Counter()
    for event in events:
        total[replace(event, steps=1)] += event.steps
    return total


def _in_words(events: Sequence[PrivacyEvent]) -> str:
    words = [
        f"{e.sub_scope} {e.steps} x noise {e.noise_multiplier:.4g} at rate {e.sampling_rate:g}" for e in events
    ]
    return ", ".join(words) or "nothing"


def _must_be_open(state: Replay, reservation: Reservation) -> None:
    found = state.reservations.get(reservation.sequence)
    if found is None or found.hash != reservation.head:
        raise LocalProtocolError(f"reservation {reservation.sequence} is not in this ledger")
    if found.state != "open":
        raise LocalProtocolError(f"reservation {reservation.sequence} is {found.state}: its contribution is dead")
