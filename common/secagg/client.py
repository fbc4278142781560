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
from common.secagg.checks import check_advertisement, check_confirmations, check_pinned, check_sites
from common.secagg.fixedpoint import check_ring
from common.secagg.journal import Journal
from common.secagg.messages import (
    BOX_BYTES,
    DIGEST_BYTES,
    Advertisement,
    AdvertisementList,
    Confirmation,
    ConfirmationList,
    MaskedVector,
    Params,
    RevealedShares,
    ShareBundle,
    ShareDelivery,
    SurvivorList,
    checksum_key,
    cut,
    default_threshold,
    encode,
    seed_commitment,
    shares_checksum,
)
from common.trust.crypto import (
    KEY_BYTES,
    Entropy,
    add_masks,
    checksum,
    seal,
    sha256,
    system_entropy,
    unseal,
    x25519_agreement,
    x25519_public,
)
from common.trust.identity import Identity, Roster

NEW = "new"
ADVERTISED = "advertised"
SHARED = "shared"
MASKED = "masked"
CONFIRMED = "confirmed"
DONE = "done"
CLOSED = "closed"

# step -> (phase it starts from, phase it leads to); ``close`` leads from everywhere to CLOSED
TRANSITIONS = {
    journal.ADVERTISE: (NEW, ADVERTISED),
    journal.SHARE: (ADVERTISED, SHARED),
    journal.MASK: (SHARED, MASKED),
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
        """Return if the site joins. **Raises**: PolicyRefusedError naming the rule."""
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
    mask_key: bytes
    seed: bytes


@dataclass(frozen=True, repr=False)
class _Peer:
    site: str
    mask_key: bytes  # public
    opening_key: bytes  # opens the one share that the peer deals to us


@dataclass(frozen=True, repr=False)
class _HeldShares:
    dealer: str
    seed_share: bytes
    key_share: bytes


@dataclass(frozen=True, repr=False)
class _State:
    phase: str
    params: Params
    secrets: _Secrets | None = None
    own: Advertisement | None = None
    peers: tuple[_Peer, ...] = ()
    held: tuple[_HeldShares, ...] = ()


class ClientProtocol:
    """One site in one session: ``advertise, share, mask, confirm, unmask``, each once, in this order.

    **Guarantee**: over everything an honest site ever answers, whatever it is asked: never both kinds of
    share of one site in a session; never one contribution in two sessions; never two survivor lists
    signed in one session; a mask key never used twice.
    **Source**: Bonawitz et al. 2017, figure 4, with the steps against active adversaries.
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

        **Raises**: RemoteProtocolError if the bytes are not a state.
        """
        restored = wire.decode(_State, state)
        machine = cls(site, restored.params)
        machine._state = restored
        return machine

    def close(self) -> None:
        """Give up the session and forget its secrets; allowed in every phase."""
        self._state = _State(CLOSED, self.params)

    def advertise(self) -> Advertisement:
        """Exchange 1: check cohort and policy, burn the session, publish fresh keys.

        **Raises**: PolicyRefusedError, VerificationError (cohort), RefusedError (session used before).
        """
        self._expect(journal.ADVERTISE)
        self._check_cohort()
        draw = self._site.entropy
        secrets = _Secrets(draw(KEY_BYTES), draw(KEY_BYTES), draw(KEY_BYTES))
        salt, name = self.params.salt, self._name
        keys = (x25519_public(secrets.channel_key), x25519_public(secrets.mask_key))
        unsigned = Advertisement(name, *keys, seed_commitment(salt, name, secrets.seed), b"")
        answer = replace(unsigned, signature=self._site.identity.sign(unsigned.statement(salt)))
        self._finish(journal.ADVERTISE, salt, secrets=secrets, own=answer)
        return answer

    def share(self, request: AdvertisementList) -> ShareBundle:
        """Exchange 2: verify every advertisement of U1, deal sealed shares of seed and mask key.

        **Raises**: RemoteProtocolError (a list no honest server makes), VerificationError (a signature).
        """
        self._expect(journal.SHARE)
        self._check_advertisements(request)
        secrets = self._secrets()
        params, draw = self.params, self._site.entropy
        sites = len(params.cohort)
        seeds = shamir.split(secrets.seed, params.threshold, sites, entropy=draw)
        keys = shamir.split(secrets.mask_key, params.threshold, sites, entropy=draw)
        agree, peers, boxes = x25519_agreement(secrets.channel_key), [], b""
        for peer in request.advertisements:
            if peer.site == self._name:
                continue
            pair, position, shared = (self._name, peer.site), params.positions[peer.site], agree(peer.channel_key)
            plain = seeds[position] + keys[position]
            boxes += seal(masks.share_key(params, shared, pair), plain, masks.share_context(pair), entropy=draw)
            peers.append(_Peer(peer.site, peer.mask_key, masks.share_key(params, shared, pair[::-1])))
        own = params.positions[self._name]
        self._finish(
            journal.SHARE,
            sha256(encode(request)),
            secrets=replace(secrets, channel_key=b""),
            own=None,
            peers=tuple(peers),
            held=(_HeldShares(self._name, seeds[own], keys[own]),),
        )
        return ShareBundle(self._name, shares_checksum(params.salt, self._name, boxes), boxes)

    def mask(self, request: ShareDelivery, ring: NDArray[np.uint32], contribution: bytes) -> MaskedVector:
        """Exchange 3: add the self mask and a mask per other site of U2; forget seed and keys.

        ``contribution`` is the SHA-256 by which the site's records know the vector. Once this returns the
        contribution is dead: no session accepts it again.
        **Shapes**: ``ring: uint32[d]``, from ``fixedpoint.quantize``; left as it is.
        **Raises**: RemoteProtocolError, VerificationError (a share does not open), LocalProtocolError
        (vector outside its blocks), RefusedError (contribution has left before).
        """
        self._expect(journal.MASK)
        if len(contribution) != DIGEST_BYTES:
            raise LocalProtocolError(f"a contribution is known by {DIGEST_BYTES} bytes, got {len(contribution)}")
        check_ring(ring, self.params.blocks)
        held = self._open_shares(request)
        params, secrets = self.params, self._secrets()
        agree, shared = x25519_agreement(secrets.mask_key), set(request.shared)
        pairs = [
            masks.pair_mask(params, agree(peer.mask_key), (self._name, peer.site))
            for peer in self._state.peers
            if peer.site in shared
        ]
        masked = ring.copy()
        add_masks(masked, [masks.self_mask(params, secrets.seed, sign=1), *pairs])
        tag = checksum(checksum_key(params.salt, self._name), masked)
        self._finish(journal.MASK, contribution, secrets=None, peers=(), held=held)
        return MaskedVector(self._name, tag, masked)

    def confirm(self, request: SurvivorList) -> Confirmation:
        """Exchange 4: sign (U2, U3), once.

        **Raises**: RemoteProtocolError if U2 is not what the site holds shares of, or U3 is too small.
        """
        self._expect(journal.CONFIRM)
        self._check_survivors(request)
        statement = request.statement(self.params.salt)
        self._finish(journal.CONFIRM, statement)
        return Confirmation(self._name, self._site.identity.sign(statement))

    def unmask(self, request: ConfirmationList) -> RevealedShares:
        """Exchange 5: after t signatures under the same lists, reveal one share per site of U2; forget all.

        **Raises**: RemoteProtocolError, VerificationError (a signature).
        """
        self._expect(journal.REVEAL)
        self._check_survivors(request.survivors)
        statement = request.survivors.statement(self.params.salt)
        check_confirmations(self.params, request)
        survivors = set(request.survivors.survivors)
        seeds = b"".join(h.seed_share for h in self._state.held if h.dealer in survivors)
        keys = b"".join(h.key_share for h in self._state.held if h.dealer not in survivors)
        self._finish(journal.REVEAL, statement, held=())
        return RevealedShares(self._name, shares_checksum(self.params.salt, self._name, seeds, keys), seeds, keys)

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
        check_sites(self.params, tuple(a.site for a in request.advertisements), self._name)
        if self._state.own not in request.advertisements:
            raise RemoteProtocolError(f"{self._name} did not send the advertisement listed under its name")
        keys = {key for a in request.advertisements for key in (a.channel_key, a.mask_key)}
        if len(keys) != 2 * len(request.advertisements):
            raise RemoteProtocolError("two advertisements share a key")
        for advertisement in request.advertisements:
            check_advertisement(self.params, advertisement)

    def _open_shares(self, request: ShareDelivery) -> tuple[_HeldShares, ...]:
        check_sites(self.params, request.shared, self._name)
        dealers = [peer for peer in self._state.peers if peer.site in request.shared]
        if len(dealers) != len(request.shared) - 1 or len(request.boxes) != BOX_BYTES * len(dealers):
            raise RemoteProtocolError("shares delivered are not one of each other site of U2, a part of U1")
        held = {share.dealer: share for share in self._state.held}
        for dealer, box in zip(dealers, cut(request.boxes, BOX_BYTES), strict=True):
            held[dealer.site] = _opened(dealer, box, masks.share_context((dealer.site, self._name)))
        return tuple(held[site] for site in request.shared)

    def _check_survivors(self, request: SurvivorList) -> None:
        if request.shared != tuple(h.dealer for h in self._state.held):
            raise RemoteProtocolError(f"U2 is not the list of which {self._name} holds shares")
        check_sites(self.params, request.survivors, self._name)
        if not set(request.survivors) <= set(request.shared):
            raise RemoteProtocolError("a survivor never shared its keys")


def _opened(dealer: _Peer, box: bytes, context: bytes) -> _HeldShares:
    try:
        plain = unseal(dealer.opening_key, box, context)
        seed_share, key_share = plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :]
        shamir.check_share(seed_share)
        shamir.check_share(key_share)
    except VerificationError as error:
        raise VerificationError(f"share dealt by {dealer.site} is damaged or forged") from error
    return _HeldShares(dealer.site, seed_share, key_share)
