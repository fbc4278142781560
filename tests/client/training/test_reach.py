"""No honest site goes further than ``common.tasks.reach`` says: the true optimizers, fed with the worst gradients there are.

Each limit is also reached, or nearly: a smaller constant in it makes a test here fail.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import chi2, poisson

from client.training.optimizer import make_optimizer
from client.training.trainer import noised_mean
from common.tasks.local_steps import BETA1, BETA2, LocalConstants
from common.tasks.reach import (
    GROWN,
    Reach,
    adam_reach,
    longest_adam_step,
    longest_noise,
    most_consumers,
    reach,
    shortest_noise,
)

SIZE = 400
OPTIMIZERS = ("sgd", "momentum", "scalar-adam", "adam")
MANY = 250_000


def constants(optimizer: str, steps: int, noise: float, proximal: float = 0.0) -> LocalConstants:
    return LocalConstants(1_000.0, 0.1, steps, 1.5, noise, optimizer, 0.05, proximal)


def moved(known: LocalConstants, gradients: torch.Tensor) -> torch.Tensor:
    """The update that a site's optimizer makes of mean gradients ``[steps, d]``, with the proximal term of ``train_locally``."""
    optimizer = make_optimizer(known.optimizer, known.learning_rate, private=known.private)
    theta = torch.zeros(gradients.shape[1])
    for gradient in gradients:
        optimizer.step(theta, gradient + known.proximal * theta)
    return theta


def longest_gradient(known: LocalConstants) -> float:
    """Everybody there may be is sampled, and all of their clipped gradients are equal."""
    return most_consumers(known.expected_batch) * known.sensitivity / known.expected_batch


def worst_signals(known: LocalConstants, size: int = SIZE) -> list[torch.Tensor]:
    """Gradients as long as they can be: the same in each step, small until one step, growing, turning back, anywhere."""
    length, steps, rng = longest_gradient(known), known.steps, np.random.default_rng(3)
    one, row = torch.zeros(size), torch.zeros(size)
    one[7], row[:16] = 1.0, 0.25
    even = torch.ones(size) / math.sqrt(size)
    shapes = [torch.ones(steps), torch.tensor([(-1.0) ** k for k in range(steps)])]
    shapes += [torch.tensor([1e-3] * (steps - late) + [1.0] * late) for late in (1, max(1, steps // 2))]
    shapes += [torch.tensor([base ** float(k + 1 - steps) for k in range(steps)]) for base in (1.1, 2.0, 10.0)]
    made = [length * shape[:, None] * way for shape, way in itertools.product(shapes, (one, row, even))]
    for _ in range(10):
        anything = torch.from_numpy(rng.normal(size=(steps, size)).astype(np.float32))
        anything *= torch.from_numpy(rng.uniform(0, 1, size=(steps, 1)).astype(np.float32))
        made.append(anything / torch.linalg.vector_norm(anything, dim=1).max() * length)
    return made


def longest_parts(update: torch.Tensor) -> dict[int, float]:
    """Of an update: the longest coordinate, the longest row of 16, and all of it."""
    return {
        part: float(torch.linalg.vector_norm(update.double().reshape(-1, part), dim=1).max())
        for part in (1, 16, len(update))
    }


def drawn_noise(known: LocalConstants, seed: int, size: int = SIZE) -> torch.Tensor:
    scale = known.noise_multiplier * known.sensitivity / known.expected_batch
    return scale * torch.from_numpy(
        np.random.default_rng(seed).normal(size=(known.steps, size)).astype(np.float32)
    )


def within(limit: Reach, update: torch.Tensor) -> None:
    for part, length in longest_parts(update).items():
        assert length <= limit.most(part) * 1.001, (part, length, limit.most(part))


@pytest.mark.parametrize("proximal", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0, 20.0])
@pytest.mark.parametrize("steps", [1, 10, *(pytest.param(more, marks=pytest.mark.full) for more in (2, 40))])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_consumers_and_no_noise_go_further(optimizer: str, steps: int, noise: float, proximal: float) -> None:
    known = constants(optimizer, steps, noise, proximal)
    limit, drawn = reach(known, SIZE), drawn_noise(known, 4)
    for signal in worst_signals(known):
        within(limit, moved(known, signal + drawn))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(OPTIMIZERS),
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 3)), min_size=1, max_size=12),
    st.sampled_from([0.05, 0.5, 5.0]),
    st.sampled_from([0.0, 0.5]),
    st.integers(0, 2**32 - 1),
)
def test_no_sequence_of_gradients_goes_further(
    optimizer: str, sizes: list[tuple[float, int]], noise: float, proximal: float, seed: int
) -> None:
    """Of any length up to the longest, in any of four ways, with any noise."""
    known = constants(optimizer, len(sizes), noise, proximal)
    ways = torch.zeros(4, SIZE)
    ways[0, 3] = ways[1, 4] = 1.0
    ways[2], ways[3, 16:32] = 1 / math.sqrt(SIZE), 0.25
    signal = torch.stack([length * longest_gradient(known) * ways[way] for length, way in sizes])
    within(reach(known, SIZE), moved(known, signal + drawn_noise(known, seed)))


def test_gradients_that_nobody_clips_have_a_limit_under_adam_only() -> None:
    """Without privacy the engine does not clip: what SGD makes of it can be anything."""
    for optimizer in OPTIMIZERS:
        limit = reach(constants(optimizer, 3, 0.0), SIZE)
        adam = "adam" in optimizer
        assert math.isfinite(limit.most(SIZE)) == adam
        if adam:
            signal = torch.tensor([1e-9, 1.0, 1e9])[:, None] * torch.eye(SIZE)[:3].sum(0)
            within(limit, moved(constants(optimizer, 3, 0.0), signal))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_the_limit_of_linear_steps_is_reached(optimizer: str) -> None:
    known = constants(optimizer, 10, 1e-6)
    update = moved(known, worst_signals(known)[0])
    assert float(torch.linalg.vector_norm(update)) == pytest.approx(reach(known, SIZE).most(1), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_the_noise_of_linear_steps_has_the_length_that_is_said(optimizer: str) -> None:
    known = constants(optimizer, 10, 1e6)
    size = 100_000
    length = float(torch.linalg.vector_norm(moved(known, drawn_noise(known, 1, size))))
    assert length == pytest.approx(reach(known, size).most(size), rel=0.05)


@pytest.mark.parametrize("momentum", [0.0, BETA1])
@pytest.mark.parametrize("step", [1, 2, 5, 30])
def test_the_longest_step_of_adam_is_reached_by_the_gradients_of_the_proof(step: int, momentum: float) -> None:
    first, second = (
        np.array([(1 - decay) * decay ** (step - s) / (1 - decay**step) for s in range(1, step + 1)])
        for decay in (momentum, BETA2)
    )
    gradients = torch.from_numpy((first / second).astype(np.float32))[:, None] * torch.ones(SIZE)
    known = constants("scalar-adam", step, 1.0 if momentum == 0 else 0.0)
    last = moved(known, gradients) - (moved(known, gradients[:-1]) if step > 1 else 0)
    longest = known.learning_rate * math.sqrt(SIZE) * longest_adam_step(step, momentum)
    assert float(torch.linalg.vector_norm(last)) == pytest.approx(longest, rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "part"), [("adam", 1), ("adam", SIZE), ("scalar-adam", SIZE), ("scalar-adam", 1)]
)
def test_the_limit_of_private_adam_is_reached_where_noise_is_faint_and_gradients_grow(
    optimizer: str, part: int
) -> None:
    known = constants(optimizer, 4, 1e-7)
    way = torch.ones(SIZE) / math.sqrt(SIZE) if part == SIZE else torch.eye(SIZE)[0]
    growing = torch.tensor([1e-6, 1e-4, 1e-2, 1.0])[:, None] * way
    update = moved(known, growing * longest_gradient(known))
    assert longest_parts(update)[part] == pytest.approx(reach(known, SIZE).most(part), rel=0.01)


def everybody_in_one_coordinate(known: LocalConstants) -> torch.Tensor:
    signal = torch.zeros(known.steps, MANY)
    signal[:, 7] = longest_gradient(known)
    return signal + drawn_noise(known, 5, MANY)


def test_what_a_coordinate_gains_over_loud_noise_is_nearly_reached() -> None:
    """Where the noise holds the second moment: everybody's gradient in one coordinate, beside the noise of many."""
    known = constants("scalar-adam", 10, 10.0)
    update, limit = moved(known, everybody_in_one_coordinate(known)), reach(known, MANY)
    assert limit.most(1) < adam_reach(known.learning_rate, known.steps, MANY, "scalar-adam").most(1) / 4
    assert 0.65 * limit.most(1) < float(update[7].abs())  # eight deviations of noise in ten steps are the rest
    within(limit, update)


def test_a_proximal_term_that_overshoots_is_in_the_limit() -> None:
    known = constants("scalar-adam", 3, 10.0, proximal=50.0)
    within(reach(known, MANY), moved(known, everybody_in_one_coordinate(known)))


def steps_of(known: LocalConstants, gradients: torch.Tensor) -> list[torch.Tensor]:
    """What each step moves, of the optimizer that a site has."""
    ways = [torch.zeros(gradients.shape[1])]
    ways += [moved(known, gradients[: step + 1]) for step in range(len(gradients))]
    return [after - before for before, after in itertools.pairwise(ways)]


@pytest.mark.parametrize("proximal", [0.5, 1.0])
def test_a_step_that_turns_back_gains_what_the_proximal_term_has_grown_to(proximal: float) -> None:
    """Everybody pushes one coordinate, and then the other way: the gradient that turns and the pull to the anchor add up."""
    steps = 10
    known = constants("scalar-adam", steps, 10.0, proximal)
    signal = torch.zeros(steps, MANY)
    signal[:, 7] = longest_gradient(known)
    signal[-1, 7] *= -1
    made = [float(step[7].abs()) for step in steps_of(known, signal + drawn_noise(known, 5, MANY))]
    totals = [
        0.0,
        *(reach(constants("scalar-adam", n, 10.0, proximal), MANY).most(1) for n in range(1, steps + 1)),
    ]
    limits = [after - before for before, after in itertools.pairwise(totals)]
    assert all(step <= limit * 1.001 for step, limit in zip(made, limits, strict=True))
    without = reach(constants("scalar-adam", 1, 10.0), MANY).most(1)  # of any step, if nothing pulled
    assert made[-1] > 1.2 * without


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("size", [2_560, 10_000])
def test_a_coordinate_gains_most_where_the_noise_of_all_others_is_as_short_as_it_ever_is(
    steps: int, size: int
) -> None:
    """The worst draw there is: the longest noise in the coordinate that everybody pushes, the shortest in all together."""
    known = constants("scalar-adam", steps, 32.0)
    deviation = known.noise_multiplier * known.sensitivity / known.expected_batch
    own, whole = longest_noise(1), shortest_noise(size)
    noise = torch.full((steps, size), math.sqrt((whole**2 - own**2) / (size - 1)))
    noise[:, 7] = own
    signal = torch.zeros(steps, size)
    signal[:, 7] = longest_gradient(known)
    update, limit = moved(known, signal + deviation * noise), reach(known, size)
    within(limit, update)
    assert float(update[7].abs()) > 0.9 * limit.most(1)


def test_noise_alone_is_in_the_limit_of_a_single_step() -> None:
    known = constants("scalar-adam", 1, 100.0)
    within(reach(known, MANY), moved(known, drawn_noise(known, 6, MANY)))


def test_the_limit_of_adam_without_noise_is_nearly_reached_by_gradients_that_never_change() -> None:
    known = constants("scalar-adam", 10, 0.0)
    update = moved(known, torch.ones(known.steps, SIZE))
    assert float(torch.linalg.vector_norm(update)) > 0.95 * reach(known, SIZE).most(SIZE)


@pytest.mark.parametrize("number", [1, 2, 16, 400, 100_000])
def test_noise_is_longer_or_shorter_once_in_ten_to_the_twelfth_at_most(number: int) -> None:
    assert chi2.sf(longest_noise(number) ** 2, number) < 1e-12
    assert chi2.cdf(shortest_noise(number) ** 2, number) < 1e-12


@pytest.mark.parametrize("declared", [1.0, 3.0, 20.0, 100.0, 1_310.0, 1e6])
def test_more_consumers_are_drawn_once_in_a_thousand_million_at_most(declared: float) -> None:
    assert poisson.sf(most_consumers(declared), GROWN * declared) < 1e-9


def test_a_step_adds_the_noise_to_the_clipped_sum_and_divides_both_by_the_declared_batch() -> None:
    """What the limits take a step for is what ``train_locally`` does."""
    known = constants("sgd", 1, 1.0)
    mean, lengths = noised_mean(
        torch.ones(4, dtype=torch.double), torch.full((4,), 2.0).double(), known.expected_batch
    )
    assert mean.tolist() == pytest.approx([3 / known.expected_batch] * 4)
    assert lengths == (2.0, 4.0)


def test_what_is_usual_is_within_what_must_hold() -> None:
    for optimizer, steps, noise in itertools.product(OPTIMIZERS, (1, 10, 200), (0.0, 0.05, 1.0, 20.0)):
        found = reach(constants(optimizer, steps, noise), SIZE)
        assert found.usual_row <= found.usual * (1 + 1e-9)
        if noise:
            assert found.usual <= found.most(SIZE) * (1 + 1e-9)
