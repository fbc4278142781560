"""The server's half of secure aggregation: a state machine without I/O.

    server = ServerProtocol(params)
    while not server.finished:
        for site, request in server.requests().items(): ...      # send encode(request)
        server.receive(site, answer)                             # for each answer; raises, naming the site
        server.advance()                                         # all in, or the deadline has passed
    server.result

A site that does not answer, or answers wrongly, is lost from that exchange on. The server gets a sum of
at least t sites, or a ``RoundAbortedError`` with a reason. What a site has done wrong under its own signature is
kept: ``faults`` names it, ``proofs`` lets everybody check that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

import common.secagg.fixedpoint as fixedpoint
import common.secagg.messages as messages
from common.errors import (
    FedcartError,
    LocalProtocolError,
    RemoteProtocolError,
    RoundAbortedError,
    VerificationError,
)
from common.secagg.blame import (
    BAD_BOX,
    Complaint,
    Fault,
    Proofs,
    Revealed,
    culprits,
    judge_complaint,
    judge_dealing,
    judge_reveal,
)
from common.secagg.checks import check_advertisement, check_signed
from common.secagg.dealing import KEY, SEED, Dealing, dealt_digest
from common.secagg.evidence import Evidence, digest_sum
from common.secagg.masks import checksum_key
from common.secagg.messages import (
    DIGEST_BYTES,
    AcceptedList,
    Advertisement,
    AdvertisementList,
    Answer,
    Confirmation,
    ConfirmationList,
    MaskedVector,
    Params,
    Receipt,
    Request,
    RevealedShares,
    ShareBundle,
    ShareDelivery,
    SurvivorList,
    cut,
    reveal_statement,
)
from common.secagg.recovery import recover_masks
from common.secagg.shamir import SHARE_BYTES, check_share
from common.trust import add_masks, checksum, to_exchange, verify_signature, x25519_usable

ADVERTISE = "advertise"
SHARE = "share"
ACCEPT = "accept"
MASK = "mask"
CONFIRM = "confirm"
UNMASK = "unmask"
DONE = "done"
ABORTED = "aborted"

# exchange -> the exchange after it; an abort leads from each to ABORTED
TRANSITIONS = {ADVERTISE: SHARE, SHARE: ACCEPT, ACCEPT: MASK, MASK: CONFIRM, CONFIRM: UNMASK, UNMASK: DONE}
EXCHANGES = tuple(TRANSITIONS)

PROVEN_FAULT = "proven-fault"


@dataclass(frozen=True, eq=False, repr=False)
class SumResult:
    """The sum of the survivors' contributions, and the evidence for it.

    Shapes: ``ring_sum: uint32[d]``.
    """

    ring_sum: NDArray[np.uint32]
    survivors: tuple[str, ...]
    evidence: Evidence

    def __repr__(self) -> str:
        return f"SumResult({self.ring_sum.size} coordinates, {len(self.survivors)} survivors)"

    @property
    def weight(self) -> float:
        """Sum of the survivors' public weights: divide by it for the mean."""
        return self.evidence.params.weight_of(self.survivors)

    def decode(self) -> NDArray[np.float64]:
        """The sum as real numbers: ``float64[d]``."""
        return fixedpoint.decode(self.ring_sum, self.evidence.params.blocks)

    def decode_blocks(self) -> dict[str, NDArray[np.float64]]:
        """The sum as real numbers, by name of block."""
        vector = self.decode()
        return {block.name: vector[part] for block, part in fixedpoint.slices(self.evidence.params.blocks)}


class ServerProtocol:
    """One session: the cohort's answers in, the sum out.

    Guarantee: the result is the exact ring sum of the quantized vectors of ``survivors``, at least t
    of them, provided those sites followed the protocol. A message that is refused changes nothing.
    Source: Bonawitz et al. 2017, figure 4, with the steps against active adversaries.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.phase = ADVERTISE
        self.abort_reason = ""
        self._asked: tuple[str, ...] = params.sites
        self._answers: dict[str, Any] = {}
        self._u1 = AdvertisementList(())
        self._dealings: dict[str, Dealing] = {}
        self._lists = SurvivorList((), (), bytes(DIGEST_BYTES))
        self._proofs = Proofs(params, self._u1)
        self._faults: set[Fault] = set()
        self._confirmations: tuple[Confirmation, ...] = ()
        self._sum = np.zeros(params.vector_length, dtype=np.uint32)
        self._result: SumResult | None = None

    def __repr__(self) -> str:
        return f"ServerProtocol({self.params.session}, {self.phase}, {len(self._answers)}/{len(self._asked)} in)"

    @property
    def finished(self) -> bool:
        """Whether there is a result or an abort."""
        return self.phase in (DONE, ABORTED)

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Sites asked in this exchange that have not answered; when empty, ``advance`` at once."""
        return tuple(site for site in self._asked if site not in self._answers)

    @property
    def result(self) -> SumResult:
        """The sum. Raises: LocalProtocolError before the last exchange has been advanced."""
        if self._result is None:
            raise LocalProtocolError(f"{self.params.session} is in the phase {self.phase}, it has no result")
        return self._result

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What sites have done wrong so far, proven by what they signed; in order, each once."""
        return tuple(sorted(self._faults))

    @property
    def proofs(self) -> Proofs:
        """What proves the ``faults``, for everybody who has the roster."""
        return self._proofs

    def requests(self) -> dict[str, Request]:
        """What to send in this exchange, to each site that is still in. Equal requests are one object."""
        if self.finished:
            return {}
        if self.phase == ACCEPT:
            return {site: self._delivery(site) for site in self._asked}
        common: dict[str, Request] = {
            ADVERTISE: self.params,
            SHARE: self._u1,
            MASK: AcceptedList(self._asked),
            CONFIRM: self._lists,
            # t signatures are what a site asks for; more would cost each site a verification each
            UNMASK: ConfirmationList(self._lists, self._confirmations[: self.params.threshold]),
        }
        return dict.fromkeys(self._asked, common[self.phase])

    def receive(self, site: str, answer: bytes | Answer) -> None:
        """Take the answer that came over ``site``'s authenticated channel.

        Raises: FedcartError (mostly RemoteProtocolError or VerificationError), naming the site; nothing has changed
        then, but that ``faults`` holds what it has proven. No other error leaves, whatever the answer is.
        """
        if self.finished:
            raise RemoteProtocolError(f"{site[:40]} answered after {self.params.session} was {self.phase}")
        kind, check, _ = _TABLE[self.phase]
        if site not in self._asked:
            raise RemoteProtocolError(f"{site[:40]} was not asked to {self.phase}")
        if site in self._answers:
            raise RemoteProtocolError(f"{site} answered twice to {self.phase}")
        try:
            message = messages.decode(kind, answer, self.params) if isinstance(answer, bytes) else answer
            if type(message) is not kind:
                raise RemoteProtocolError(f"expected {kind.__name__}, got {type(message).__name__}")
            if message.site != site:
                raise RemoteProtocolError("answer carries another site's name")
            kept = check(self, message)
        except FedcartError as error:
            error.message = f"{site}, {self.phase}: {error.message}"
            error.args = (error.message,)
            raise
        except Exception as error:  # one site must not be able to end the session for all
            raise RemoteProtocolError(f"{site}, {self.phase}: unexpected {type(error).__name__}") from error
        self._answers[site] = kept

    def advance(self) -> None:
        """Close the exchange: go on with the sites that answered.

        Raises: RoundAbortedError with the reason ``too-few-PHASE`` under the threshold, or ``proven-fault`` if a site
        had to open its channel against a dealer: no vector has left, the next attempt goes without the culprit.
        """
        if self.finished:
            raise LocalProtocolError(f"{self.params.session} is already {self.phase}")
        answered = self.params.in_order(self._answers)
        if self.phase == ACCEPT and (bad := [f for f in self.faults if f.kind == BAD_BOX]):
            self._abort(PROVEN_FAULT, f"wrong shares were dealt: {'; '.join(map(str, bad))}")
        if len(answered) < self.params.threshold:
            self._abort(
                f"too-few-{self.phase}",
                f"{len(answered)} of {len(self._asked)} sites answered to {self.phase}, "
                f"the threshold is {self.params.threshold}; missing: {', '.join(self.waiting_for)}",
            )
        _TABLE[self.phase].close(self, answered)
        self._asked, self._answers = answered, {}
        self.phase = TRANSITIONS[self.phase]

    def abort(self, reason: str, message: str) -> NoReturn:
        """Give the session up and forget what was received. Raises: RoundAbortedError, always."""
        self._abort(reason, message)

    def _abort(self, reason: str, message: str) -> NoReturn:
        self.phase, self.abort_reason = ABORTED, reason
        self._answers, self._dealings, self._sum = {}, {}, np.zeros(0, dtype=np.uint32)
        raise RoundAbortedError(reason, message, hint="the model is untouched: start the next round or attempt")

    def _delivery(self, holder: str) -> ShareDelivery:
        pieces = b"".join(self._dealings[dealer].piece(holder).write() for dealer in self._asked)
        return ShareDelivery(self._asked, pieces)

    def _blame(self, part: str, proof: object, *faults: Fault) -> None:
        """Keep a proof in a part of ``proofs``, and what it proves."""
        changes: dict[str, Any] = {part: (*getattr(self._proofs, part), proof)}
        self._proofs = replace(self._proofs, **changes)
        self._faults.update(faults)

    def _check_advertisement(self, answer: Advertisement) -> Advertisement:
        check_advertisement(self.params, answer)
        keys = (answer.channel_key, answer.mask_key)
        seen = {key for a in self._answers.values() for key in (a.channel_key, a.mask_key)}
        if keys[0] == keys[1] or seen.intersection(keys):
            raise RemoteProtocolError("a public key is advertised twice")
        if not x25519_usable(keys[0]) or not x25519_usable(
            to_exchange(keys[1])
        ):  # one such key would make every other site refuse the list
            raise RemoteProtocolError("a public key has the wrong length or small order")
        return answer

    def _check_bundle(self, answer: ShareBundle) -> Dealing:
        dealing = Dealing(self.params, self._u1, answer)
        try:
            dealing.check()
        except VerificationError:
            self._blame("dealings", answer, judge_dealing(self._proofs, answer))
            raise
        return dealing

    def _check_receipt(self, answer: Receipt) -> None:
        if answer.delivered != self._delivery(answer.site).digest(self.params.salt, answer.site):
            raise RemoteProtocolError("receipt is about another delivery, or of another session or site")
        if not answer.accused:
            return
        for accusation in answer.accused:
            if accusation.dealer not in self._asked:
                raise RemoteProtocolError("complaint is about a site that dealt nothing")
        pieces = tuple(self._dealings[a.dealer].piece(answer.site).write() for a in answer.accused)
        complaint = Complaint(answer, pieces)
        faults = judge_complaint(self._proofs, complaint)
        self._blame("complaints", complaint, *faults)
        if answer.site in culprits(faults):
            raise VerificationError("complaint about a share that was right")

    def _check_masked(self, answer: MaskedVector) -> None:
        if answer.ring.shape != self._sum.shape or answer.ring.dtype != np.uint32:
            raise RemoteProtocolError(f"vector has {answer.ring.size} coordinates, not {self._sum.size}")
        if checksum(checksum_key(self.params.salt, answer.site), answer.ring) != answer.checksum:
            raise RemoteProtocolError("masked vector is damaged, or of another session or site")
        # Added at once, so that the server holds one vector, however many sites there are.
        np.add(self._sum, answer.ring, out=self._sum)

    def _check_confirmation(self, answer: Confirmation) -> Confirmation:
        # Also what each site will check; a bad signature must not reach them, it would stop them all.
        check_signed(self.params, self._lists.statement(self.params.salt), answer)
        return answer

    def _check_revealed(self, answer: RevealedShares) -> dict[str, bytes]:
        """The shares by dealer; all of them are those that the dealers committed to."""
        shares = self._by_dealer(answer)
        committed = []
        for dealer in self._lists.shared:
            check_share(shares[dealer])
            committed.append(self._dealings[dealer].committed(answer.site, self._kind(dealer), shares[dealer]))
        statement = reveal_statement(self.params.salt, answer.site, self._lists, committed)
        verify_signature(self.params.member(answer.site).public_key, statement, answer.signature)
        wrong = [proof for d in self._lists.shared if (proof := self._wrong_share(d, answer, tuple(committed)))]
        for proof in wrong:
            self._blame("reveals", proof, judge_reveal(self._proofs, proof))
        if wrong:
            raise VerificationError(f"wrong share of {', '.join(proof.dealer for proof in wrong)} revealed")
        return shares

    def _wrong_share(self, dealer: str, answer: RevealedShares, committed: tuple[bytes, ...]) -> Revealed | None:
        lists, entry = self._lists, self._dealings[dealer].entries[answer.site]
        if entry.commitment(self._kind(dealer)) == committed[lists.shared.index(dealer)]:
            return None
        piece = self._dealings[dealer].piece(answer.site).write()
        dealings = tuple(self._dealings[site].statement for site in lists.shared)
        return Revealed(answer.site, dealer, piece, lists, dealings, committed, answer.signature)

    def _kind(self, dealer: str) -> str:
        return SEED if dealer in self._lists.survivors else KEY

    def _by_dealer(self, answer: RevealedShares) -> dict[str, bytes]:
        shares: dict[str, bytes] = {}
        for sites, joined in ((self._lists.survivors, answer.seed_shares), (self._lists.lost, answer.key_shares)):
            if len(joined) != SHARE_BYTES * len(sites):
                raise RemoteProtocolError(
                    f"{len(joined)} bytes of shares, not {SHARE_BYTES} for each of {len(sites)} sites"
                )
            shares.update(zip(sites, cut(joined, SHARE_BYTES), strict=True))
        return shares

    def _close_advertise(self, answered: tuple[str, ...]) -> None:
        self._u1 = AdvertisementList(tuple(self._answers[site] for site in answered))
        self._proofs = Proofs(self.params, self._u1)

    def _close_share(self, answered: tuple[str, ...]) -> None:
        self._dealings = {site: self._answers[site] for site in answered}

    def _close_accept(self, answered: tuple[str, ...]) -> None:
        self._dealings = {site: self._dealings[site] for site in answered}

    def _close_mask(self, answered: tuple[str, ...]) -> None:
        dealt = dealt_digest([self._dealings[site].statement for site in self._asked])
        self._lists = SurvivorList(self._asked, answered, dealt)

    def _close_confirm(self, answered: tuple[str, ...]) -> None:
        self._confirmations = tuple(self._answers[site] for site in answered)

    def _close_unmask(self, answered: tuple[str, ...]) -> None:
        revealed = {site: self._answers[site] for site in answered}
        try:
            added = recover_masks(self.params, self._u1, self._lists, revealed)
        except RoundAbortedError as error:
            self._abort(error.reason, error.message)
        add_masks(self._sum, added)
        advertised = self._u1.advertisements
        evidence = Evidence(self.params, advertised, self._lists, self._confirmations, digest_sum(self._sum))
        self._result = SumResult(self._sum, self._lists.survivors, evidence)


class _Exchange(NamedTuple):
    kind: type[Any]
    check: Callable[[ServerProtocol, Any], Any]  # what is kept of a site's answer
    close: Callable[[ServerProtocol, tuple[str, ...]], None]


_TABLE = {
    ADVERTISE: _Exchange(Advertisement, ServerProtocol._check_advertisement, ServerProtocol._close_advertise),
    SHARE: _Exchange(ShareBundle, ServerProtocol._check_bundle, ServerProtocol._close_share),
    ACCEPT: _Exchange(Receipt, ServerProtocol._check_receipt, ServerProtocol._close_accept),
    MASK: _Exchange(MaskedVector, ServerProtocol._check_masked, ServerProtocol._close_mask),
    CONFIRM: _Exchange(Confirmation, ServerProtocol._check_confirmation, ServerProtocol._close_confirm),
    UNMASK: _Exchange(RevealedShares, ServerProtocol._check_revealed, ServerProtocol._close_unmask),
}
