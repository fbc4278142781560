"""A site's half of secure aggregation: a state machine without I/O.

One instance takes part in one session. Each step checks the request, computes the answer, records the
step in the site's journal, and only then changes its state and returns; a step that raises has changed
nothing but perhaps the journal. In a deployment each message is handled by a new process:
``to_state`` / ``from_state`` carry the machine between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

import common.secagg.journal as journal
import common.secagg.masks as masks
import common.secagg.shamir as shamir
import common.wire as wire
from common.errors import LocalProtocolError, PolicyRefusedError, RemoteProtocolError, VerificationError
from common.secagg.blame import Proofs, signed_piece
from common.secagg.checks import check_advertisement, check_confirmations, check_pinned, check_sites
from common.secagg.dealing import Context, Piece, Secrets, deal, dealt_digest, open_piece
from common.secagg.fixedpoint import check_ring
from common.secagg.journal import Journal
from common.secagg.messages import (
    DIGEST_BYTES,
    AcceptedList,
    Accusation,
    Advertisement,
    AdvertisementList,
    Confirmation,
    ConfirmationList,
    MaskedVector,
    Params,
    Receipt,
    RevealedShares,
    ShareBundle,
    ShareDelivery,
    SurvivorList,
    cut,
    default_threshold,
    piece_bytes,
    reveal_statement,
)
from common.trust import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    Entropy,
    Identity,
    Roster,
    add_masks,
    checksum,
    exchange_secret,
    point_of,
    system_entropy,
    to_exchange,
    x25519_agreement,
    x25519_public,
)

NEW = "new"
ADVERTISED = "advertised"
SHARED = "shared"
ACCEPTED = "accepted"
MASKED = "masked"
CONFIRMED = "confirmed"
DONE = "done"
CLOSED = "closed"

# step -> (phase it starts from, phase it leads to); ``close``, and a complaint, lead to CLOSED
TRANSITIONS = {
    journal.ADVERTISE: (NEW, ADVERTISED),
    journal.SHARE: (ADVERTISED, SHARED),
    journal.ACCEPT: (SHARED, ACCEPTED),
    journal.MASK: (ACCEPTED, MASKED),
    journal.CONFIRM: (MASKED, CONFIRMED),
    journal.REVEAL: (CONFIRMED, DONE),
}


@dataclass(frozen=True)
class CohortPolicy:
    """What a site demands of a cohort, whatever the server says.

    ``min_threshold``: fewest sites whose sum it joins; None demands floor(2n/3)+1. Only an explicit 2
    allows two of three sites, which is safe against a passive server only.
    """

    min_cohort: int = 3
    min_threshold: int | None = None

    def check(self, params: Params) -> None:
        """Return if the site joins. Raises: PolicyRefusedError naming the rule."""
        sites = len(params.cohort)
        if sites < self.min_cohort:
            raise PolicyRefusedError(
                "min_cohort", f"cohort of {sites} sites is under the site's {self.min_cohort}"
            )
        lowest = default_threshold(sites) if self.min_threshold is None else self.min_threshold
        if params.threshold < lowest:
            raise PolicyRefusedError(
                "min_threshold", f"threshold {params.threshold} of {sites} sites is under the site's {lowest}"
            )


@dataclass(frozen=True, repr=False)
class LocalSite:
    """Everything of a site that outlives a session. ``entropy`` differs from the default in tests only."""

    identity: Identity
    roster: Roster
    journal: Journal
    policy: CohortPolicy = field(default_factory=CohortPolicy)
    entropy: Entropy = system_entropy

    def __repr__(self) -> str:
        return f"LocalSite({self.identity.name})"


@dataclass(frozen=True, repr=False)
class _Secrets:
    channel_key: bytes
    mask_key: bytes  # the seed of the key
    seed: bytes


@dataclass(frozen=True, repr=False)
class _HeldShares:
    dealer: str
    dealing: bytes  # the statement of its dealing
    seed_share: bytes
    key_share: bytes
    seed_commitment: bytes
    key_commitment: bytes


@dataclass(frozen=True, repr=False)
class _State:
    phase: str
    params: Params
    secrets: _Secrets | None = None
    own: Advertisement | None = None
    listed: AdvertisementList | None = None
    held: tuple[_HeldShares, ...] = ()


class ClientProtocol:
    """One site in one session: ``advertise, share, accept, mask, confirm, unmask``, each once, in this order.

    Guarantee: over everything an honest site ever answers, whatever it is asked: never both kinds of
    share of one site in a session in which it has a vector; its channel only if a dealer has signed a wrong share for
    it, and then no vector; never one contribution in two sessions; never two survivor lists
    signed in one session; a mask key never used twice.
    Source: Bonawitz et al. 2017, figure 4, with the steps against active adversaries.
    """

    def __init__(self, site: LocalSite, params: Params) -> None:
        self._site = site
        self._state = _State(NEW, params)

    def __repr__(self) -> str:
        return f"ClientProtocol({self._name}, {self.phase}, {self.params.session})"

    @property
    def params(self) -> Params:
        """The parameters of the session."""
        return self._state.params

    @property
    def phase(self) -> str:
        """Where the site stands, a key of ``TRANSITIONS``."""
        return self._state.phase

    @property
    def _name(self) -> str:
        return self._site.identity.name

    def to_state(self) -> bytes:
        """The machine as bytes, *secrets included*: for memory that dies with the round only."""
        return wire.encode(self._state)

    @classmethod
    def from_state(cls, site: LocalSite, state: bytes) -> ClientProtocol:
        """Continue a machine that another process of the same site stored.

        Raises: RemoteProtocolError if the bytes are not a state.
        """
        restored = wire.restore(_State, state)
        machine = cls(site, restored.params)
        machine._state = restored
        return machine

    def close(self) -> None:
        """Give up the session and forget its secrets; allowed in every phase."""
        self._state = _State(CLOSED, self.params)

    def advertise(self) -> Advertisement:
        """Exchange 1: check cohort and policy, burn the session, publish fresh keys.

        Raises: PolicyRefusedError, VerificationError (cohort), RefusedError (session used before).
        """
        self._expect(journal.ADVERTISE)
        self._check_cohort()
        draw = self._site.entropy
        secrets = _Secrets(draw(KEY_BYTES), draw(KEY_BYTES), shamir.draw_secret(draw))
        salt, name = self.params.salt, self._name
        keys = (x25519_public(secrets.channel_key), point_of(secrets.mask_key))
        unsigned = Advertisement(name, *keys, bytes(SIGNATURE_BYTES))
        answer = replace(unsigned, signature=self._site.identity.sign(unsigned.statement(salt)))
        self._finish(journal.ADVERTISE, salt, secrets=secrets, own=answer)
        return answer

    def share(self, request: AdvertisementList) -> ShareBundle:
        """Exchange 2: verify every advertisement of U1, deal sealed shares of seed and mask key.

        Raises: RemoteProtocolError (a list no honest server makes), VerificationError (a signature).
        """
        self._expect(journal.SHARE)
        self._check_advertisements(request)
        params, secrets = self.params, self._secrets()
        agree = x25519_agreement(secrets.channel_key)
        keys = {
            peer.site: masks.share_key(params, agree(peer.channel_key), (self._name, peer.site))
            for peer in request.advertisements
        }
        shared = Secrets(secrets.seed, secrets.mask_key)
        bundle = deal(params, request, self._site.identity, shared, keys, entropy=self._site.entropy)
        self._finish(journal.SHARE, request.digest, own=None, listed=request)
        return bundle

    def accept(self, request: ShareDelivery) -> Receipt:
        """Exchange 3: open and check what every dealer has dealt to this site.

        A wrong share that its dealer has signed is shown to everybody: the answer is then a complaint that opens this
        site's channel of the session, and the site has left it. What the dealer has *not* signed was altered on the
        way, and is refused: nobody but a dealer can make a site open anything.
        Raises: RemoteProtocolError, VerificationError (a wrong piece that its dealer has not signed).
        """
        self._expect(journal.ACCEPT)
        pieces, delivered = self._pieces(request), request.digest(self.params.salt, self._name)
        held: list[_HeldShares] = []
        accused: list[Accusation] = []
        agree = x25519_agreement(self._secrets().channel_key)
        for peer in self._listed().advertisements:
            if peer.site not in pieces:
                continue
            try:
                held.append(self._opened(peer, pieces[peer.site], agree(peer.channel_key)))
            except VerificationError:
                accused.append(self._accuse(peer.site, pieces[peer.site]))
        if accused:
            return self._complain(delivered, tuple(accused))
        self._finish(journal.ACCEPT, delivered, secrets=self._without_channel(), held=tuple(held))
        return Receipt(self._name, delivered)

    def mask(self, request: AcceptedList, ring: NDArray[np.uint32], contribution: bytes) -> MaskedVector:
        """Exchange 4: add the self mask and a mask per other site of U2; forget seed and keys.

        ``contribution`` is the SHA-256 by which the site's records know the vector. Once this returns the
        contribution is dead: no session accepts it again.
        Shapes: ``ring: uint32[d]``, from ``fixedpoint.quantize``; left as it is.
        Raises: RemoteProtocolError, LocalProtocolError (vector outside its blocks), RefusedError (contribution has
        left before).
        """
        self._expect(journal.MASK)
        if len(contribution) != DIGEST_BYTES:
            raise LocalProtocolError(f"a contribution is known by {DIGEST_BYTES} bytes, got {len(contribution)}")
        check_ring(ring, self.params.blocks)
        check_sites(self.params, request.shared, self._name)
        if not set(request.shared) <= {h.dealer for h in self._state.held}:
            raise RemoteProtocolError(f"U2 names a site of which {self._name} holds no shares")
        params, secrets = self.params, self._secrets()
        agree, shared = x25519_agreement(exchange_secret(secrets.mask_key)), set(request.shared)
        pairs = [
            masks.pair_mask(params, agree(to_exchange(peer.mask_key)), (self._name, peer.site))
            for peer in self._listed().advertisements
            if peer.site in shared - {self._name}
        ]
        masked = ring.copy()
        add_masks(masked, [masks.self_mask(params, secrets.seed, sign=1), *pairs])
        tag = checksum(masks.checksum_key(params.salt, self._name), masked)
        held = tuple(h for h in self._state.held if h.dealer in shared)
        self._finish(journal.MASK, contribution, secrets=None, listed=None, held=held)
        return MaskedVector(self._name, tag, masked)

    def confirm(self, request: SurvivorList) -> Confirmation:
        """Exchange 5: sign (U2, U3) and the dealings of U2, once.

        Raises: RemoteProtocolError if U2 is not what the site holds shares of, or U3 is too small.
        """
        self._expect(journal.CONFIRM)
        self._check_survivors(request)
        statement = request.statement(self.params.salt)
        self._finish(journal.CONFIRM, statement)
        return Confirmation(self._name, self._site.identity.sign(statement))

    def unmask(self, request: ConfirmationList) -> RevealedShares:
        """Exchange 6: after t signatures under the same lists, reveal one share per site of U2; forget all.

        Raises: RemoteProtocolError, VerificationError (a signature).
        """
        self._expect(journal.REVEAL)
        self._check_survivors(request.survivors)
        statement = request.survivors.statement(self.params.salt)
        check_confirmations(self.params, request)
        lists, held, salt = request.survivors, self._state.held, self.params.salt
        survivors = set(lists.survivors)
        seeds = b"".join(h.seed_share for h in held if h.dealer in survivors)
        keys = b"".join(h.key_share for h in held if h.dealer not in survivors)
        commitments = [h.seed_commitment if h.dealer in survivors else h.key_commitment for h in held]
        signature = self._site.identity.sign(reveal_statement(salt, self._name, lists, commitments))
        self._finish(journal.REVEAL, statement, held=())
        return RevealedShares(self._name, seeds, keys, signature)

    def _expect(self, step: str) -> None:
        start, _ = TRANSITIONS[step]
        if self.phase != start:
            raise RemoteProtocolError(f"{self._name} is {self.phase} in {self.params.session}, it cannot {step}")

    def _finish(self, step: str, value: bytes, **changes: object) -> None:
        self._site.journal.record(self.params.session, step, value)
        _, end = TRANSITIONS[step]
        self._state = replace(self._state, phase=end, **changes)  # type: ignore[arg-type]

    def _secrets(self) -> _Secrets:
        if self._state.secrets is None:
            raise LocalProtocolError(f"{self._name} holds no keys of {self.params.session}")
        return self._state.secrets

    def _check_cohort(self) -> None:
        if self._name not in self.params.positions:
            raise RemoteProtocolError(f"{self._name} is not in the cohort of {self.params.session}")
        for member in self.params.cohort:
            check_pinned(self._site.roster, member)
        if self.params.member(self._name).public_key != self._site.identity.public_key:
            raise VerificationError(f"key of {self._name} in the cohort is not this site's own")
        self._site.policy.check(self.params)

    def _check_advertisements(self, request: AdvertisementList) -> None:
        check_sites(self.params, request.sites, self._name)
        if self._state.own not in request.advertisements:
            raise RemoteProtocolError(f"{self._name} did not send the advertisement listed under its name")
        keys = {key for a in request.advertisements for key in (a.channel_key, a.mask_key)}
        if len(keys) != 2 * len(request.advertisements):
            raise RemoteProtocolError("two advertisements share a key")
        for advertisement in request.advertisements:
            check_advertisement(self.params, advertisement)

    def _listed(self) -> AdvertisementList:
        if self._state.listed is None:
            raise LocalProtocolError(f"{self._name} knows no keys of {self.params.session}")
        return self._state.listed

    def _without_channel(self) -> _Secrets:
        return replace(self._secrets(), channel_key=b"")

    def _pieces(self, request: ShareDelivery) -> dict[str, bytes]:
        check_sites(self.params, request.dealers, self._name)
        size = piece_bytes(len(self._listed().sites))
        if not set(request.dealers) <= set(self._listed().sites) or len(request.pieces) != size * len(
            request.dealers
        ):
            raise RemoteProtocolError("what is delivered is not a piece of each dealer, all of them of U1")
        return dict(zip(request.dealers, cut(request.pieces, size), strict=True))

    def _opened(self, dealer: Advertisement, raw: bytes, shared: bytes) -> _HeldShares:
        pair, piece = (dealer.site, self._name), Piece.read(raw)
        shares = open_piece(Context(self.params.salt, *pair), piece, masks.share_key(self.params, shared, pair))
        commitments = piece.entry.seed_commitment, piece.entry.key_commitment
        return _HeldShares(dealer.site, piece.statement(self.params, self._listed(), pair), *shares, *commitments)

    def _accuse(self, dealer: str, raw: bytes) -> Accusation:
        case, pair = Proofs(self.params, self._listed()), (dealer, self._name)
        try:
            piece = signed_piece(case, raw, pair)
        except VerificationError as error:
            raise VerificationError(
                f"share dealt by {dealer} was altered on its way, {dealer} did not sign it"
            ) from error
        return Accusation(dealer, piece.statement(self.params, self._listed(), pair))

    def _complain(self, delivered: bytes, accused: tuple[Accusation, ...]) -> Receipt:
        unsigned = Receipt(self._name, delivered, accused, self._secrets().channel_key, bytes(SIGNATURE_BYTES))
        statement = unsigned.statement(self.params.salt)
        self._site.journal.record(self.params.session, journal.ACCEPT, statement)
        self.close()
        return replace(unsigned, signature=self._site.identity.sign(statement))

    def _check_survivors(self, request: SurvivorList) -> None:
        if request.shared != tuple(h.dealer for h in self._state.held):
            raise RemoteProtocolError(f"U2 is not the list of which {self._name} holds shares")
        if request.dealt != dealt_digest([h.dealing for h in self._state.held]):
            raise RemoteProtocolError(f"the dealings of U2 are not those of which {self._name} holds shares")
        check_sites(self.params, request.survivors, self._name)
        if not set(request.survivors) <= set(request.shared):
            raise RemoteProtocolError("a survivor never shared its keys")
