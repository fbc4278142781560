"""Planted bugs of quorum noise: a share too small, or missing somewhere, and what is done around it."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import client.tasks.behaviour as behaviour
import client.training.quorum as mechanism
import common.privacy.quorum as quorums
import common.trust.randomness as randomness
from client.models import engine_of
from client.training.dpsgd.engine import TapeEngine
from common.contribution import METRICS
from common.run.config import RunConfig
from common.tasks import local_constants
from tests.planted.bug import DRAWS, Bug, Patch

grids = importlib.import_module("common.privacy.noised_grid")  # the room offers a function of this name
SITE = "tests/attacks/test_quorum_noise.py"
SHARE = "tests/client/training/test_quorum.py"
FIGURES = "tests/common/privacy/test_quorum.py"
GRID = "tests/common/test_noised_grid.py"


def change_share(patch: Patch, change: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """``change`` gets what was drawn and the number of bits of its deviation."""
    true = mechanism.draw
    patch.setattr(mechanism, "draw", lambda stream, bits, size: change(true(stream, bits, size), bits))


# how much is drawn


def a_share_by_the_root_of_all_sites(patch: Patch) -> None:
    patch.setattr(
        quorums.Quorum, "share", lambda self, sigma: math.ceil(sigma / math.sqrt(2 * self.honest) * 1e6) / 1e6
    )


def a_share_rounded_down(patch: Patch) -> None:
    patch.setattr(
        quorums.Quorum, "share", lambda self, sigma: math.floor(sigma / math.sqrt(self.honest) * 1e2) / 1e2
    )


def a_share_halved(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: drawn >> 1)


def a_share_three_percent_small(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: np.rint(drawn * 0.97).astype(np.int64))


def a_share_as_if_the_sites_were_five(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: np.rint(drawn * math.sqrt(3 / 5)).astype(np.int64))


def a_share_of_other_units(patch: Patch) -> None:
    true = mechanism.draw
    patch.setattr(mechanism, "draw", lambda stream, bits, size: true(stream, min(bits, 18), size))


def a_share_cut_at_four_deviations(patch: Patch) -> None:
    change_share(patch, lambda drawn, bits: np.clip(drawn, -(4 << bits), 4 << bits))


def a_share_on_a_coarse_grid(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: drawn & ~np.int64(7))


def a_share_of_rows_that_are_not_stocked_missing(patch: Patch) -> None:
    true = behaviour._shared_sum

    def bare(site: Any, question: Any, quorum: Any) -> Any:
        release = true(site, question, quorum)
        rows, _ = engine_of(site, question.plan, question.speed)
        vector = release.vector.copy()
        vector[rows.expand(np.ones(len(rows.index))) == 0] = 0
        return dataclasses.replace(release, vector=vector)

    patch.setattr(behaviour, "_shared_sum", bare)


def a_share_where_there_is_a_gradient_only(patch: Patch) -> None:
    true = mechanism.to_ring
    patch.setattr(
        mechanism, "to_ring", lambda values, grid, stream, noise: true(values, grid, stream, noise * (values != 0))
    )


def a_share_of_the_last_coordinate_missing(patch: Patch) -> None:
    def bare(drawn: np.ndarray, _bits: int) -> np.ndarray:
        drawn[-1:] = 0
        return drawn

    change_share(patch, bare)


def a_share_of_long_vectors_missing_at_the_end(patch: Patch) -> None:
    def short(drawn: np.ndarray, _bits: int) -> np.ndarray:
        drawn[1 << 20 :] = 0
        return drawn

    change_share(patch, short)


def a_share_of_every_hundredth_release_missing(patch: Patch) -> None:
    count = [0]

    def sometimes(drawn: np.ndarray, _bits: int) -> np.ndarray:
        count[0] += 1
        return drawn * (count[0] % 100 != 99)

    change_share(patch, sometimes)


def a_share_less_for_many_consumers(patch: Patch) -> None:
    true = mechanism.to_ring

    def quiet(values: Any, grid: Any, stream: Any, noise: Any) -> Any:
        crowded = len(values) > 100 and np.abs(values).max() > 20 * grid.unit * 2**grid.log2_sigma
        return true(values, grid, stream, noise >> 1 if crowded else noise)

    patch.setattr(mechanism, "to_ring", quiet)


def metrics_without_a_share(patch: Patch) -> None:
    _metrics_with(patch, lambda drawn: drawn * 0)


def metrics_with_half_a_share(patch: Patch) -> None:
    _metrics_with(patch, lambda drawn: drawn >> 1)


def the_number_of_consumers_without_a_share(patch: Patch) -> None:
    def bare(drawn: np.ndarray) -> np.ndarray:
        drawn[0] = 0
        return drawn

    _metrics_with(patch, bare)


def _metrics_with(patch: Patch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    true = mechanism.QuorumMechanism.release

    def other(self: Any, total: Any) -> Any:
        if self._share.block.name != METRICS:
            return true(self, total)
        drawn = mechanism.draw
        mechanism.draw = lambda stream, bits, size: change(drawn(stream, bits, size))
        try:
            return true(self, total)
        finally:
            mechanism.draw = drawn

    patch.setattr(mechanism.QuorumMechanism, "release", other)


def a_share_from_a_seed(patch: Patch) -> None:
    true = mechanism.draw
    patch.setattr(mechanism, "draw", lambda _stream, bits, size: true(randomness.SeededStream(7), bits, size))


def a_share_repeated_within_a_vector(patch: Patch) -> None:
    true = mechanism.draw
    patch.setattr(
        mechanism, "draw", lambda stream, bits, size: np.resize(true(stream, bits, (size + 1) // 2), size)
    )


def a_share_from_few_seeds(patch: Patch) -> None:
    true = mechanism.draw

    def weak(stream: Any, bits: int, size: int) -> np.ndarray:
        return true(randomness.SeededStream(stream.bytes(1)[0]), bits, size)

    patch.setattr(mechanism, "draw", weak)


def a_share_remembered_for_the_next_release(patch: Patch) -> None:
    true, kept = mechanism.draw, {}

    def same(stream: Any, bits: int, size: int) -> np.ndarray:
        return kept.setdefault((bits, size), true(stream, bits, size)).copy()

    patch.setattr(mechanism, "draw", same)


def shares_that_cancel_in_pairs(patch: Patch) -> None:
    def mirrored(drawn: np.ndarray, _bits: int) -> np.ndarray:
        half = drawn.size // 2
        drawn[half : 2 * half] = -drawn[:half]
        return drawn

    change_share(patch, mirrored)


# what is done around it


def a_clip_after_the_noise(patch: Patch) -> None:
    true = mechanism.to_ring

    def clipped(values: Any, grid: Any, stream: Any, noise: Any) -> Any:
        ring = true(values, grid, stream, noise).view(np.int32)
        return np.clip(ring, -grid.clamp, grid.clamp).view(np.uint32)

    patch.setattr(mechanism, "to_ring", clipped)


def rounding_to_the_nearest(patch: Patch) -> None:
    patch.setattr(
        randomness.RandomStream, "stochastic_round", lambda _self, values: np.rint(values).astype(np.int64)
    )


def rounding_without_its_slack(patch: Patch) -> None:
    patch.setattr(grids, "_rounded", lambda units, _length: units)


def rounding_with_its_mean_only(patch: Patch) -> None:
    patch.setattr(grids, "_rounded", lambda units, length: math.sqrt(units**2 + length / 4))


def sums_in_single_precision_as_if_exact(patch: Patch) -> None:
    patch.setattr(grids, "_SUM_ERROR", 1.0)


def two_local_steps_in_one_sum(patch: Patch) -> None:
    step, inside = TapeEngine.clipped_sum, [False]
    answer = behaviour._shared_sum

    def twice(self: Any, rows: Any) -> Any:
        total, seen = step(self, rows)
        if not inside[0]:
            return total, seen
        self.parameters.load(self.parameters.numpy() - 0.01 * total.numpy())
        return total + step(self, rows)[0], seen

    def marked(*arguments: Any) -> Any:
        inside[0] = True
        try:
            return answer(*arguments)
        finally:
            inside[0] = False

    patch.setattr(TapeEngine, "clipped_sum", twice)
    patch.setattr(behaviour, "_shared_sum", marked)


def settings_with_several_steps_let_through(patch: Patch) -> None:
    patch.setattr(RunConfig, "_require_one_linear_step", lambda _self: None)


def a_divisor_of_the_sites_own(patch: Patch) -> None:
    def own(plan: Any) -> Any:
        least = min(population for _, population in plan.populations)
        return local_constants(plan.config, least, plan.cohort, plan.noise_multiplier, plan.signal)

    patch.setattr(behaviour, "largest_constants", own)


def everybody_read_and_a_rate_noted(patch: Patch) -> None:
    def everybody(self: Any, rate: float, consumers: int) -> np.ndarray:
        self._rate = rate
        return np.arange(consumers)

    patch.setattr(mechanism.QuorumMechanism, "sample", everybody)


def a_sample_noted_as_everybody(patch: Patch) -> None:
    patch.setattr(
        mechanism.QuorumMechanism,
        "sample",
        lambda self, rate, consumers: np.flatnonzero(self._stream.bernoulli(rate, consumers)),
    )


def two_percent_more_read_than_noted(patch: Patch) -> None:
    def more(self: Any, rate: float, consumers: int) -> np.ndarray:
        self._rate = rate
        return np.flatnonzero(self._stream.bernoulli(min(1.0, 1.02 * rate), consumers))

    patch.setattr(mechanism.QuorumMechanism, "sample", more)


def less_noise_than_planned_noted_as_planned(patch: Patch) -> None:
    patch.setattr(mechanism, "carried_multiplier", lambda _grid, _sensitivity, _length: math.inf)


def noise_that_can_be_known_noted(patch: Patch) -> None:
    def noted(self: Any) -> Any:
        share = self._share
        return (share.quorum.event(share.multiplier, self._rate, 1, share.side),)

    patch.setattr(mechanism.QuorumMechanism, "_events", noted)


BUGS = (
    Bug(settings_with_several_steps_let_through, SITE, "quorum"),
    Bug(a_share_by_the_root_of_all_sites, FIGURES, "quorum"),
    Bug(a_share_rounded_down, FIGURES, "quorum"),
    *(
        Bug(bug, SHARE, "shared noise")
        for bug in (
            a_share_halved,
            a_share_three_percent_small,
            a_share_as_if_the_sites_were_five,
            a_share_of_other_units,
            a_share_cut_at_four_deviations,
            a_share_on_a_coarse_grid,
            a_share_of_the_last_coordinate_missing,
            a_share_from_a_seed,
            a_share_repeated_within_a_vector,
            a_share_from_few_seeds,
            a_share_remembered_for_the_next_release,
            shares_that_cancel_in_pairs,
            a_clip_after_the_noise,
            rounding_to_the_nearest,
            everybody_read_and_a_rate_noted,
            a_sample_noted_as_everybody,
            two_percent_more_read_than_noted,
            less_noise_than_planned_noted_as_planned,
            noise_that_can_be_known_noted,
        )
    ),
    *(
        Bug(bug, SITE, "shared noise")
        for bug in (
            a_share_of_rows_that_are_not_stocked_missing,
            a_share_where_there_is_a_gradient_only,
            metrics_without_a_share,
            metrics_with_half_a_share,
            the_number_of_consumers_without_a_share,
            two_local_steps_in_one_sum,
            a_divisor_of_the_sites_own,
        )
    ),
    Bug(a_share_of_every_hundredth_release_missing, SHARE, "shared noise"),
    Bug(a_share_less_for_many_consumers, DRAWS, "shared noise"),
    Bug(a_share_of_long_vectors_missing_at_the_end, DRAWS, "shared noise"),
    Bug(rounding_without_its_slack, GRID, "shared noise"),
    Bug(rounding_with_its_mean_only, GRID, "shared noise"),
    Bug(sums_in_single_precision_as_if_exact, GRID, "shared noise"),
)
