"""Keys of masks, shares and checksums, derived alike by the site that uses them and the server that removes them."""

from __future__ import annotations

from common.secagg.messages import Params
from common.trust import Mask, derive_key


def self_mask(params: Params, seed: bytes, *, sign: int) -> Mask:
    """The mask that a site adds under its own seed ``b``."""
    return derive_key(seed, params.salt, "self"), sign


def pair_mask(params: Params, shared: bytes, pair: tuple[str, str]) -> Mask:
    """The mask between ``pair = (site, peer)`` as the site adds it; the peer's has the opposite sign.

    ``shared`` is what the mask keys of the two agree on.
    """
    first, second = params.in_order(pair)
    key = derive_key(shared, params.salt, "pair", first, second)
    return key, 1 if pair[0] == first else -1


def share_key(params: Params, shared: bytes, pair: tuple[str, str]) -> bytes:
    """Key of the one box from ``pair = (dealer, holder)``; ``shared`` is what their channel keys agree on."""
    return derive_key(shared, params.salt, "share", *pair)


def share_context(pair: tuple[str, str]) -> bytes:
    """Associated data of the sealed share from dealer to holder (names have no NUL)."""
    return "\0".join(pair).encode()


def checksum_key(salt: bytes, site: str) -> bytes:
    """Key of a masked vector's checksum; both ends can compute it, it is no secret."""
    return derive_key(salt, salt, "checksum", site)
