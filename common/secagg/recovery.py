"""From revealed shares to the masks that are still in the sum."""

from __future__ import annotations

from collections.abc import Mapping

import common.secagg.masks as masks
import common.secagg.shamir as shamir
from common.errors import RoundAbortedError, VerificationError
from common.secagg.messages import AdvertisementList, Params, SurvivorList
from common.trust import Agreement, Mask, scalar_agreement, to_exchange

UNRECOVERABLE = "unrecoverable"


def recover_masks(
    params: Params,
    listed: AdvertisementList,
    lists: SurvivorList,
    revealed: Mapping[str, Mapping[str, bytes]],
) -> list[Mask]:
    """What to add to the sum of U3's masked vectors to get the sum of the vectors.

    Self masks of U3 (their seeds are reconstructed) and the pairwise masks between U3 and the sites of
    U2 that were lost (their mask keys are). ``revealed``: holder -> dealer -> share, of at least t holders, each share
    the one that its dealer committed to: so any t of them are enough, and the secrets are those that were dealt.
    Raises: RoundAbortedError with the reason ``unrecoverable`` if a mask key is not the advertised one, which takes
    more dishonest sites than the threshold allows.
    """
    keys = {a.site: to_exchange(a.mask_key) for a in listed.advertisements}
    holders = sorted(revealed, key=params.positions.__getitem__)[: params.threshold]
    weights = shamir.lagrange_coefficients([params.positions[site] + 1 for site in holders])
    recovered: list[Mask] = []
    for site in lists.survivors:
        seed = shamir.combine(weights, [revealed[holder][site] for holder in holders])
        recovered.append(masks.self_mask(params, seed, sign=-1))
    for site in lists.lost:
        secret = shamir.combine(weights, [revealed[holder][site] for holder in holders])
        agree = _agreement(site, secret, keys[site])
        # As the lost site would have added them: that is what cancels the survivors' halves.
        recovered += [masks.pair_mask(params, agree(keys[s]), (site, s)) for s in lists.survivors]
    return recovered


_BASE = (9).to_bytes(32, "little")  # RFC 7748, section 4.1


def _agreement(site: str, secret: bytes, public: bytes) -> Agreement:
    try:
        agree = scalar_agreement(int.from_bytes(secret, "big"))
        if agree(_BASE) == public:
            return agree
    except VerificationError:
        pass
    raise RoundAbortedError(UNRECOVERABLE, f"the shares dealt by {site} do not give its advertised mask key")
