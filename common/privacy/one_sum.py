"""A consumer whom several sites of one run know, where the sites share the noise of its sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.privacy.accountant import epsilon_everywhere
from common.privacy.group_loss import epsilon_of_mixture
from common.privacy.mechanism import SUB_SCOPES, Losses
from common.privacy.noised_grid import with_slack

_CHOICES = 64  # of how many sites have the consumer on which side


def epsilon_everywhere_in_one_run(sites: Sequence[Losses], delta: float) -> float:
    """Epsilon of a consumer who is known at every one of these sites, whose events are all of the sums of one run.

    Each site draws its own hold-out, so for every number of sites that train on him and that hold him out the mixtures of
    the sums that they move are composed, and the worst counts. Where sites have different events, or the choices are too
    many, what each site's own noise allows is composed; the smaller bound of both counts elsewhere.
    """
    composed = epsilon_everywhere([(losses, None) for losses in sites], delta)
    first, number = sites[0], len(sites)
    sides = [side for side in SUB_SCOPES if any(event.sub_scope == side for event in first)]
    alike = all(losses == first for losses in sites) and all(event.in_quorum for event in first)
    if not alike or math.comb(number + len(sides) - 1, number) > _CHOICES:
        return composed
    worst = max(
        _with_sides(first, dict(zip(sides, parts, strict=True)), delta) for parts in _parts(number, len(sides))
    )
    return min(composed, worst)


def _with_sides(losses: Losses, known: dict[str, int], delta: float) -> float:
    """Epsilon where so many sites have the consumer on each side."""
    moved = [(event, known[event.sub_scope]) for event in losses if known[event.sub_scope]]
    steps, least = sum(e.steps for e, _ in moved), min(e.noise_in_sum for e, _ in moved)
    slack, left = with_slack(delta, steps, least, max(sites for _, sites in moved))
    settings = tuple((e.sampling_rate, e.noise_in_sum, e.steps, sites) for e, sites in moved)
    return epsilon_of_mixture(settings, left) + slack


def _parts(number: int, sides: int) -> list[tuple[int, ...]]:
    """Every way to have so many sites on these sides."""
    if sides == 1:
        return [(number,)]
    return [(first, *rest) for first in range(number + 1) for rest in _parts(number - first, sides - 1)]
