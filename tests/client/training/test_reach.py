"""No honest site goes further than ``common.tasks.reach`` says: the true optimizers, fed with the worst gradients there are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from client.training.optimizer import make_optimizer
from common.tasks.local_steps import BETA1, BETA2, LocalConstants
from common.tasks.reach import _weights, adam_reach, longest_adam_step, most_consumers, reach

SIZE = 400
OPTIMIZERS = ("sgd", "momentum", "scalar-adam", "adam")


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


def worst_signals(known: LocalConstants) -> list[torch.Tensor]:
    """Gradients as long as they can be: the same in each step, small until one step, turning back, anywhere."""
    length, steps, rng = longest_gradient(known), known.steps, np.random.default_rng(3)
    one = torch.zeros(SIZE)
    one[7] = 1.0
    even = torch.ones(SIZE) / math.sqrt(SIZE)
    shapes = [torch.ones(steps), torch.tensor([(-1.0) ** k for k in range(steps)])]
    shapes += [torch.tensor([1e-3] * (steps - late) + [1.0] * late) for late in (1, max(1, steps // 2))]
    made = [length * shape[:, None] * direction for shape, direction in itertools.product(shapes, (one, even))]
    for _ in range(10):
        anything = torch.from_numpy(rng.normal(size=(steps, SIZE)).astype(np.float32))
        anything *= torch.from_numpy(rng.uniform(0, 1, size=(steps, 1)).astype(np.float32))
        made.append(anything / torch.linalg.vector_norm(anything, dim=1).max() * length)
    return made


@pytest.mark.parametrize("proximal", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0, 20.0])
@pytest.mark.parametrize("steps", [1, 2, 10, 40])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_consumers_and_no_noise_go_further(optimizer: str, steps: int, noise: float, proximal: float) -> None:
    known = constants(optimizer, steps, noise, proximal)
    limit = reach(known, SIZE)
    drawn = np.random.default_rng(4)
    scale = noise * known.sensitivity / known.expected_batch
    for signal in worst_signals(known):
        noisy = signal + scale * torch.from_numpy(drawn.normal(size=(steps, SIZE)).astype(np.float32))
        update = moved(known, noisy).double()
        spread = limit.most_noise * (math.sqrt(SIZE) + 8)
        assert float(torch.linalg.vector_norm(update)) <= (limit.signal + spread) * (1 + 1e-5)
        assert float(update.abs().max()) <= (limit.signal + 8 * limit.most_noise) * (1 + 1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_the_limit_of_linear_steps_is_reached(optimizer: str) -> None:
    known = constants(optimizer, 10, 0.0)
    update = moved(known, worst_signals(known)[0])
    assert float(torch.linalg.vector_norm(update)) == pytest.approx(reach(known, SIZE).signal, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, BETA1])
@pytest.mark.parametrize("step", [1, 2, 5, 30])
def test_the_longest_step_of_adam_is_reached_by_the_gradients_of_the_proof(step: int, momentum: float) -> None:
    lengths = np.array([w / v for w, v in zip(_weights(step, momentum), _weights(step, BETA2), strict=True)])
    gradients = torch.from_numpy(lengths.astype(np.float32))[:, None] * torch.ones(SIZE)
    known = constants("scalar-adam", step, 1.0 if momentum == 0 else 0.0)
    last = moved(known, gradients) - (moved(known, gradients[:-1]) if step > 1 else 0)
    longest = known.learning_rate * math.sqrt(SIZE) * longest_adam_step(step, momentum)
    assert float(torch.linalg.vector_norm(last)) == pytest.approx(longest, rel=1e-3)


def test_signal_and_noise_share_a_private_step_of_adam() -> None:
    """Where the noise is loud the limit of the signal is far below that of a whole step, and true signals come near it."""
    known = constants("scalar-adam", 10, 100.0)
    limit, whole = reach(known, SIZE), adam_reach(known.learning_rate, known.steps, SIZE)
    assert limit.signal < whole.signal / 2
    scale = known.noise_multiplier * known.sensitivity / known.expected_batch
    noise = scale * torch.from_numpy(np.random.default_rng(5).normal(size=(10, SIZE)).astype(np.float32))
    signal = worst_signals(known)[0]  # in one coordinate
    assert float((moved(known, signal + noise) - moved(known, noise))[7].abs()) > limit.signal / 2


def test_what_is_usual_is_within_what_must_hold() -> None:
    for optimizer, steps, noise in itertools.product(OPTIMIZERS, (1, 10, 200), (0.0, 0.05, 1.0, 20.0)):
        found = reach(constants(optimizer, steps, noise), SIZE)
        assert found.usual_row <= found.usual * (1 + 1e-9)
        assert found.noise <= found.most_noise
        if noise:
            assert found.usual <= found.signal * (1 + 1e-9)
