"""A consumer at several sites: the Gaussian mixture that he makes of a sum, against dp-accounting and by integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, MixtureGaussianPrivacyLoss

from common.errors import ConfigError
from common.privacy.divergence import gaussian_epsilon
from common.privacy.group_loss import _divergences, _mixture_of, epsilon_of_mixture, losses_of_group_step
from common.privacy.sampled_loss import LossDistribution

DELTA = 1e-5
STEPS = [
    (0.2, 1.44, 2),
    (0.2, 7.63, 4),
    (0.5, 0.9, 3),
    (0.05, 3.0, 8),
    (0.9, 20.0, 5),
    (0.01, 0.6, 2),
    (0.3, 5.0, 1),
]


def weights(rate: float, sites: int) -> list[float]:
    return [math.comb(sites, k) * rate**k * (1 - rate) ** (sites - k) for k in range(sites + 1)]


def library(rate: float, sigma: float, sites: int, grid: float = 1e-3) -> pld.PrivacyLossDistribution:
    shifts = list(range(sites + 1))
    return pld.from_mixture_gaussian_mechanism(
        sigma, shifts, weights(rate, sites), value_discretization_interval=grid
    )


@pytest.mark.parametrize(
    ("sigma", "one", "two"),
    [(1.44, 8.03, 19.1), (2.99, 2.99, 6.7), (7.63, 1.00, 2.2)],
)
def test_epsilon_at_one_and_two_sites_is_the_known_one(sigma, one, two):
    found_one = epsilon_of_mixture(((0.2, sigma, 100, 1),), DELTA)
    found_two = epsilon_of_mixture(((0.2, sigma, 100, 2),), DELTA)
    assert found_one == pytest.approx(one, abs=0.005)
    assert found_two == pytest.approx(two, abs=0.05)
    composed = epsilon_of_mixture(
        ((0.2, sigma, 200, 1),), DELTA
    )  # what two noises would have cost: not what one does
    assert found_two > 1.4 * composed


@pytest.mark.parametrize(
    ("rate", "sigma", "times", "sites"),
    [
        (0.2, 7.63, 100, 4),
        (0.5, 9.0, 20, 3),
        *(
            pytest.param(*slow, marks=pytest.mark.full)  # the library inverts the loss point by point
            for slow in [(0.2, 2.99, 100, 2), (0.05, 3.0, 300, 8), (0.9, 20.0, 100, 5), (0.5, 3.0, 10, 3)]
        ),
    ],
)
def test_epsilon_is_that_of_the_library(rate, sigma, times, sites):
    expected = library(rate, sigma, sites).self_compose(times).get_epsilon_for_delta(DELTA)
    found = epsilon_of_mixture(((rate, sigma, times, sites),), DELTA)
    assert expected * (1 - 1e-6) <= found <= expected * (1 + 1e-3)


@pytest.mark.parametrize("adjacency", [AdjacencyType.ADD, AdjacencyType.REMOVE])
@pytest.mark.parametrize(("rate", "sigma", "sites"), STEPS)
def test_divergences_are_those_of_the_library(rate, sigma, sites, adjacency):
    theirs = MixtureGaussianPrivacyLoss(
        sigma, list(range(sites + 1)), weights(rate, sites), adjacency_type=adjacency
    )
    mixture, removing = _mixture_of(rate, sigma, sites), adjacency is AdjacencyType.REMOVE
    bounds = theirs.connect_dots_bounds()
    epsilons = np.linspace(bounds.epsilon_lower - 0.1, bounds.epsilon_upper + 0.1, 61)
    ours = _divergences(mixture, epsilons, removing=removing)
    np.testing.assert_allclose(ours, theirs.get_delta_for_epsilon(epsilons), rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize(("rate", "sigma", "sites"), [*STEPS, (0.2, 0.3, 3), (0.999, 0.8, 8)])
def test_a_loss_is_inverted_to_the_last_digits(rate, sigma, sites):
    mixture = _mixture_of(rate, sigma, sites)
    losses, _ = mixture.loss(np.linspace(-2 * sigma, sites + 7 * sigma, 10_001))
    np.testing.assert_allclose(mixture.loss(mixture.where(losses))[0], losses, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", [1e-2, 1e-3])
@pytest.mark.parametrize(("rate", "sigma", "sites"), STEPS)
def test_a_step_loses_no_less_than_integration_says_on_the_grid_or_between(rate, sigma, sites, grid):
    x, width = np.linspace(-13 * sigma, sites + 13 * sigma, 400_001, retstep=True)
    without = np.exp(-((x / sigma) ** 2) / 2)
    moved = sum(w * np.exp(-(((x - k) / sigma) ** 2) / 2) for k, w in enumerate(weights(rate, sites)))
    scale, step = width / (sigma * math.sqrt(2 * math.pi)), losses_of_group_step(rate, sigma, sites, grid)
    for masses, above, below in ((step.removed, moved, without), (step.added or step.removed, without, moved)):
        for epsilon in (0.0, 0.01234, 0.1, 0.5678, 1.0, 2.34567):
            exact, before = (
                np.maximum(above - math.exp(e) * below, 0).sum() * scale for e in (epsilon, epsilon - grid)
            )
            assert exact - 1e-9 <= masses.delta_at(epsilon) <= before + 1e-9


def test_without_sampling_all_sites_move_the_sum_at_once():
    found = epsilon_of_mixture(((1.0, 3.0, 7, 4),), DELTA)
    assert found == gaussian_epsilon(4 * math.sqrt(7) / 3, DELTA)
    by_grid = losses_of_group_step(1.0, 3.0, 4, 1e-3).repeated(7)
    assert by_grid.delta_at(found) == pytest.approx(DELTA, rel=1e-3)
    almost = epsilon_of_mixture(((1 - 1e-9, 3.0, 7, 4),), DELTA)
    assert almost == pytest.approx(found, rel=1e-4)


def test_several_settings_compose():
    whole = epsilon_of_mixture(((0.2, 7.63, 60, 2), (0.1, 9.0, 40, 3)), DELTA)
    assert epsilon_of_mixture(((0.1, 9.0, 40, 3), (0.2, 7.63, 30, 2), (0.2, 7.63, 30, 2)), DELTA) == whole
    expected = library(0.2, 7.63, 2).self_compose(60).compose(library(0.1, 9.0, 3).self_compose(40))
    assert whole == pytest.approx(expected.get_epsilon_for_delta(DELTA), rel=1e-5)
    one, two = epsilon_of_mixture(((0.2, 7.63, 60, 2),), DELTA), epsilon_of_mixture(((1.0, 9.0, 2, 2),), DELTA)
    both = epsilon_of_mixture(((0.2, 7.63, 60, 2), (1.0, 9.0, 2, 2), (0.2, 5.0, 3, 1)), DELTA)
    assert max(one, two) < both < one + two + epsilon_of_mixture(((0.2, 5.0, 3, 1),), DELTA)


def test_more_sites_lose_more():
    found = [epsilon_of_mixture(((0.2, 7.63, 100, sites),), DELTA) for sites in (1, 2, 3, 8, 30, 100)]
    assert found == sorted(found)
    assert math.isfinite(found[-1])


def test_nothing_lost_is_zero():
    assert epsilon_of_mixture((), DELTA) == 0.0
    assert epsilon_of_mixture(((0.2, 1.0, 0, 2),), DELTA) == 0.0


@pytest.mark.parametrize(
    ("setting", "delta"),
    [
        ((0.2, 0.05, 10, 2), DELTA),
        ((0.2, 3.0, 100, 2), 1e-12),
        pytest.param((0.2, 2.99, 10**5, 8), DELTA, marks=pytest.mark.full),
    ],
)
def test_what_cannot_be_computed_counts_as_without_sampling(setting, delta):
    _, sigma, times, sites = setting
    assert epsilon_of_mixture((setting,), delta) == gaussian_epsilon(sites * math.sqrt(times) / sigma, delta)


def test_what_would_take_gigabytes_is_not_begun(monkeypatch):
    monkeypatch.setattr(LossDistribution, "repeated", lambda *_: pytest.fail("composed"))
    found = epsilon_of_mixture(((0.2, 2.99, 10**6, 8),), DELTA)
    assert found == gaussian_epsilon(8 * math.sqrt(10**6) / 2.99, DELTA)


@pytest.mark.parametrize(
    "setting",
    [
        (0.0, 1.0, 1, 1),
        (1.1, 1.0, 1, 1),
        (0.2, 0.0, 1, 1),
        (0.2, math.nan, 1, 1),
        (0.2, 1.0, -1, 1),
        (0.2, 1.0, 1, 0),
    ],
)
def test_what_is_no_setting_is_refused(setting):
    with pytest.raises(ConfigError, match="no noised sum"):
        epsilon_of_mixture((setting,), DELTA)
    with pytest.raises(ConfigError, match="delta"):
        epsilon_of_mixture(((0.2, 1.0, 1, 1),), 1.0)
