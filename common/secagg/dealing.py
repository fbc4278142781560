"""How a site shares its two secrets of a session so that everybody can check the sharing before a vector leaves.

A dealing holds, for each site of U1: a sealed box with its shares of the self-mask seed and of the mask key's scalar, a
commitment to each of the two, and a response to each. The commitments hide the shares behind blinds, shares of two more
random polynomials; the challenge is a hash over all commitments, and a response is ``blind + challenge * share``.

    public     the responses lie on polynomials of degree t-1; the one of the key, at zero, proves the mask key (Schnorr)
    a holder   its box opens, and ``commitment(share, response - challenge * share)`` is the one that stands there

If both hold for t honest holders, any t of the shares that fit their commitments give the same secrets, and the scalar of
the advertised mask key. A share that does not fit is told by everybody who knows the dealing.
Source: Atapoor, Baghery, Cozzo, Pedersen, "VSS from distributed ZK proofs and applications", ASIACRYPT 2023, section 4,
with hash commitments; the Schnorr proof at zero is an Ed25519 signature (RFC 8032).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import common.secagg.masks as masks
import common.secagg.shamir as shamir
import common.secagg.tree as tree
from common.errors import RemoteProtocolError, VerificationError
from common.secagg.messages import (
    BOX_BYTES,
    DIGEST_BYTES,
    ENTRY_BYTES,
    AdvertisementList,
    Params,
    ShareBundle,
    cut,
)
from common.secagg.shamir import PRIME, SHARE_BYTES
from common.trust import (
    KEY_BYTES,
    SCALAR_BYTES,
    SIGNATURE_BYTES,
    Entropy,
    Identity,
    challenge_of,
    check_proof,
    point_of,
    scalar_of,
    seal,
    sha256,
    system_entropy,
    unseal,
    verify_signature,
)

SEED, KEY = "seed", "key"


@dataclass(frozen=True, repr=False)
class Entry:
    """What a dealing holds for one site."""

    box: bytes
    seed_commitment: bytes
    key_commitment: bytes
    seed_response: bytes
    key_response: bytes

    @classmethod
    def read(cls, data: bytes) -> Entry:
        """The entry in ``ENTRY_BYTES``."""
        box, rest = data[:BOX_BYTES], data[BOX_BYTES:]
        return cls(box, *cut(rest, DIGEST_BYTES))

    def write(self) -> bytes:
        """The entry as ``ENTRY_BYTES``."""
        commitments = self.seed_commitment + self.key_commitment
        return self.box + commitments + self.seed_response + self.key_response

    def commitment(self, kind: str) -> bytes:
        """The commitment to one of the two shares."""
        return self.seed_commitment if kind == SEED else self.key_commitment

    def committed(self, context: Context, challenge: int, kind: str, share: bytes) -> bytes:
        """The commitment that would have to stand here if this were the share."""
        response = self.seed_response if kind == SEED else self.key_response
        blind = (int.from_bytes(response, "big") - challenge * int.from_bytes(share, "big")) % PRIME
        return _commitment(context, kind, share, blind.to_bytes(SHARE_BYTES, "big"))


@dataclass(frozen=True)
class Context:
    """From whom to whom, in which session: no part of a dealing holds in another place."""

    salt: bytes
    dealer: str
    holder: str

    @property
    def pair(self) -> tuple[str, str]:
        """Dealer and holder."""
        return self.dealer, self.holder


@dataclass(frozen=True, repr=False)
class Piece:
    """One holder's part of a signed dealing: its entry, the path to the root, and what the signature is over beside it."""

    challenge: bytes
    signature: bytes
    entry: Entry
    path: bytes

    @classmethod
    def read(cls, data: bytes) -> Piece:
        """The piece in these bytes."""
        first, second = SCALAR_BYTES + SIGNATURE_BYTES, SCALAR_BYTES + SIGNATURE_BYTES + ENTRY_BYTES
        return cls(data[:SCALAR_BYTES], data[SCALAR_BYTES:first], Entry.read(data[first:second]), data[second:])

    def write(self) -> bytes:
        """The piece as ``piece_bytes``."""
        return self.challenge + self.signature + self.entry.write() + self.path

    def statement(self, params: Params, listed: AdvertisementList, pair: tuple[str, str]) -> bytes:
        """What the dealer of ``pair = (dealer, holder)`` has signed, if this is a piece of its dealing."""
        dealer, holder = pair
        root = tree.root(_leaf(holder, self.entry.write()), listed.sites.index(holder), self.path)
        return _statement(params.salt, listed.digest, dealer, self.challenge, root)


@dataclass(frozen=True, repr=False)
class Secrets:
    """What a site shares: the self-mask seed, and the seed of its mask key."""

    seed: bytes
    mask_key: bytes


def deal(
    params: Params,
    listed: AdvertisementList,
    dealer: Identity,
    secrets: Secrets,
    keys: Mapping[str, bytes],
    *,
    entropy: Entropy = system_entropy,
) -> ShareBundle:
    """A site's dealing; ``keys`` seal the box of each site of U1, its own included."""
    nonce_seed = entropy(KEY_BYTES)
    plain = [secrets.seed, _scalar_bytes(secrets.mask_key), shamir.draw_secret(entropy), _scalar_bytes(nonce_seed)]
    sharings = [shamir.split(s, params.threshold, len(params.cohort), entropy=entropy) for s in plain]
    held = {site: [shares[params.positions[site]] for shares in sharings] for site in listed.sites}
    contexts = {site: Context(params.salt, dealer.name, site) for site in listed.sites}
    commitments = {
        site: (_commitment(contexts[site], SEED, seed, blind), _commitment(contexts[site], KEY, key, blind_key))
        for site, (seed, key, blind, blind_key) in held.items()
    }
    nonce, point = point_of(nonce_seed), point_of(secrets.mask_key)
    message = _committed(
        params.salt, listed.digest, dealer.name, [c for pair in commitments.values() for c in pair]
    )
    challenge = challenge_of(nonce, point, message)
    entries = [
        Entry(
            seal(keys[site], seed + key, masks.share_context(contexts[site].pair), entropy=entropy),
            *commitments[site],
            _response(challenge, seed, blind),
            _response(challenge, key, blind_key),
        ).write()
        for site, (seed, key, blind, blind_key) in held.items()
    ]
    root = tree.levels([_leaf(s, e) for s, e in zip(listed.sites, entries, strict=True)])[-1][0]
    challenged = challenge.to_bytes(SCALAR_BYTES, "big")
    signature = dealer.sign(_statement(params.salt, listed.digest, dealer.name, challenged, root))
    return ShareBundle(dealer.name, nonce, b"".join(entries), signature)


class Dealing:
    """A bundle that its dealer has signed, as the server and an auditor see it.

    Raises: when it is made, RemoteProtocolError (size), VerificationError (not signed by its dealer for this session and U1).
    """

    def __init__(self, params: Params, listed: AdvertisementList, bundle: ShareBundle) -> None:
        if len(bundle.entries) != ENTRY_BYTES * len(listed.sites):
            raise RemoteProtocolError(f"dealing has {len(bundle.entries)} bytes, not {ENTRY_BYTES} for each of U1")
        self._params, self._listed, self.bundle = params, listed, bundle
        raw = cut(bundle.entries, ENTRY_BYTES)
        self.entries = dict(zip(listed.sites, map(Entry.read, raw), strict=True))
        self._point = next(a.mask_key for a in listed.advertisements if a.site == bundle.site)
        commitments = [c for e in self.entries.values() for c in (e.seed_commitment, e.key_commitment)]
        self._message = _committed(params.salt, listed.digest, bundle.site, commitments)
        self.challenge = challenge_of(bundle.nonce, self._point, self._message)
        self._tree = tree.levels([_leaf(s, e) for s, e in zip(listed.sites, raw, strict=True)])
        challenged = self.challenge.to_bytes(SCALAR_BYTES, "big")
        self.statement = _statement(params.salt, listed.digest, bundle.site, challenged, self._tree[-1][0])
        verify_signature(params.member(bundle.site).public_key, self.statement, bundle.signature)

    def check(self) -> None:
        """Return if what everybody can see of the sharing is right. Raises: VerificationError."""
        points = tuple(self._params.positions[site] + 1 for site in self._listed.sites)
        threshold, entries = self._params.threshold, self.entries.values()
        _value_at_zero(points, threshold, [entry.seed_response for entry in entries])
        response = _value_at_zero(points, threshold, [entry.key_response for entry in entries])
        check_proof(self.bundle.nonce, self._point, self._message, response)

    def piece(self, holder: str) -> Piece:
        """The part of one holder."""
        path = tree.path(self._tree, self._listed.sites.index(holder))
        challenge = self.challenge.to_bytes(SCALAR_BYTES, "big")
        return Piece(challenge, self.bundle.signature, self.entries[holder], path)

    def committed(self, holder: str, kind: str, share: bytes) -> bytes:
        """The commitment that would have to stand for a holder if this were its share."""
        context = Context(self._params.salt, self.bundle.site, holder)
        return self.entries[holder].committed(context, self.challenge, kind, share)


def open_piece(context: Context, piece: Piece, key: bytes) -> tuple[bytes, bytes]:
    """The holder's shares of seed and mask key. Raises: VerificationError if box or shares are not as they should be."""
    plain = unseal(key, piece.entry.box, masks.share_context(context.pair))
    challenge = int.from_bytes(piece.challenge, "big")
    shares = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
    for kind, share in zip((SEED, KEY), shares, strict=True):
        shamir.check_share(share)
        if piece.entry.committed(context, challenge, kind, share) != piece.entry.commitment(kind):
            raise VerificationError(f"share of the {kind} is not the one that {context.dealer} committed to")
    return shares


def dealt_digest(statements: Sequence[bytes]) -> bytes:
    """One digest over the dealings of U2, in the order of the cohort."""
    return sha256(b"fedcart/dealt/1", *statements)


def _value_at_zero(points: tuple[int, ...], threshold: int, values: list[bytes]) -> int:
    for value in values:
        shamir.check_share(value)
    numbers = [int.from_bytes(value, "big") for value in values]
    first, others = numbers[:threshold], numbers[threshold:]
    at_zero, *at_others = _weights(points, threshold)
    for weights, number in zip(at_others, others, strict=True):
        if shamir.weighted(weights, first) != number:
            raise VerificationError(f"shares do not lie on one polynomial of degree {threshold - 1}")
    return shamir.weighted(at_zero, first)


@lru_cache(maxsize=8)
def _weights(points: tuple[int, ...], threshold: int) -> tuple[list[int], ...]:
    """Weights from the first t points to zero, then to each of the others: the same for all dealings of a session."""
    first = points[:threshold]
    return tuple(shamir.lagrange_coefficients(first, at=at) for at in (0, *points[threshold:]))


def _scalar_bytes(seed: bytes) -> bytes:
    return scalar_of(seed).to_bytes(SHARE_BYTES, "big")


def _commitment(context: Context, kind: str, share: bytes, blind: bytes) -> bytes:
    names = kind.encode(), context.dealer.encode(), context.holder.encode()
    return sha256(b"fedcart/share-commitment/1", context.salt, *names, share, blind)


def _committed(salt: bytes, listed: bytes, dealer: str, commitments: Sequence[bytes]) -> bytes:
    return sha256(b"fedcart/dealing-commitments/1", salt, listed, dealer.encode(), *commitments)


def _response(challenge: int, share: bytes, blind: bytes) -> bytes:
    value = (int.from_bytes(blind, "big") + challenge * int.from_bytes(share, "big")) % PRIME
    return value.to_bytes(SHARE_BYTES, "big")


def _leaf(holder: str, entry: bytes) -> bytes:
    return sha256(b"fedcart/dealing-entry/1", holder.encode(), entry)


def _statement(salt: bytes, listed: bytes, dealer: str, challenge: bytes, root: bytes) -> bytes:
    return sha256(b"fedcart/dealing/1", salt, listed, dealer.encode(), challenge, root)
