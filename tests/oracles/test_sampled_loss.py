"""The privacy loss distribution over arrays is dp-accounting's, point by point."""

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

from common.privacy.sampled_loss import divergences, pld_of_sampled_gaussian

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


@pytest.mark.parametrize("adjacency", [AdjacencyType.ADD, AdjacencyType.REMOVE])
@pytest.mark.parametrize(("rate", "sigma"), SETTINGS)
def test_divergences_are_those_of_the_library(rate: float, sigma: float, adjacency: AdjacencyType) -> None:
    loss = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=adjacency)
    bounds = loss.connect_dots_bounds()
    epsilons = np.linspace(bounds.epsilon_lower - 0.1, bounds.epsilon_upper + 0.1, 301)
    np.testing.assert_allclose(
        divergences(loss, epsilons), loss.get_delta_for_epsilon(epsilons), rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize(("rate", "sigma"), SETTINGS)
def test_epsilon_is_that_of_the_library(rate: float, sigma: float) -> None:
    ours = pld_of_sampled_gaussian(rate, sigma, 1e-3).self_compose(20)
    theirs = pld.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=1e-3
    ).self_compose(20)
    # the convolution's own rounding, near 1e-16 of mass, is seen at smaller delta
    for delta, close in ((1e-3, 1e-10), (1e-5, 1e-9), (1e-8, 1e-7)):
        expected = theirs.get_epsilon_for_delta(delta)
        assert ours.get_epsilon_for_delta(delta) == pytest.approx(expected, rel=close)


def test_at_the_edge_of_the_sampled_loss_nothing_is_nan() -> None:
    for adjacency in (AdjacencyType.ADD, AdjacencyType.REMOVE):
        loss = GaussianPrivacyLoss(1.0, sampling_prob=0.25, adjacency_type=adjacency)
        edge = np.log1p(-0.25) * np.array([1 - 1e-12, 1, 1 + 1e-12])
        for epsilons in (edge, -edge):
            assert np.isfinite(divergences(loss, epsilons)).all()
