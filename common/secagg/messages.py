"""What the five exchanges of secure aggregation say, and the parameters that everything is bound to.

Requests go from the server to a site, answers come back:

    exchange   request            answer
    advertise  Params             Advertisement
    share      AdvertisementList  ShareBundle
    mask       ShareDelivery      MaskedVector
    confirm    SurvivorList       Confirmation
    unmask     ConfirmationList   RevealedShares

Messages are frozen dataclasses with one canonical encoding (``encode``, ``decode``). ``repr`` shows type
and site only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

import common.wire as wire
from common.contribution import Block
from common.errors import ConfigError, RemoteProtocolError
from common.secagg.fixedpoint import check_blocks, vector_length
from common.secagg.shamir import SHARE_BYTES
from common.trust.crypto import SEAL_OVERHEAD, derive_key, sha256
from common.trust.identity import PUBLIC_KEY_BYTES, check_name

MIN_SITES = 3
MAX_SITES = 100
MAX_FEDERATION = 200
DIGEST_BYTES = 32
CHECKSUM_BYTES = 16
BOX_BYTES = SEAL_OVERHEAD + 2 * SHARE_BYTES
_MAGIC = b"FCV1"
_LENGTH_BYTES = 4


def default_threshold(sites: int) -> int:
    """Smallest threshold for which two survivor lists cannot both be signed by t of n sites, unless more
    than a third of the sites sign twice.

    **Source**: Bonawitz et al. 2017, section 6.2 (active adversaries).
    """
    return 2 * sites // 3 + 1


@dataclass(frozen=True)
class Session:
    """One attempt at one round of one run. Never used twice by a site."""

    run: str
    round: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.run} round {self.round} attempt {self.attempt}"


@dataclass(frozen=True)
class Member:
    """A site of the cohort: its pinned Ed25519 key and its public weight in the mean."""

    site: str
    public_key: bytes
    weight: float


@dataclass(frozen=True)
class Params:
    """Everything about a session that all sites must agree on; the request of exchange 1.

    ``salt`` enters every key, signature and commitment, so a server that tells two sites different
    parameters, cohorts, models or Queries gets failures, never a sum.
    **Raises**: ConfigError if no session can have such parameters.
    """

    session: Session
    cohort: tuple[Member, ...]
    threshold: int
    blocks: tuple[Block, ...]
    model_digest: bytes
    query_digest: bytes

    def __post_init__(self) -> None:
        _check_cohort(self.cohort)
        _check_threshold(self.threshold, len(self.cohort))
        check_blocks(self.blocks, len(self.cohort))
        if len(self.model_digest) != DIGEST_BYTES or len(self.query_digest) != DIGEST_BYTES:
            raise ConfigError(f"digests of model and query have {DIGEST_BYTES} bytes")

    @cached_property
    def salt(self) -> bytes:
        """SHA-256 of the canonical parameters: ``bytes[32]``."""
        return wire.digest(self, domain="secagg-params")

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Site names in the order of the cohort; every list of sites in a message keeps this order."""
        return tuple(member.site for member in self.cohort)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each site in the cohort; its Shamir coordinate is this plus one."""
        return {site: i for i, site in enumerate(self.sites)}

    @property
    def vector_length(self) -> int:
        """Number of coordinates of a contribution."""
        return vector_length(self.blocks)

    def member(self, site: str) -> Member:
        """The cohort's entry of a site. **Raises**: RemoteProtocolError if it is not invited."""
        if site not in self.positions:
            raise RemoteProtocolError(f"{site[:40]!r} is not in the cohort of {self.session}")
        return self.cohort[self.positions[site]]

    def weight_of(self, sites: Iterable[str]) -> float:
        """Sum of the public weights of some sites: the divisor of their mean."""
        return math.fsum(self.member(site).weight for site in sites)

    def in_order(self, sites: Iterable[str]) -> tuple[str, ...]:
        """The given sites in the order of the cohort."""
        return tuple(sorted(sites, key=self.positions.__getitem__))


class _Quiet:
    """Shows type and site only, so that no log line can hold a share or a vector."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'site', '')})"


@dataclass(frozen=True, repr=False)
class Advertisement(_Quiet):
    """A site's fresh public keys of this session, signed with its pinned identity."""

    site: str
    channel_key: bytes
    mask_key: bytes
    seed_commitment: bytes
    signature: bytes

    def statement(self, salt: bytes) -> bytes:
        """What the signature is over."""
        labels = (b"fedcart/advertise/1", salt, self.site.encode())
        return sha256(*labels, self.channel_key, self.mask_key, self.seed_commitment)


@dataclass(frozen=True, repr=False)
class AdvertisementList(_Quiet):
    """U1: the sites that advertised, in the order of the cohort."""

    advertisements: tuple[Advertisement, ...]


@dataclass(frozen=True, repr=False)
class ShareBundle(_Quiet):
    """A site's sealed shares: ``BOX_BYTES`` for every other site of U1, in the order of the cohort."""

    site: str
    checksum: bytes
    boxes: bytes


@dataclass(frozen=True, repr=False)
class ShareDelivery(_Quiet):
    """U2 (``shared``), and what its other members sealed for the addressee, in the order of the cohort."""

    shared: tuple[str, ...]
    boxes: bytes


@dataclass(frozen=True, eq=False, repr=False)
class MaskedVector(_Quiet):
    """A masked contribution.

    **Shapes**: ``ring: uint32[d]``.
    **Guarantee**: uniform to anybody who does not know the masks. ``checksum`` finds damage, it is no
    signature.
    """

    site: str
    checksum: bytes
    ring: NDArray[np.uint32]


@dataclass(frozen=True, repr=False)
class SurvivorList(_Quiet):
    """U2 (``shared``) and U3 (``survivors``), in the order of the cohort."""

    shared: tuple[str, ...]
    survivors: tuple[str, ...]

    @property
    def lost(self) -> tuple[str, ...]:
        """U2 without U3: the sites whose pairwise masks have to be removed."""
        kept = set(self.survivors)
        return tuple(site for site in self.shared if site not in kept)

    def statement(self, salt: bytes) -> bytes:
        """What a confirmation signs."""
        return wire.digest(_SurvivorStatement(salt, self.shared, self.survivors), domain="secagg-survivors")


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
    """Shares of the seeds of U3 and of the mask keys of U2 without U3, ``SHARE_BYTES`` each, in cohort order."""

    site: str
    checksum: bytes
    seed_shares: bytes
    key_shares: bytes


@dataclass(frozen=True)
class _SurvivorStatement:
    salt: bytes
    shared: tuple[str, ...]
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class _MaskedHeader:
    site: str
    checksum: bytes
    length: int


Request: TypeAlias = Params | AdvertisementList | ShareDelivery | SurvivorList | ConfirmationList
Answer: TypeAlias = Advertisement | ShareBundle | MaskedVector | Confirmation | RevealedShares
M = TypeVar(
    "M",
    Params,
    AdvertisementList,
    ShareDelivery,
    SurvivorList,
    ConfirmationList,
    Advertisement,
    ShareBundle,
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


def decode(kind: type[M], data: bytes) -> M:
    """The message of a kind in these bytes.

    **Raises**: RemoteProtocolError if they are anything but its canonical encoding; ConfigError for
    impossible Params.
    """
    if kind is not MaskedVector:
        return wire.decode(kind, data)
    start = len(_MAGIC) + _LENGTH_BYTES
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise RemoteProtocolError("not a masked vector of a format this program speaks")
    stop = start + int.from_bytes(data[len(_MAGIC) : start], "big")
    header = wire.decode(_MaskedHeader, data[start:stop])
    padding = _padding(stop - start)
    first = stop + len(padding)
    if data[stop:first] != padding or len(data) - first != 4 * header.length:
        raise RemoteProtocolError(
            f"masked vector has {len(data) - first} bytes, its header says {4 * header.length}"
        )
    ring = np.frombuffer(data, dtype="<u4", offset=first).astype(np.uint32, copy=False)
    return kind(header.site, header.checksum, ring)


def checksum_key(salt: bytes, site: str) -> bytes:
    """Key of a masked vector's checksum; both ends can compute it, it is no secret."""
    return derive_key(salt, salt, "checksum", site)


def shares_checksum(salt: bytes, site: str, *parts: bytes) -> bytes:
    """Checksum of a ``ShareBundle`` or of ``RevealedShares``, ``bytes[16]``: like a vector's, no signature.

    It lets the server refuse a damaged message at once, which costs the round one site; unnoticed, it
    would make every other site refuse what it is dealt, or spoil the reconstruction.
    """
    return sha256(b"fedcart/shares/1", salt, site.encode(), *parts)[:CHECKSUM_BYTES]


def cut(data: bytes, size: int) -> list[bytes]:
    """The pieces of equal size of a field that holds one per site."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def seed_commitment(salt: bytes, site: str, seed: bytes) -> bytes:
    """SHA-256 commitment to a self-mask seed (32 uniform bytes, so it needs no blinding)."""
    return sha256(b"fedcart/seed-commitment/1", salt, site.encode(), seed)


def _padding(header_bytes: int) -> bytes:
    return bytes(-(len(_MAGIC) + _LENGTH_BYTES + header_bytes) % 16)  # aligned words are added twice as fast


def _check_cohort(cohort: tuple[Member, ...]) -> None:
    sites = len(cohort)
    if sites < MIN_SITES:
        raise ConfigError(f"cohort has {sites} sites, at least {MIN_SITES} are needed", hint="invite more sites")
    if sites > MAX_SITES:
        raise ConfigError(
            f"cohort has {sites} sites, at most {MAX_SITES} can sum in one session",
            hint=f"sample the cohort down to {MAX_SITES}; over {MAX_FEDERATION} sites, split the federation",
        )
    if len({m.site for m in cohort}) != sites or len({m.public_key for m in cohort}) != sites:
        raise ConfigError("a site or a key occurs twice in the cohort")
    for member in cohort:
        check_name(member.site)
        if type(member.weight) is not float or not 0 < member.weight < math.inf:
            raise ConfigError(f"weight of {member.site} is {member.weight!r}", hint="give a positive float")
        if len(member.public_key) != PUBLIC_KEY_BYTES:
            raise ConfigError(
                f"public key of {member.site} has {len(member.public_key)} bytes, not {PUBLIC_KEY_BYTES}"
            )


def _check_threshold(threshold: int, sites: int) -> None:
    lowest = 2 if sites == MIN_SITES else default_threshold(sites)
    if not lowest <= threshold <= sites:
        raise ConfigError(
            f"threshold {threshold} of {sites} sites is not between {lowest} and {sites}",
            hint=f"the safe value against an active server is {default_threshold(sites)}",
        )
