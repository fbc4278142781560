"""What the six exchanges of secure aggregation say; everything is bound to a session's ``params``, named here too.

Requests go from the server to a site, answers come back:

    exchange   request            answer
    advertise  Params             Advertisement
    share      AdvertisementList  ShareBundle
    accept     ShareDelivery      Receipt
    mask       AcceptedList       MaskedVector
    confirm    SurvivorList       Confirmation
    unmask     ConfirmationList   RevealedShares

Frozen dataclasses with one canonical encoding (``encode``, ``decode``); ``repr`` shows type and site only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

import common.wire as wire
from common.bounds import check_bytes, check_count, check_whole
from common.cbor import HEAD_BYTES
from common.contribution import MAX_BLOCKS
from common.errors import BadInputError, RemoteProtocolError
from common.secagg.fixedpoint import MAX_LENGTH
from common.secagg.params import (
    DIGEST_BYTES as DIGEST_BYTES,
    MAX_FEDERATION as MAX_FEDERATION,
    MAX_SITES as MAX_SITES,
    MIN_SITES as MIN_SITES,
    Member as Member,
    Params as Params,
    PlainParams as PlainParams,
    Session as Session,
    default_threshold as default_threshold,
    invitation as invitation,
)
from common.secagg.shamir import SHARE_BYTES
from common.secagg.tree import NODE_BYTES, depth
from common.trust import (
    KEY_BYTES,
    MAX_NAME_LENGTH,
    PUBLIC_KEY_BYTES,
    SCALAR_BYTES,
    SEAL_OVERHEAD,
    SIGNATURE_BYTES,
    check_name,
    sha256,
)

CHECKSUM_BYTES = 16
BOX_BYTES = SEAL_OVERHEAD + 2 * SHARE_BYTES
ENTRY_BYTES = BOX_BYTES + 2 * DIGEST_BYTES + 2 * SCALAR_BYTES
_MAGIC, _LENGTH_BYTES = b"FCV1", 4


def piece_bytes(listed: int) -> int:
    """Size of one holder's ``dealing.Piece`` when ``listed`` sites are in U1: the entry, what is signed, and the path."""
    return SCALAR_BYTES + SIGNATURE_BYTES + ENTRY_BYTES + NODE_BYTES * depth(listed)


# What a field may hold, by its name, which means the same in every message: the size of one value, in bytes.
_SIZES = {
    "channel_key": PUBLIC_KEY_BYTES,
    "mask_key": PUBLIC_KEY_BYTES,
    "nonce": PUBLIC_KEY_BYTES,
    "delivered": DIGEST_BYTES,
    "dealing": DIGEST_BYTES,
    "dealt": DIGEST_BYTES,
    "checksum": CHECKSUM_BYTES,
    "signature": SIGNATURE_BYTES,
}
_LARGEST_FIELD = MAX_SITES * piece_bytes(
    MAX_SITES
)  # of any other field of bytes: one piece, entry or share per site


class _Quiet:
    """Shows type and site only, so that no log line can hold a share or a vector; and holds its fields in bounds.

    Raises: BadInputError if a field is longer than any session can make it.
    """

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            _check_field(field.name, getattr(self, field.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'site', '')})"


def _check_field(name: str, value: object) -> None:
    if isinstance(value, str):
        check_name(value)
    elif isinstance(value, tuple):
        check_count(value, name, MAX_SITES)
        for part in value:
            if isinstance(part, str):
                check_name(part)
    elif isinstance(value, bytes) and name in _SIZES:
        check_bytes(value, name, _SIZES[name])
    elif isinstance(value, bytes) and len(value) > _LARGEST_FIELD:
        raise BadInputError(f"{name} has {len(value)} bytes, at most {_LARGEST_FIELD} can be meant")


@dataclass(frozen=True, repr=False)
class Advertisement(_Quiet):
    """A site's fresh public keys of this session, signed with its pinned identity.

    ``channel_key`` is of X25519; ``mask_key`` a point of Ed25519, so that its sharing can be proven (``dealing``).
    """

    site: str
    channel_key: bytes
    mask_key: bytes
    signature: bytes

    def statement(self, salt: bytes) -> bytes:
        """What the signature is over."""
        return sha256(b"fedcart/advertise/2", salt, self.site.encode(), self.channel_key, self.mask_key)


@dataclass(frozen=True, repr=False)
class AdvertisementList(_Quiet):
    """U1: the sites that advertised, in the order of the cohort."""

    advertisements: tuple[Advertisement, ...]

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(a.site for a in self.advertisements)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical list: every dealing is bound to it."""
        return wire.digest(self, domain="secagg-advertised")


@dataclass(frozen=True, repr=False)
class ShareBundle(_Quiet):
    """A site's dealing: an entry of ``ENTRY_BYTES`` for every site of U1, itself included, in the order of the cohort.

    ``nonce``: the point under which it proves that its mask key is what it has shared. ``dealing`` says what an entry holds.
    """

    site: str
    nonce: bytes
    entries: bytes
    signature: bytes


@dataclass(frozen=True, repr=False)
class ShareDelivery(_Quiet):
    """The sites that dealt, and of each one's dealing the addressee's ``dealing.Piece``, in the order of the cohort."""

    dealers: tuple[str, ...]
    pieces: bytes

    def digest(self, salt: bytes, holder: str) -> bytes:
        """What a receipt names: this delivery, to this site, in this session."""
        return sha256(b"fedcart/delivery/1", salt, holder.encode(), "\0".join(self.dealers).encode(), self.pieces)


@dataclass(frozen=True, repr=False)
class Accusation(_Quiet):
    """A dealer, and the statement of the very dealing that the accuser was shown."""

    dealer: str
    dealing: bytes


@dataclass(frozen=True, repr=False)
class Receipt(_Quiet):
    """A site holds its shares (nothing else set), or it opens its channel of this session to show who dealt it a wrong one.

    ``delivered``: digest of what it was shown, so that damage on the way is known. A site that accuses leaves the
    session with this answer: ``channel_secret`` opens every box to and from it.
    """

    site: str
    delivered: bytes
    accused: tuple[Accusation, ...] = ()
    channel_secret: bytes = b""
    signature: bytes = b""

    def __post_init__(self) -> None:
        _check_field("site", self.site)
        _check_field("delivered", self.delivered)
        _check_field("accused", self.accused)
        check_bytes(self.channel_secret, "channel_secret", KEY_BYTES if self.accused else 0)
        check_bytes(self.signature, "signature", SIGNATURE_BYTES if self.accused else 0)

    def statement(self, salt: bytes) -> bytes:
        """What the signature of a complaint is over."""
        against = (part for a in self.accused for part in (a.dealer.encode(), a.dealing))
        return sha256(b"fedcart/complaint/1", salt, self.site.encode(), self.channel_secret, *against)


@dataclass(frozen=True, repr=False)
class AcceptedList(_Quiet):
    """U2: the sites that dealt and hold what the others dealt, in the order of the cohort."""

    shared: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class MaskedVector(_Quiet):
    """A masked contribution.

    Shapes: ``ring: uint32[d]``.
    Guarantee: uniform to anybody who does not know the masks. ``checksum`` finds damage, it is no
    signature.
    """

    site: str
    checksum: bytes
    ring: NDArray[np.uint32]


@dataclass(frozen=True, repr=False)
class SurvivorList(_Quiet):
    """U2 (``shared``) and U3 (``survivors``), in the order of the cohort; ``dealt``: digest over the dealings of U2.

    Who signs it has seen its part of each of these dealings, and is judged by them when it reveals a share.
    """

    shared: tuple[str, ...]
    survivors: tuple[str, ...]
    dealt: bytes

    @property
    def lost(self) -> tuple[str, ...]:
        """U2 without U3: the sites whose pairwise masks have to be removed."""
        kept = set(self.survivors)
        return tuple(site for site in self.shared if site not in kept)

    def statement(self, salt: bytes) -> bytes:
        """What a confirmation signs."""
        return wire.digest(
            _SurvivorStatement(salt, self.shared, self.survivors, self.dealt), domain="secagg-survivors"
        )


@dataclass(frozen=True, repr=False)
class Confirmation(_Quiet):
    """A site's one signature over the survivor list of a session."""

    site: str
    signature: bytes


@dataclass(frozen=True, repr=False)
class ConfirmationList(_Quiet):
    """The survivor list with the signatures under it."""

    survivors: SurvivorList
    confirmations: tuple[Confirmation, ...]


@dataclass(frozen=True, repr=False)
class RevealedShares(_Quiet):
    """Shares of the seeds of U3 and of the mask keys of U2 without U3, ``SHARE_BYTES`` each, in cohort order.

    ``signature``: over the survivor list and the commitments to these shares, in the order of U2 (``reveal_statement``).
    """

    site: str
    seed_shares: bytes
    key_shares: bytes
    signature: bytes


@dataclass(frozen=True)
class _SurvivorStatement:
    salt: bytes
    shared: tuple[str, ...]
    survivors: tuple[str, ...]
    dealt: bytes


@dataclass(frozen=True)
class _MaskedHeader:
    site: str
    checksum: bytes
    length: int

    def __post_init__(self) -> None:
        check_name(self.site)
        check_bytes(self.checksum, "checksum", CHECKSUM_BYTES)
        check_whole(self.length, "length", low=1, high=MAX_LENGTH)


Request: TypeAlias = Params | AdvertisementList | ShareDelivery | AcceptedList | SurvivorList | ConfirmationList
Answer: TypeAlias = Advertisement | ShareBundle | Receipt | MaskedVector | Confirmation | RevealedShares
M = TypeVar(
    "M",
    Params,
    AdvertisementList,
    ShareDelivery,
    AcceptedList,
    SurvivorList,
    ConfirmationList,
    Advertisement,
    ShareBundle,
    Receipt,
    MaskedVector,
    Confirmation,
    RevealedShares,
)


def encode(message: Request | Answer) -> bytes:
    """Canonical bytes of a message; a masked vector travels as raw little-endian words after its header."""
    if not isinstance(message, MaskedVector):
        return wire.encode(message)
    header = wire.encode(_MaskedHeader(message.site, message.checksum, message.ring.size))
    raw = np.ascontiguousarray(message.ring, dtype="<u4").data.cast("B")
    return b"".join((_MAGIC, len(header).to_bytes(_LENGTH_BYTES, "big"), header, _padding(len(header)), raw))


_ENVELOPE = 64  # version, type name and the list of fields
_NAME = HEAD_BYTES + MAX_NAME_LENGTH
_SIGNED = _NAME + HEAD_BYTES + SIGNATURE_BYTES
_ADVERTISED = _SIGNED + 2 * (HEAD_BYTES + DIGEST_BYTES) + HEAD_BYTES
_MEMBER = _NAME + HEAD_BYTES + PUBLIC_KEY_BYTES + 2 * HEAD_BYTES
_HEADER_BYTES = _ENVELOPE + _NAME + CHECKSUM_BYTES + 2 * HEAD_BYTES
_MASKED_HEAD = len(_MAGIC) + _LENGTH_BYTES + _HEADER_BYTES + 16
_FOR_ALL = (Params, AdvertisementList, AcceptedList, SurvivorList, ConfirmationList)  # each site is sent the same
_PARAMS = 512 + MAX_SITES * _MEMBER + MAX_BLOCKS * (_NAME + 4 * HEAD_BYTES) + 4 * (HEAD_BYTES + DIGEST_BYTES)


def largest_bytes(kind: type[object], params: Params | None = None) -> int:
    """The most bytes that a message of a kind can have in a session, known before a byte of it is read.

    Without ``params``: in any session; that is how Params themselves are read.
    """
    sites = len(params.cohort) if params else MAX_SITES
    coordinates = params.vector_length if params else MAX_LENGTH
    content = {
        Params: _PARAMS,
        PlainParams: _PARAMS + MAX_FEDERATION * _NAME,
        Advertisement: _ADVERTISED,
        AdvertisementList: sites * _ADVERTISED,
        ShareBundle: _SIGNED + PUBLIC_KEY_BYTES + sites * ENTRY_BYTES,
        ShareDelivery: sites * (_NAME + piece_bytes(sites)),
        AcceptedList: sites * _NAME,
        Receipt: _SIGNED + 2 * (HEAD_BYTES + DIGEST_BYTES) + sites * (_NAME + 2 * HEAD_BYTES + DIGEST_BYTES),
        MaskedVector: _MASKED_HEAD + 4 * coordinates,
        SurvivorList: 2 * sites * _NAME + DIGEST_BYTES,
        Confirmation: _SIGNED,
        ConfirmationList: sites * (2 * _NAME + _SIGNED + HEAD_BYTES) + DIGEST_BYTES,
        RevealedShares: _SIGNED + sites * SHARE_BYTES,
    }
    return _ENVELOPE + 8 * HEAD_BYTES + content[kind]


def decode(kind: type[M], data: bytes, params: Params | None = None) -> M:
    """The message of a kind in these bytes; ``params``: of the session it belongs to, which says how large it can be.

    Raises: RemoteProtocolError if they are too many, or anything but its canonical encoding with every field in
    bounds; ConfigError for impossible Params.
    """
    largest = largest_bytes(kind, params)
    if kind is not MaskedVector:
        return (wire.decode_once if kind in _FOR_ALL else wire.decode)(kind, data, largest)
    if not isinstance(data, bytes) or len(data) > largest:
        raise RemoteProtocolError(f"masked vector is no bytes, or over the limit of {largest} of them")
    if data[: len(_MAGIC)] != _MAGIC or len(data) < (start := len(_MAGIC) + _LENGTH_BYTES):
        raise RemoteProtocolError("not a masked vector of a format this program speaks")
    stop = start + int.from_bytes(data[len(_MAGIC) : start], "big")
    header = wire.decode(_MaskedHeader, data[start:stop], _HEADER_BYTES)
    padding = _padding(stop - start)
    first = stop + len(padding)
    if data[stop:first] != padding or len(data) - first != 4 * header.length:
        raise RemoteProtocolError(
            f"masked vector of {len(data) - first} bytes, its header says {4 * header.length}"
        )
    ring = np.frombuffer(data, dtype="<u4", offset=first).astype(np.uint32, copy=False)
    return kind(header.site, header.checksum, ring)


def reveal_statement(salt: bytes, site: str, lists: SurvivorList, commitments: Iterable[bytes]) -> bytes:
    """What a site signs when it reveals: its shares only through commitments, so that a proof publishes none of them."""
    return sha256(b"fedcart/reveal/1", salt, site.encode(), lists.statement(salt), *commitments)


def cut(data: bytes, size: int) -> list[bytes]:
    """The pieces of equal size of a field that holds one per site."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def _padding(header_bytes: int) -> bytes:
    return bytes(-(len(_MAGIC) + _LENGTH_BYTES + header_bytes) % 16)  # aligned words are added twice as fast
