"""One round at a site: verify what is asked, reserve, compute, and let one masked vector leave.

    advertise   signature, policy, budget and RESERVE -> local training -> outbox -> fresh keys
    share, accept, mask, confirm, unmask   the secure-aggregation machine; COMMIT before the masked vector leaves

Nothing here knows Flower: requests and replies are named values, and what must live until the next
message of the round is a ``Memory`` that the caller keeps (secrets included, never on disk).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import common.secagg.fixedpoint as fixedpoint
import common.secagg.messages as messages
import common.wire as wire
from client.answers import answer
from client.guard import (
    ChargedError,
    FileJournal,
    Grant,
    Guard,
    Proposal,
    ReservationKey,
    SitePolicy,
    keep_closing,
    outbox_digest,
)
from client.library import Arrival, keep_model
from client.runtime.approval import ASK, require_approval, was_asked
from client.site import Question, Site
from client.verification import (
    Values,
    check_invitation,
    check_params,
    check_plan,
    part,
    proposal_of,
    verified_question,
)
from common.contribution import DIGEST_BYTES, TRAIN, Query
from common.errors import (
    FedcartError,
    LocalProtocolError,
    PolicyRefusedError,
    RemoteProtocolError,
    VerificationError,
    WorkFailedError,
)
from common.privacy import PrivacyEvent, SignedAttestation
from common.run import COUNTERSIGNED, DELIVERY, FAREWELL, PROPOSAL, Closing, Delivery, PerformanceSettings, RunPlan
from common.secagg.client import ClientProtocol, CohortPolicy, LocalSite
from common.secagg.messages import Params, PlainParams, default_threshold
from common.trust import sha256, uniform_words

Asked = TypeVar(
    "Asked",
    messages.AdvertisementList,
    messages.ShareDelivery,
    messages.AcceptedList,
    messages.SurvivorList,
    messages.ConfirmationList,
)


@dataclass(frozen=True)
class Memory:
    """What a site remembers between two messages of a round: the machine's state, and the reservation.

    ``ring``: a contribution that waits here and not in the outbox: one without privacy, for which nothing is charged, and one
    that holds a share of a sum's noise, which must not outlive the session. ``plan``: the run's, where the site keeps what
    leaves, to learn from it later.
    """

    machine: bytes = b""
    reservation: str = ""
    ring: bytes = b""
    plan: str = ""


def advertise(site: Site, request: Values, speed: PerformanceSettings) -> tuple[dict[str, Any], Memory]:
    """Exchange 1: answer the signed query into the outbox and publish fresh keys of this session.

    Raises: VerificationError (signature, digests), PolicyRefusedError, BudgetExhaustedError, RollbackError,
    PausedError; ChargedError for whatever goes wrong after the RESERVE.
    """
    question = verified_question(site, request, speed)
    _require_approval(site, question.plan)
    params = messages.decode(Params, part(request, "message", bytes))
    check_invitation(site, question, params, request)
    check_params(question, params)
    machine = ClientProtocol(_local_site(site), params)
    published = machine.advertise()  # refuses foreign cohorts and used sessions before anything is charged
    message, kept = messages.encode(published), machine.to_state()  # whatever fails here fails uncharged
    reply, memory = _prepare(site, question, request, params)
    return reply | {"message": message}, replace(memory, machine=kept)


def share(site: Site, request: Values, memory: Memory) -> tuple[dict[str, Any], Memory]:
    """Exchange 2: deal encrypted shares of this session's secrets."""
    machine = _machine(site, memory)
    with _failing_is_charged(site, memory):
        bundle = machine.share(_asked(messages.AdvertisementList, request, machine))
    return {"message": messages.encode(bundle)}, replace(memory, machine=machine.to_state())


def accept(site: Site, request: Values, memory: Memory) -> tuple[dict[str, Any], Memory]:
    """Exchange 3: check what was dealt, or show everybody which dealer signed a wrong share; nothing has left yet."""
    machine = _machine(site, memory)
    with _failing_is_charged(site, memory):
        receipt = machine.accept(_asked(messages.ShareDelivery, request, machine))
    if receipt.accused:
        accused = [accusation.dealer for accusation in receipt.accused]
        site.note_locally({"round": machine.params.session.round, "kind": "complaint", "accused": accused})
    return {"message": messages.encode(receipt)}, replace(memory, machine=machine.to_state())


def mask(site: Site, request: Values, memory: Memory) -> tuple[dict[str, Any], Memory]:
    """Exchange 4: COMMIT, then the masked vector leaves; from here the contribution is dead."""
    machine = _machine(site, memory)
    with _failing_is_charged(site, memory):
        waiting = _waiting(site, memory)
        # Without privacy the same seed gives the same ring again, so there the session is part of the name.
        again = b"" if memory.reservation else str(machine.params.session).encode()
        contribution = sha256(b"fedcart/contribution/2", again, waiting.digest)
        accepted = _asked(messages.AcceptedList, request, machine)
        masked = machine.mask(accepted, np.frombuffer(waiting.ring, dtype=np.uint32), contribution)
        _let_go(site, memory, waiting)
    return {"message": messages.encode(masked)}, Memory(machine.to_state())


def confirm(site: Site, request: Values, memory: Memory) -> tuple[dict[str, Any], Memory]:
    """Exchange 5: sign the survivor list, once."""
    machine = _machine(site, memory)
    signed = machine.confirm(_asked(messages.SurvivorList, request, machine))
    return {"message": messages.encode(signed)}, Memory(machine.to_state())


def unmask(site: Site, request: Values, memory: Memory) -> tuple[dict[str, Any], Memory]:
    """Exchange 6: reveal one share per site under t signatures; then forget everything."""
    machine = _machine(site, memory)
    revealed = machine.unmask(_asked(messages.ConfirmationList, request, machine))
    return {"message": messages.encode(revealed)}, Memory()


def contribute(site: Site, request: Values, speed: PerformanceSettings) -> dict[str, Any]:
    """The single exchange of plain aggregation: the server sees this site's noised contribution.

    Raises: PolicyRefusedError unless the site's own policy allows it.
    """
    question = verified_question(site, request, speed)
    _require_approval(site, question.plan)
    params = wire.decode(PlainParams, part(request, "message", bytes), messages.largest_bytes(PlainParams))
    check_invitation(site, question, params, request)
    reply, memory = _prepare(site, question, request, params)
    try:
        waiting = _waiting(site, memory)
        _let_go(site, memory, waiting)
    except Exception as error:
        if "attestation" in reply:
            raise ChargedError(error, SignedAttestation.from_json(json.loads(reply["attestation"]))) from error
        raise
    return reply | {"ring": np.frombuffer(waiting.ring, dtype=np.uint32).astype("<u4", copy=False).tobytes()}


def close(site: Site, request: Values) -> dict[str, Any]:
    """The coordinator says that the run is over: void what never left, so that it is not charged; sign its last record.

    A record that ends before this site's last release is not signed: then its tail is cut. What is signed is kept, with the
    coordinator's own signature under it: another record afterwards shows.
    Raises: VerificationError (signature), RemoteProtocolError, WorkFailedError (disk).
    """
    closing, signature = wire.decode(Closing, part(request, "closing", bytes)), part(request, "signature", bytes)
    site.roster.verify(site.roster.coordinator.name, closing.statement(FAREWELL), signature)
    guard = site.guard()
    _close_rounds(guard, closing.run, keep=-1)
    left = guard.left_in(closing.run)
    if max(left, default=0) > closing.round:
        raise RemoteProtocolError(f"the record ends with round {closing.round}, round {max(left)} left this site")
    if left and not site.simulated:
        keep_closing(site.kit.state, closing, signature)
    return {"signature": site.identity.sign(closing.statement(COUNTERSIGNED))}


def keep(site: Site, request: Values) -> dict[str, Any]:
    """A model of this site's federation comes: verify it, keep it. Raises: VerificationError and those of ``keep_model``."""
    delivery = wire.decode(Delivery, part(request, "delivery", bytes))
    signature = part(request, "signature", bytes)
    site.roster.verify(site.roster.coordinator.name, delivery.statement(DELIVERY), signature)
    if delivery.roster != site.roster.digest.hex():
        raise VerificationError("the model is sent under another roster than this site's")
    arrival = Arrival(part(request, "document", bytes), part(request, "weights", bytes), delivery)
    return {"model": keep_model(site, arrival).name}


def propose(site: Site, request: Values) -> None:
    """Before round 1: return if policy and operator allow the signed plan of a run; nothing is computed or charged.

    Raises: VerificationError (signature), PolicyRefusedError naming the rule, ApprovalPendingError.
    """
    plan = RunPlan.from_json(part(request, "plan", str))
    site.roster.verify(site.roster.coordinator.name, PROPOSAL + plan.digest(), part(request, "signature", bytes))
    check_plan(site, plan)
    if plan.config.privacy.enabled:
        plan.check_costs(plan.task.opening or TRAIN)
    if plan.config.privacy.enabled or not site.simulated:
        site.guard().check_proposal(_first_proposal(site, plan))
    _require_approval(site, plan)


def budget_with(site: Site, plan: RunPlan, later: int = 0) -> tuple[float, float]:
    """Epsilon of the site's scope now, and after the whole run of a plan and so many later ones like it."""
    return site.guard().with_run(_first_proposal(site, plan), later)


def _first_proposal(site: Site, plan: RunPlan) -> Proposal:
    """The first charged round of a plan with all its sites, as the policy will meet it."""
    opening = plan.task.opening
    kind, number = (opening, 0) if opening else (TRAIN, 1)
    query = Query(kind, plan.run, number, plan.to_json(), bytes(DIGEST_BYTES))
    question = Question(query, plan, np.zeros(0, dtype=np.float32))
    cohort = plan.cohort
    threshold = plan.config.aggregation.threshold or default_threshold(cohort)
    secure = plan.config.aggregation.mode == "secure"
    return replace(proposal_of(site, question, None), cohort=cohort, threshold=threshold, secure=secure)


def _require_approval(site: Site, plan: RunPlan) -> None:
    """Nobody is asked about a plan that this site's rules or its budget refuse, by whichever message it comes."""
    if site.simulated:
        return
    mode, digest = SitePolicy.load(site.kit.policy).approve, plan.digest().hex()
    if mode == ASK and not was_asked(site.kit, digest):
        site.guard().check_proposal(_first_proposal(site, plan))
    require_approval(site.kit, mode, plan.run, digest, plan.to_json())


def _prepare(
    site: Site, question: Question, request: Values, params: Params | PlainParams
) -> tuple[dict[str, Any], Memory]:
    """RESERVE, compute, quantize, store; or take the stored answer of an attempt that never left."""
    if not question.plan.config.privacy.enabled:
        if not site.simulated:
            raise PolicyRefusedError(
                "noise_multiplier_min", "the run has no privacy", hint="real sites train with noise only"
            )
        return {}, Memory(ring=_quantized(site, question)[0].tobytes(), plan=_plan_to_keep(question))
    guard = site.guard()
    _close_rounds(guard, question.query.run, keep=question.query.round)
    grant = guard.reserve(proposal_of(site, question, params), _echoed(request))
    with _charged(grant):
        ring = b"" if grant.reused else _compute(site, question, guard, grant)
        kept = json.dumps(_reservation_to_json(grant), allow_nan=False)
        memory = Memory(reservation=kept, ring=ring, plan=_plan_to_keep(question))
        return {"attestation": attested(grant.attestation)}, memory


def _compute(site: Site, question: Question, guard: Guard, grant: Grant) -> bytes:
    """Compute the answer and put it into the outbox; a share of a sum's noise is returned, and only its digest is kept."""
    try:
        ring, events = _quantized(site, question)
        raw = ring.data.cast("B")
        if question.plan.quorum:
            guard.note_made(grant, outbox_digest(raw), events)
            return bytes(raw)
        guard.store(grant, raw, events)
        return b""
    except Exception:
        guard.fail(grant)  # that it failed may depend on the data, and the error code leaves: charged for good
        raise


@contextmanager
def _charged(grant: Grant) -> Iterator[None]:
    """Whatever goes wrong from here on, the server hears of the charge. Raises: ChargedError."""
    try:
        yield
    except Exception as error:
        raise ChargedError(error, grant.attestation) from error


@contextmanager
def _failing_is_charged(site: Site, memory: Memory) -> Iterator[None]:
    """A failure of the site's own before its answer has left is told by a code: charged for good, as one of computing is.

    What another party did wrong is not; and a disk that does not take this entry leaves the reservation open, and charged.
    """
    try:
        yield
    except Exception as error:
        others = isinstance(error, FedcartError) and not isinstance(error, LocalProtocolError | WorkFailedError)
        if memory.reservation and not others:
            with suppress(FedcartError):
                site.guard().fail(_reservation_from_json(memory.reservation))
        raise


def attested(signed: SignedAttestation) -> str:
    """An attestation as a message carries it."""
    return json.dumps(signed.to_json(), allow_nan=False)


def _quantized(site: Site, question: Question) -> tuple[NDArray[np.uint32], tuple[PrivacyEvent, ...]]:
    """The answer as ring elements, and what the mechanisms did that made it."""
    contribution = answer(site, question)
    if (ring := contribution.ring) is not None:
        return ring, contribution.events
    config, words = question.plan.config, None
    if not config.privacy.enabled:  # the same seed gives the same bits; with privacy, rounding is secret too
        words = uniform_words(
            sha256(b"fedcart/rounding/1", f"{config.seed}/{site.name}/{question.query.round}".encode())
        )
    quantized = fixedpoint.quantize(contribution.vector, contribution.blocks, words)
    site.note_locally({"round": question.query.round, "kind": "quantize", "saturated": quantized.saturated})
    return quantized.ring, contribution.events


@dataclass(frozen=True, repr=False)
class _Waiting:
    """A contribution that has not left: bytes of ``uint32[d]``, and the ``outbox_digest`` that they were checked by."""

    ring: bytes
    digest: bytes


def _waiting(site: Site, memory: Memory) -> _Waiting:
    if memory.ring:
        return _Waiting(memory.ring, outbox_digest(memory.ring))
    stored = site.guard().stored_with_digest(_reservation_from_json(memory.reservation))
    if stored is None:
        raise LocalProtocolError("no contribution waits for this round", hint="it was closed, or left already")
    return _Waiting(*stored)


def _plan_to_keep(question: Question) -> str:
    return question.query.settings if question.query.kind == question.plan.task.opening else ""


def _let_go(site: Site, memory: Memory, waiting: _Waiting) -> None:
    """COMMIT. What leaves is kept first where the run goes on with it; without its COMMIT that file is worth nothing."""
    if memory.plan:
        from client.tasks.series import keep_release

        keep_release(site.kit.state, RunPlan.from_json(memory.plan), waiting.ring)
    if memory.reservation:
        guard, reservation = site.guard(), _reservation_from_json(memory.reservation)
        commit = guard.commit_in_memory if memory.ring else guard.commit_known
        commit(reservation, waiting.digest)


def _asked(kind: type[Asked], request: Values, machine: ClientProtocol) -> Asked:
    return messages.decode(kind, part(request, "message", bytes), machine.params)


def _machine(site: Site, memory: Memory) -> ClientProtocol:
    if not memory.machine:
        raise RemoteProtocolError("this site is in no session", hint="it was restarted, or the round is over")
    return ClientProtocol.from_state(_local_site(site), memory.machine)


def _local_site(site: Site) -> LocalSite:
    policy = CohortPolicy(min_threshold=2) if site.simulated else CohortPolicy()
    return LocalSite(
        site.identity, site.roster, FileJournal(site.kit.state / "journal.jsonl", sync=not site.simulated), policy
    )


def _echoed(request: Values) -> SignedAttestation | None:
    head = request.get("head", "")
    return SignedAttestation.from_text(head) if head else None


def _close_rounds(guard: Guard, run: str, *, keep: int) -> None:
    with guard.ledger.transaction() as state:
        rounds = {r.body.round for r in state.open_reservations() if r.body.run == run} - {keep}
    for number in sorted(rounds):
        guard.close_round(run, number)


def _reservation_to_json(granted: ReservationKey) -> dict[str, Any]:
    return {"sequence": granted.sequence, "head": granted.head, "run": granted.run, "round": granted.round}


def _reservation_from_json(text: str) -> ReservationKey:
    return ReservationKey(**json.loads(text))
