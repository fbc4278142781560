"""From revealed shares to the masks that are still in the sum, each secret checked on the way."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import common.secagg.masks as masks
import common.secagg.shamir as shamir
from common.errors import RoundAbortedError, VerificationError
from common.secagg.messages import Advertisement, Params, RevealedShares, SurvivorList, cut, seed_commitment
from common.trust.crypto import Mask, x25519_agreement, x25519_public

MAX_SUBSETS = 200
WRONG_SHARE = "wrong-share"

Check = Callable[[bytes], bool]


def recover_masks(
    params: Params,
    advertisements: tuple[Advertisement, ...],
    lists: SurvivorList,
    revealed: tuple[RevealedShares, ...],
) -> list[Mask]:
    """What to add to the sum of U3's masked vectors to get the sum of the vectors.

    Self masks of U3 (their seeds are reconstructed) and the pairwise masks between U3 and the sites of
    U2 that were lost (their mask keys are).
    **Guarantee**: each secret has been compared with what its owner advertised under signature.
    **Raises**: RoundAbortedError with the reason ``wrong-share``, naming dealer and holder.
    """
    published = {a.site: a for a in advertisements}
    points = tuple(params.positions[r.site] + 1 for r in revealed)
    holders = _Holders(params, points, shamir.lagrange_coefficients(points[: params.threshold]))
    seeds = [cut(r.seed_shares, shamir.SHARE_BYTES) for r in revealed]
    keys = [cut(r.key_shares, shamir.SHARE_BYTES) for r in revealed]
    found: list[Mask] = []
    for i, site in enumerate(lists.survivors):
        seed = holders.recover(site, [row[i] for row in seeds], _is_seed(params, published[site]))
        found.append(masks.self_mask(params, seed, sign=-1))
    for i, site in enumerate(lists.lost):
        secret = holders.recover(site, [row[i] for row in keys], _is_mask_key(published[site]))
        agree = x25519_agreement(secret)
        # As the lost site would have added them: that is what cancels the survivors' halves.
        found += [
            masks.pair_mask(params, agree(published[survivor].mask_key), (site, survivor))
            for survivor in lists.survivors
        ]
    return found


def _is_seed(params: Params, published: Advertisement) -> Check:
    return lambda secret: seed_commitment(params.salt, published.site, secret) == published.seed_commitment


def _is_mask_key(published: Advertisement) -> Check:
    return lambda secret: x25519_public(secret) == published.mask_key


@dataclass(frozen=True)
class _Holders:
    """The sites that revealed, as Shamir points, with the weights of the first t of them."""

    params: Params
    points: tuple[int, ...]
    weights: list[int]

    def recover(self, dealer: str, shares: list[bytes], is_right: Check) -> bytes:
        threshold = self.params.threshold
        secret = _combined(self.weights, shares[:threshold], is_right)
        if secret is None:
            self._blame(dealer, shares, is_right)
        return secret

    def _blame(self, dealer: str, shares: list[bytes], is_right: Check) -> NoReturn:
        """Look for t shares that belong together; whose share does not fit them has lied, or was lied to."""
        tried = 0
        for subset in _subsets(len(shares), self.params.threshold):
            tried += 1
            points = [self.points[i] for i in subset]
            chosen = [shares[i] for i in subset]
            if _combined(shamir.lagrange_coefficients(points), chosen, is_right) is not None:
                wrong = [self._site(i) for i in range(len(shares)) if not self._fits(i, points, chosen, shares[i])]
                pairs = ", ".join(f"(dealer {dealer}, holder {holder})" for holder in wrong)
                raise RoundAbortedError(WRONG_SHARE, f"wrong share {pairs}", hint="ask dealer and holder")
        everybody = ", ".join(self._site(i) for i in range(len(shares)))
        raise RoundAbortedError(
            WRONG_SHARE,
            f"no {self.params.threshold} shares of dealer {dealer} fit together, {tried} other subsets tried; "
            f"holder one of {everybody}",
            hint="ask the dealer first",
        )

    def _fits(self, index: int, points: list[int], chosen: list[bytes], share: bytes) -> bool:
        weights = shamir.lagrange_coefficients(points, at=self.points[index])
        return shamir.interpolate(weights, chosen) == int.from_bytes(share, "big")

    def _site(self, index: int) -> str:
        return self.params.sites[self.points[index] - 1]


def _combined(weights: list[int], shares: list[bytes], is_right: Check) -> bytes | None:
    try:
        secret = shamir.combine(weights, shares)
    except VerificationError:
        return None
    return secret if is_right(secret) else None


def _subsets(available: int, size: int) -> Iterator[tuple[int, ...]]:
    """At most ``MAX_SUBSETS`` index sets other than the first ``size``.

    First every exchange of one member for a spare one, which finds a single liar for certain; then
    random ones (any order serves, so the generator needs no secret).
    """
    if available == size:
        return
    first, spare = tuple(range(size)), size
    for i in range(min(size, MAX_SUBSETS)):
        yield (*first[:i], *first[i + 1 :], spare)
    draw = random.Random(0)
    for _ in range(MAX_SUBSETS - size):
        yield tuple(sorted(draw.sample(range(available), size)))
