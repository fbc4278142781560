"""Every planted bug makes the self-test fail; the unmodified code passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client import selftest
from client.guard import guard as guards
from client.one_run_audit import audit_scores, epsilon_lower_bound, p_value
from client.training.dpsgd import clipping
from client.training.mechanism import GaussianMechanism
from common.data import sequences as rows_of
from common.data.sequences import ConsumerSequences

Patch = Callable[[pytest.MonkeyPatch], None]


def _failed(checks: list[selftest.Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def noise_divided_by_batch_size(patch: pytest.MonkeyPatch) -> None:
    true, batch = GaussianMechanism.noise, 10.0
    patch.setattr(GaussianMechanism, "noise", lambda self, size: true(self, size) / batch)


def one_layer_without_noise(patch: pytest.MonkeyPatch) -> None:
    true = GaussianMechanism.noise

    def partial(self: GaussianMechanism, size: int) -> np.ndarray:
        noise = true(self, size)
        noise[:64] = 0
        return noise

    patch.setattr(GaussianMechanism, "noise", partial)


def fixed_noise_seed(patch: pytest.MonkeyPatch) -> None:
    true = GaussianMechanism.noise

    def same(self: GaussianMechanism, size: int) -> np.ndarray:
        drawn = true(self, size)
        return np.random.default_rng(7).normal(size=size) * drawn.std()

    patch.setattr(GaussianMechanism, "noise", same)


def clip_of_the_batch_mean(patch: pytest.MonkeyPatch) -> None:
    def whole(squares: torch.Tensor, clip: float) -> torch.Tensor:
        mean = squares.sqrt().mean()
        return torch.full_like(squares, float(min(1.0, clip / mean)))

    patch.setattr(clipping, "factors_of", whole)


def clip_per_tensor(patch: pytest.MonkeyPatch) -> None:
    true = clipping.factors_of
    patch.setattr(
        clipping, "factors_of", lambda squares, clip: true(squares / 14, clip)
    )  # 14 tensors, each with its own C


def a_consumer_in_two_rows(patch: pytest.MonkeyPatch) -> None:
    true = rows_of.build_sequences

    def split(*arguments: Any, **named: Any) -> ConsumerSequences:
        whole = true(*arguments, **named)
        halves = whole.offsets[:-1] + (whole.lengths // 2)
        offsets = np.sort(np.concatenate([whole.offsets, halves]))
        consumers = np.repeat(whole.consumers, 2)
        return ConsumerSequences(consumers, offsets, whole.integers, whole.numeric, whole.timestamps)

    patch.setattr(rows_of, "build_sequences", split)


def batches_of_a_fixed_size(patch: pytest.MonkeyPatch) -> None:
    from common.trust.randomness import RandomStream

    def shuffled(_self: Any, p: float, n: int) -> np.ndarray:
        chosen = np.zeros(n, dtype=bool)
        chosen[np.random.default_rng().permutation(n)[: round(p * n)]] = True
        return chosen

    patch.setattr(RandomStream, "bernoulli", shuffled)


def history_reset_each_round(patch: pytest.MonkeyPatch) -> None:
    true = guards.Guard.status
    one = selftest.epsilon_of((selftest.PrivacyEvent(1.0, 0.1, 10),), 1e-5)
    from dataclasses import replace

    patch.setattr(guards.Guard, "status", lambda self: replace(true(self), epsilon=one))


CAUGHT_BY: list[tuple[Patch, str]] = [
    (noise_divided_by_batch_size, "_noise"),
    (one_layer_without_noise, "_noise"),
    (fixed_noise_seed, "_noise_between_steps"),
    (clip_of_the_batch_mean, "_sensitivity"),
    (clip_per_tensor, "_sensitivity"),
    (a_consumer_in_two_rows, "_sensitivity"),
    (batches_of_a_fixed_size, "_sampling"),
    (history_reset_each_round, "_composition"),
]


@pytest.mark.parametrize(("plant", "test"), CAUGHT_BY, ids=[plant.__name__ for plant, _ in CAUGHT_BY])
def test_a_planted_bug_is_caught(plant: Patch, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _failed(getattr(selftest, test)()) == []
    plant(monkeypatch)
    assert _failed(getattr(selftest, test)()) != []


def test_the_empirical_audit_sees_noise_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest.empirical_audit(2_000).passed
    noise_divided_by_batch_size(monkeypatch)
    assert not selftest.empirical_audit(2_000).passed


def test_the_bound_of_randomized_response_is_close_and_never_above() -> None:
    # Randomized response with epsilon 1 keeps a coin with probability e/(1+e): the best guess is to believe it.
    rng = np.random.default_rng(5)
    coins = rng.random(4_000) < 0.5
    kept = rng.random(4_000) < np.e / (1 + np.e)
    seen = np.where(kept, coins, ~coins)
    found = audit_scores(seen + rng.random(4_000) * 1e-3, coins, upper=1.0, delta=0.0)
    assert 0.7 < found.lower <= 1.0


def test_p_values_fall_with_correct_guesses_and_rise_with_epsilon() -> None:
    by_correct = [p_value(1_000, 200, v, (0.5, 1e-5)) for v in (100, 120, 140, 160)]
    assert by_correct == sorted(by_correct, reverse=True)
    by_epsilon = [p_value(1_000, 200, 140, (e, 1e-5)) for e in (0.0, 0.5, 1.0, 2.0)]
    assert by_epsilon == sorted(by_epsilon)
    assert epsilon_lower_bound(1_000, 200, 100, 1e-5, 0.05) == 0.0


@pytest.mark.soak
def test_the_unmodified_code_passes_twenty_times_in_a_row() -> None:
    for _ in range(20):
        assert selftest.run_selftest().passed


@pytest.mark.full
def test_the_unmodified_code_passes() -> None:
    result = selftest.run_selftest()
    assert result.passed, [check for check in result.checks if not check.passed]
