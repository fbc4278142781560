"""Did every sum of a run hold the noise that its epsilon counts on? Checked offline, from what the sites have signed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from common.contribution import METRICS, UPDATE, Block
from common.errors import ConfigError, FedcartError
from common.privacy import NoisedGrid, check_grid, rounded_sensitivity
from common.run import RunPlan
from common.secagg.evidence import Evidence
from common.tasks import noise_needs


@dataclass(frozen=True)
class QuorumRound:
    """What one sum has shown: who could sign, how many did, and how much of the noise rounding takes.

    ``tightest``: the largest of (how far one consumer moves the rounded sum) / (what the noise allows), over the blocks.
    """

    round: int
    sites: int
    threshold: int
    signers: int
    tightest: float


def quorum_problems(plan: RunPlan, kind: str, found: Evidence) -> Iterator[str]:
    """What does not hold of the noise in the sum of a round, by its evidence; nothing of a run with local noise."""
    if plan.quorum is None:
        return
    params, signers = found.params, len(found.confirmations)
    if params.threshold != plan.config.aggregation.threshold:
        yield f"opens with {params.threshold} signers, the noise counts on {plan.config.aggregation.threshold}"
    if signers < params.threshold:
        yield f"was opened by {signers} signers, {params.threshold} are needed"
    try:
        plan.quorum.in_session(len(params.cohort), params.threshold).check()
    except ConfigError as error:
        yield f"does not hold the noise that is counted on: {error.message}"
    for block in params.blocks:
        try:
            sensitivity, multiplier = noise_needs(plan, kind, block.name)
            check_grid(
                _grid(block),
                sites=len(params.cohort),
                length=block.length,
                sensitivity=sensitivity,
                multiplier=multiplier,
            )
        except FedcartError as error:
            yield f"block {block.name}: {error.message}"


def quorum_rounds(
    plan: RunPlan, kinds: Mapping[int, str], evidence: Mapping[int, tuple[Evidence, str]]
) -> list[QuorumRound]:
    """What the evidence of each round shows of its noise; ``kinds``: round -> kind of its question."""
    if plan.quorum is None:
        return []
    return [
        QuorumRound(
            number,
            len(found.params.cohort),
            found.params.threshold,
            len(found.confirmations),
            max(_tightness(plan, kinds[number], block) for block in found.params.blocks),
        )
        for number, (found, _) in sorted(evidence.items())
        if number in kinds
        and all(block.noise_bits and block.name in (UPDATE, METRICS) for block in found.params.blocks)
    ]


def quorum_words(plan: RunPlan, kinds: Mapping[int, str], evidence: Mapping[int, tuple[Evidence, str]]) -> str:
    """For people: what holds in every sum of the run; empty for local noise, or before the first sum."""
    rounds = quorum_rounds(plan, kinds, evidence)
    if plan.quorum is None or not rounds:
        return ""
    fewest, tightest = min(r.signers for r in rounds), max(r.tightest for r in rounds)
    return (
        f"quorum noise: {plan.quorum}; in {len(rounds)} sums at least {fewest} have signed, and one consumer moves no rounded "
        f"sum by more than {100 * tightest:.4f} % of what its noise allows"
    )


def _tightness(plan: RunPlan, kind: str, block: Block) -> float:
    sensitivity, multiplier = noise_needs(plan, kind, block.name)
    moved = rounded_sensitivity(_grid(block), sensitivity, block.length)
    return moved * multiplier / math.sqrt(4**block.noise_bits - 16)


def _grid(block: Block) -> NoisedGrid:
    return NoisedGrid(block.step, block.noise_bits, block.limit)
