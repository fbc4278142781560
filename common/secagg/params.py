"""The parameters of a session: everything that all its sites must agree on, and that its salt binds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import common.wire as wire
from common.bounds import check_run, check_whole
from common.contribution import Block
from common.errors import ConfigError, RemoteProtocolError
from common.secagg.fixedpoint import check_blocks, vector_length
from common.trust import PUBLIC_KEY_BYTES, check_name

MIN_SITES = 3
MAX_SITES = 100
MAX_FEDERATION = 200
DIGEST_BYTES = 32


def default_threshold(sites: int) -> int:
    """Smallest threshold for which two survivor lists cannot both be signed by t of n sites, unless more
    than a third of the sites sign twice.

    Source: Bonawitz et al. 2017, section 6.2 (active adversaries).
    """
    return 2 * sites // 3 + 1


@dataclass(frozen=True)
class Session:
    """One attempt at one round of one run. Never used twice by a site."""

    run: str
    round: int
    attempt: int

    def __post_init__(self) -> None:
        check_run(self.run)
        check_whole(self.round, "round")
        check_whole(self.attempt, "attempt")

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
    parameters, cohorts, models or Queries gets failures, never a sum. The coordinator signs it (``invitation``).
    ``roster``: digest of the roster that all must have; ``witness``: root over the last signed heads of all sites' ledgers.
    Raises: ConfigError if no session can have such parameters.
    """

    session: Session
    cohort: tuple[Member, ...]
    threshold: int
    blocks: tuple[Block, ...]
    model_digest: bytes
    query_digest: bytes
    roster: bytes
    witness: bytes

    def __post_init__(self) -> None:
        _check_cohort(self.cohort)
        _check_threshold(self.threshold, len(self.cohort))
        check_blocks(self.blocks, len(self.cohort))
        if any(len(d) != DIGEST_BYTES for d in (self.model_digest, self.query_digest, self.roster, self.witness)):
            raise ConfigError(f"digests of model, query, roster and heads have {DIGEST_BYTES} bytes")

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
        """The cohort's entry of a site. Raises: RemoteProtocolError if it is not invited."""
        if site not in self.positions:
            raise RemoteProtocolError(f"{site[:40]!r} is not in the cohort of {self.session}")
        return self.cohort[self.positions[site]]

    def weight_of(self, sites: Iterable[str]) -> float:
        """Sum of the public weights of some sites: the divisor of their mean."""
        return math.fsum(self.member(site).weight for site in sites)

    def in_order(self, sites: Iterable[str]) -> tuple[str, ...]:
        """The given sites in the order of the cohort."""
        return tuple(sorted(sites, key=self.positions.__getitem__))


@dataclass(frozen=True)
class PlainParams:
    """What a session without secure aggregation is bound to: the same facts, but masks and layout.

    Raises: ConfigError if they are malformed.
    """

    session: Session
    sites: tuple[str, ...]
    query_digest: bytes
    roster: bytes
    witness: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.sites) <= MAX_FEDERATION or len(set(self.sites)) != len(self.sites):
            raise ConfigError(f"cohort has {len(self.sites)} sites, or one twice")
        for site in self.sites:
            check_name(site)
        if any(len(d) != DIGEST_BYTES for d in (self.query_digest, self.roster, self.witness)):
            raise ConfigError(f"digests of query, roster and heads have {DIGEST_BYTES} bytes")

    @cached_property
    def salt(self) -> bytes:
        """SHA-256 of the canonical parameters: ``bytes[32]``."""
        return wire.digest(self, domain="plain-params")


def invitation(params: Params | PlainParams) -> bytes:
    """What the coordinator signs of a session, so that nobody else can open one with a Query that he once signed."""
    return b"fedcart/invitation/1\0" + params.salt


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
