"""Who is invited to a round: from public facts, never a count of data."""

from __future__ import annotations

import random
from collections.abc import Sequence

from common.run import RunPlan


def choose_cohort(sites: Sequence[str], round_number: int, plan: RunPlan) -> tuple[str, ...]:
    """The sites invited to a round: all of them, or a public random sample of ``plan.cohort``.

    No amplification is claimed for this sampling: the server knows who takes part.
    """
    if len(sites) <= plan.cohort:
        return tuple(sites)
    chosen = random.Random(f"{plan.run}/{round_number}").sample(list(sites), plan.cohort)
    return tuple(site for site in sites if site in set(chosen))
