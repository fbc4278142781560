"""Rényi divergences and privacy loss distributions over arrays are dp-accounting's, number by number."""

import logging
import math

import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

from common.privacy.divergence import pld_epsilon
from common.privacy.renyi import ORDERS, divergences_of_step, epsilon_of_divergences
from common.privacy.sampled_loss import bounds_of_step, divergences, losses_of_step

SETTINGS = [
    (1 / 16, 1.0),
    (0.1, 0.54),
    (0.01, 8.0),
    (1.0, 2.0),
    (0.9, 0.7),
    (1e-4, 0.6),
    (0.999, 3.0),
    (0.1, 40.0),
]
EXTREME = [(1e-9, 1e-6), (1e-9, 1e4), (0.999, 0.1), (0.5, 300.0), (1e-3, 0.3), (0.1, 0.1)]
ALL = [
    *SETTINGS[:4], *(pytest.param(*more, marks=pytest.mark.full) for more in SETTINGS[4:]),
    *EXTREME[:3], *(pytest.param(*more, marks=pytest.mark.full) for more in EXTREME[3:]),
]  # fmt: skip
"""With the library at every one; the quick tests ask it about half of them."""


def library_rdp(rate: float, sigma: float) -> rdp.RdpAccountant:
    logging.getLogger("absl").setLevel(logging.ERROR)
    accountant = rdp.RdpAccountant()
    return accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma)))


@pytest.mark.parametrize(("rate", "sigma"), ALL)
def test_renyi_divergences_are_those_of_the_library(rate: float, sigma: float) -> None:
    theirs = library_rdp(rate, sigma)
    assert tuple(theirs.orders) == ORDERS
    np.testing.assert_allclose(divergences_of_step(rate, sigma), theirs.rdp, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rate", "sigma"), ALL)
def test_epsilon_by_renyi_is_that_of_the_library(rate: float, sigma: float) -> None:
    theirs, ours = library_rdp(rate, sigma), divergences_of_step(rate, sigma)
    for steps in (1, 60, 10_000):
        for delta in (1e-3, 1e-5, 1e-10):
            expected = rdp.compute_epsilon(theirs.orders, theirs.rdp * steps, delta)[0]
            assert epsilon_of_divergences(ORDERS, ours * steps, delta) == pytest.approx(expected, rel=1e-10)


def test_an_order_whose_series_does_not_converge_counts_for_nothing() -> None:
    found = divergences_of_step(0.5, 300.0)
    assert math.isinf(found[0])
    assert np.isinf(library_rdp(0.5, 300.0).rdp).tolist() == np.isinf(found).tolist()
    assert math.isfinite(epsilon_of_divergences(ORDERS, found, 1e-5))


def test_an_order_next_to_one_is_never_used() -> None:
    assert math.isinf(epsilon_of_divergences([1.005], np.array([0.5]), 1e-5))


@pytest.mark.parametrize("adjacency", [AdjacencyType.ADD, AdjacencyType.REMOVE])
@pytest.mark.parametrize(("rate", "sigma"), SETTINGS)
def test_divergences_are_those_of_the_library(rate: float, sigma: float, adjacency: AdjacencyType) -> None:
    loss = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=adjacency)
    bounds, removing = loss.connect_dots_bounds(), adjacency is AdjacencyType.REMOVE
    expected = (bounds.epsilon_lower, bounds.epsilon_upper)
    assert bounds_of_step(rate, sigma, removing=removing) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    epsilons = np.linspace(bounds.epsilon_lower - 0.1, bounds.epsilon_upper + 0.1, 301)
    np.testing.assert_allclose(
        divergences(rate, sigma, epsilons, removing=removing),
        loss.get_delta_for_epsilon(epsilons),
        rtol=1e-9,
        atol=1e-15,
    )


@pytest.mark.parametrize(("rate", "sigma"), SETTINGS)
def test_epsilon_is_that_of_the_library(rate: float, sigma: float) -> None:
    step = losses_of_step(rate, sigma, 1e-3)
    their_step = pld.from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=1e-3)
    ours, theirs = step.repeated(20), their_step.self_compose(20)
    for one, other in ((step, their_step), (ours, theirs), (ours.composed(step), theirs.compose(their_step))):
        # the convolution's own rounding, near 1e-16 of mass, is seen at smaller delta
        for delta, close in ((1e-3, 1e-6), (1e-5, 1e-6), (1e-8, 3e-6)):
            expected = other.get_epsilon_for_delta(delta)
            assert pld_epsilon(one, delta) == pytest.approx(expected, rel=close, abs=1e-6)
            assert one.delta_at(expected) == pytest.approx(other.get_delta_for_epsilon(expected), rel=1e-6)


@pytest.mark.parametrize(("rate", "sigma"), [*SETTINGS, (0.01, 0.1)])
def test_running_sums_decide_as_the_divergence_itself(rate: float, sigma: float) -> None:
    losses = losses_of_step(rate, sigma, 1e-3).repeated(50)
    for delta in (1e-2, 1e-5, 1e-10):
        at = pld_epsilon(losses, delta)
        for epsilon in (0.0, 0.3 * at, at * (1 - 1e-9), at, at * (1 + 1e-9), 1.7 * at, 499.0, 501.0, 5e3):
            assert losses.exceeds(epsilon, delta) == (losses.delta_at(epsilon) > delta)


def test_at_the_edge_of_the_sampled_loss_nothing_is_nan() -> None:
    for removing in (True, False):
        edge = np.log1p(-0.25) * np.array([1 - 1e-12, 1, 1 + 1e-12])
        for epsilons in (edge, -edge):
            assert np.isfinite(divergences(0.25, 1.0, epsilons, removing=removing)).all()
