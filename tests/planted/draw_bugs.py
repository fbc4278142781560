"""More planted bugs of what is drawn: noise that hides in a corner, and samples that are almost Poisson."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import client.tasks.series as series
import client.training.evaluation as evaluation
import client.training.trainer as trainer
import common.data as data
import common.data.sequences as sequences
import common.data.split as split
import common.trust.randomness as randomness
from client.training.dpsgd.engine import TapeEngine
from client.training.gaussian import GaussianMechanism
from common.privacy.mechanism import TRAIN_SIDE
from tests.planted.bug import DRAWS, Bug, Patch, change_noise

STREAM = "tests/common/test_randomness.py"


def noise_mirrored_within_a_block(patch: Patch) -> None:
    true = randomness.RandomStream._fill_block

    def mirrored(self: Any, part: Any, turn: Any) -> None:
        true(self, part, turn)
        half = part.size // 2
        part[half : 2 * half] = -part[:half]

    patch.setattr(randomness.RandomStream, "_fill_block", mirrored)


def noise_of_one_coordinate_missing(patch: Patch) -> None:
    def bare(drawn: np.ndarray) -> np.ndarray:
        drawn[-1:] = 0
        return drawn

    change_noise(patch, bare)


def noise_of_the_number_of_consumers_missing(patch: Patch) -> None:
    true = evaluation.evaluate

    def exact(model: Any, holdout: Any, noise: Any, stream: Any) -> Any:
        release = true(model, holdout, noise, stream)
        vector = release.vector.copy()
        vector[0] = evaluation.metric_sums(model, holdout)[0]
        return replace(release, vector=vector)

    patch.setattr(evaluation, "evaluate", exact)


def noise_of_one_series_cell_missing(patch: Patch) -> None:
    true = series.noised_series

    def bare(purchases: Any, plan: Any, stream: Any) -> Any:
        release = true(purchases, plan, stream)
        vector = release.vector.copy()
        vector[0] = purchases.series(series.SalesSpec.of(plan.config), plan.config.privacy.clip).reshape(-1)[0]
        return replace(release, vector=vector)

    patch.setattr(series, "noised_series", bare)


def noise_of_the_first_block_only(patch: Patch) -> None:
    true = randomness.RandomStream.fill_gaussian

    def first(self: Any, out: Any, **named: Any) -> None:
        true(self, out, **named)
        out.reshape(-1)[2 * randomness._BLOCK_PAIRS :] = 0

    patch.setattr(randomness.RandomStream, "fill_gaussian", first)


def hardened_noise_halved(patch: Patch) -> None:
    true = randomness.RandomStream._add_three_more

    def halved(self: Any, part: Any, turn: Any) -> None:
        true(self, part, turn)
        part *= part.dtype.type(0.5)

    patch.setattr(randomness.RandomStream, "_add_three_more", halved)


def noise_less_for_small_batches(patch: Patch) -> None:
    sample, noise, share = GaussianMechanism.sample, GaussianMechanism.noise, [1.0]

    def watched(self: Any, rate: float, consumers: int) -> np.ndarray:
        rows = sample(self, rate, consumers)
        share[0] = min(1.0, len(rows) / (rate * consumers)) if len(rows) else 1.0
        return rows

    patch.setattr(GaussianMechanism, "sample", watched)
    patch.setattr(GaussianMechanism, "noise", lambda self, size: noise(self, size) * share[0])


def noise_of_one_key_for_all_streams(patch: Patch) -> None:
    key = bytes(range(32))
    patch.setattr(randomness.PrivateStream, "__init__", lambda self: randomness.RandomStream.__init__(self, key))


def a_child_process_repeats_the_stream(patch: Patch) -> None:
    patch.setattr(randomness.PrivateStream, "_rekey_after_fork", lambda _self: None)


def empty_batches_drawn_again(patch: Patch) -> None:
    true = GaussianMechanism.sample

    def until_somebody(self: Any, rate: float, consumers: int) -> np.ndarray:
        rows = true(self, rate, consumers)
        while consumers and not len(rows):
            self._sampled = None
            rows = true(self, rate, consumers)
        return rows

    patch.setattr(GaussianMechanism, "sample", until_somebody)


def sampling_one_of_a_couple(patch: Patch) -> None:
    def one_of_two(_self: Any, p: float, n: int) -> np.ndarray:
        rng, couples = np.random.default_rng(), (n + 1) // 2
        chosen = 2 * np.arange(couples) + rng.integers(0, 2, couples)
        out = np.zeros(2 * couples, dtype=bool)
        out[chosen[rng.random(couples) < 2 * p]] = True
        return out[:n] if p < 0.5 else rng.random(n) < p

    patch.setattr(randomness.RandomStream, "bernoulli", one_of_two)


def some_consumers_sampled_twice_as_often(patch: Patch) -> None:
    true = randomness.RandomStream.bernoulli

    def favoured(self: Any, p: float, n: int) -> np.ndarray:
        out = true(self, p, n)
        out[: n // 100] |= true(self, p, n // 100)
        return out

    patch.setattr(randomness.RandomStream, "bernoulli", favoured)


def few_sampling_seeds(patch: Patch) -> None:
    true = randomness.RandomStream.bernoulli

    def weak(self: Any, p: float, n: int) -> np.ndarray:
        return np.random.default_rng(self.bytes(1)[0]).random(n) < p if p < 1 else true(self, p, n)

    patch.setattr(randomness.RandomStream, "bernoulli", weak)


def divisor_of_the_drawn_batch(patch: Patch) -> None:
    sample, size = GaussianMechanism.sample, [1.0]

    def watched(self: Any, rate: float, consumers: int) -> np.ndarray:
        rows = sample(self, rate, consumers)
        size[0] = float(max(len(rows), 1))
        return rows

    patch.setattr(GaussianMechanism, "sample", watched)
    patch.setattr(trainer.LocalPlan, "expected_batch", property(lambda _self: size[0]))


def rate_that_follows_the_loss(patch: Patch) -> None:
    summed, step, loss = TapeEngine.clipped_sum, trainer.make_optimizer, [0.0]

    def watched(self: Any, rows: Any) -> Any:
        total, seen = summed(self, rows)
        loss[0] = float(seen.losses.mean()) if len(seen.losses) else 0.0
        return total, seen

    patch.setattr(TapeEngine, "clipped_sum", watched)
    patch.setattr(trainer, "make_optimizer", lambda name, rate: step(name, rate / (1 + loss[0])))


def held_out_without_a_secret(patch: Patch) -> None:
    true = sequences.holdout_mask
    for module in (split, data):
        patch.setattr(module, "holdout_mask", lambda who, _key, share: true(who, b"public", share))


def held_out_twice_as_many(patch: Patch) -> None:
    true = sequences.holdout_mask
    for module in (split, data):
        patch.setattr(module, "holdout_mask", lambda who, key, share: true(who, key, min(2 * share, 0.9)))


def series_charged_to_one_side(patch: Patch) -> None:
    true = series.noised_series

    def one_side(purchases: Any, plan: Any, stream: Any) -> Any:
        release = true(purchases, plan, stream)
        return replace(release, events=tuple(e for e in release.events if e.sub_scope == TRAIN_SIDE))

    patch.setattr(series, "noised_series", one_side)


BUGS = (
    Bug(noise_mirrored_within_a_block, DRAWS, "noise"),
    Bug(noise_of_one_coordinate_missing, DRAWS, "noise"),
    Bug(noise_of_the_number_of_consumers_missing, DRAWS, "metrics"),
    Bug(noise_of_one_series_cell_missing, DRAWS, "series"),
    Bug(noise_of_the_first_block_only, DRAWS, "noise"),
    Bug(hardened_noise_halved, STREAM, "noise"),
    Bug(noise_less_for_small_batches, DRAWS, "noise"),
    Bug(noise_of_one_key_for_all_streams, STREAM, "noise"),
    Bug(a_child_process_repeats_the_stream, STREAM, "noise"),
    Bug(empty_batches_drawn_again, DRAWS, "sampling"),
    Bug(sampling_one_of_a_couple, DRAWS, "sampling"),
    Bug(some_consumers_sampled_twice_as_often, DRAWS, "sampling"),
    Bug(few_sampling_seeds, DRAWS, "sampling"),
    Bug(divisor_of_the_drawn_batch, DRAWS, "whole answer"),
    Bug(rate_that_follows_the_loss, DRAWS, "whole answer"),
    Bug(held_out_without_a_secret, DRAWS, "whole answer"),
    Bug(held_out_twice_as_many, DRAWS, "whole answer"),
    Bug(series_charged_to_one_side, DRAWS, "series"),
)
