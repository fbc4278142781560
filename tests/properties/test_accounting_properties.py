"""Accounting: what must hold for any setting."""

from __future__ import annotations

import math
import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from common.errors import ConfigError
from common.privacy.accountant import (
    FINE,
    PldAccountant,
    RdpAccountant,
    ScopeAccountant,
    choose_order,
    gaussian_epsilon,
    round_up,
    show_epsilon,
)
from common.privacy.calibration import calibrate_noise, rounds_left
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, PrivacyEvent

SIGMAS = st.sampled_from([2.0, 3.0, 4.5, 6.75])  # few values, so that what they cost is computed once
RATES = st.sampled_from([0.02, 0.04, 0.08])
STEPS = st.integers(1, 200)
FEW = settings(max_examples=8, deadline=None, derandomize=True)
MANY = settings(max_examples=60, deadline=None, derandomize=True)


def epsilon(sigma: float, rate: float, steps: int) -> float:
    return ScopeAccountant([PrivacyEvent(sigma, rate, steps)]).epsilon(1e-5)


def check_directions(sigma: float, rate: float, steps: int) -> None:
    here = epsilon(sigma, rate, steps)
    assert epsilon(sigma, rate, steps + 10) >= here
    assert epsilon(sigma, min(1.0, 2 * rate), steps) >= here - 1e-9
    assert epsilon(sigma * 1.5, rate, steps) <= here + 1e-9


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(2.0, 0.04, 1), (3.0, 0.08, 150)])
def test_epsilon_moves_the_right_way(sigma: float, rate: float, steps: int) -> None:
    check_directions(sigma, rate, steps)


@pytest.mark.full
@settings(max_examples=30, deadline=None, derandomize=True)
@given(sigma=SIGMAS, rate=RATES, steps=STEPS)
def test_epsilon_grows_with_steps_and_rate_and_shrinks_with_noise(sigma: float, rate: float, steps: int) -> None:
    check_directions(sigma, rate, steps)


@FEW
@given(parts=st.lists(st.integers(1, 40), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_composition_in_any_order_and_across_restarts_is_the_same(parts: list[int], seed: int) -> None:
    shuffled = random.Random(seed).sample(parts, len(parts))
    accountant = ScopeAccountant()
    for steps in shuffled:  # a restart rebuilds the accountant from the ledger's totals
        accountant = ScopeAccountant(PrivacyEvent(s, r, n) for (r, s), n in accountant.steps(TRAIN_SIDE).items())
        accountant.add(PrivacyEvent(3.0, 0.05, steps))
    assert accountant.epsilon(1e-5) == pytest.approx(epsilon(3.0, 0.05, sum(parts)), abs=2e-6)


@settings(FEW, max_examples=4)
@given(sigma=SIGMAS, rate=RATES, steps=STEPS)
def test_the_loss_distribution_is_never_worse_than_renyi(sigma: float, rate: float, steps: int) -> None:
    events = [PrivacyEvent(sigma, rate, steps)]
    pld = PldAccountant(events, discretization=FINE).epsilon(1e-5)
    assert pld <= 1.02 * RdpAccountant(events).epsilon(1e-5) + 1e-3


@MANY
@given(sigma=st.floats(0.3, 500.0), log_delta=st.floats(-12, -1))
def test_exact_gaussian_epsilon_meets_delta_and_not_much_less_does(sigma: float, log_delta: float) -> None:
    from scipy.stats import norm

    delta, mu = 10**log_delta, 1 / sigma
    found = gaussian_epsilon(mu, delta)

    def divergence(e: float) -> float:
        return float(norm.cdf(mu / 2 - e / mu) - pow(2.718281828459045, e) * norm.cdf(-mu / 2 - e / mu))

    assert divergence(found) <= delta * (1 + 1e-6)
    assert found < 1e-6 or divergence(found * 0.999) > delta


@MANY
@given(value=st.floats(0, 1e6), digits=st.integers(0, 8))
def test_a_shown_epsilon_is_never_below_the_computed_one(value: float, digits: int) -> None:
    assert Decimal(show_epsilon(value, digits)) >= Decimal(value)
    assert Decimal(show_epsilon(value, digits)) - Decimal(value) <= Decimal(1).scaleb(-digits)
    assert round_up(value, digits) >= value or round_up(value, digits) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(("target", "rate", "steps"), [(1.0, 0.04, 450), (2.0, 1.0, 20), (0.3, 0.01, 1_000)])
def test_calibrated_noise_meets_the_target_and_one_percent_less_does_not(
    target: float, rate: float, steps: int
) -> None:
    sigma = calibrate_noise(target, 1e-5, rate, steps)
    assert epsilon(sigma, rate, steps) <= target
    assert epsilon(0.99 * sigma, rate, steps) > target


def test_calibration_pays_for_statistics_and_checks_evaluation_alone() -> None:
    statistics, evaluation = PrivacyEvent(10.0, 1.0, 1), PrivacyEvent(10.0, 1.0, 20, HOLDOUT_SIDE)
    sigma = calibrate_noise(3.0, 1e-5, 0.05, 200, [statistics, evaluation])
    assert ScopeAccountant([PrivacyEvent(sigma, 0.05, 200), statistics, evaluation]).epsilon(1e-5) <= 3.0
    assert sigma > calibrate_noise(3.0, 1e-5, 0.05, 200, [evaluation])
    with pytest.raises(ConfigError, match="alone cost"):
        calibrate_noise(1.0, 1e-5, 0.05, 200, [PrivacyEvent(1.0, 1.0, 20, HOLDOUT_SIDE)])


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_that_is_no_positive_number_is_refused(target: float) -> None:
    with pytest.raises(ConfigError, match="positive"):
        calibrate_noise(target, 1e-5, 0.1, 10)


def test_a_target_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be met"):
        calibrate_noise(1e-5, 1e-9, 1.0, 1_000_000)


@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_rounds_left_is_the_last_round_that_fits(limit: float) -> None:
    events = [PrivacyEvent(3.0, 0.05, 10), PrivacyEvent(20.0, 1.0, 1, HOLDOUT_SIDE)]
    spent = ScopeAccountant([PrivacyEvent(3.0, 0.05, 10)])
    left = rounds_left(spent, events, 1e-5, limit)

    def after(rounds: int) -> float:
        projected = spent.copy()
        for event in events:
            projected.add(event, rounds)
        return projected.epsilon(1e-5)

    assert (left == 0 or after(left) <= limit) and after(left + 1) > limit


MIXED = (PrivacyEvent(3.0, 0.05, 100), PrivacyEvent(4.0, 0.05, 100))


def test_what_was_planned_in_advance_counts_by_the_smaller_bound_even_if_settings_differ() -> None:
    reading = ScopeAccountant(MIXED).reading(1e-5)
    assert not reading.adaptive
    assert reading.epsilon == reading.pld < reading.rdp


@pytest.mark.parametrize("order", [3.0, 8.0, 30.0])
def test_what_was_not_counts_at_the_one_order_that_was_fixed(order: float) -> None:
    reading = ScopeAccountant(MIXED, order).reading(1e-5)
    total = sum(rdp_of(e, order) for e in MIXED)
    plain = total + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)  # Canonne et al. 2020, prop. 12
    assert reading.adaptive
    assert reading.epsilon == pytest.approx(plain, rel=1e-9)
    assert reading.epsilon >= reading.rdp - 1e-12 >= reading.if_fixed_in_advance - 1e-12


def rdp_of(event: PrivacyEvent, order: float) -> float:
    """Renyi divergence of a sampled Gaussian at one order, by integration: an oracle that shares no code."""
    from scipy.integrate import quad

    q, sigma, steps = event.sampling_rate, event.noise_multiplier, event.steps

    def log_ratio(x: float) -> float:
        return float(np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * sigma**2)))

    def density(x: float) -> float:
        return math.exp(order * log_ratio(x) - x * x / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

    moment, _ = quad(density, -20 * sigma, 20 * sigma + order, limit=500, epsabs=1e-14, epsrel=1e-11)
    return steps * math.log(moment) / (order - 1)


def test_the_order_is_chosen_so_that_many_such_runs_fit() -> None:
    run, limit = PrivacyEvent(1.159, 0.1, 60), 8.0
    chosen = choose_order([run], 1e-5, limit)

    def fit(order: float) -> int:
        return rounds_left(ScopeAccountant([], order), [run], 1e-5, limit)

    assert fit(chosen) == max(fit(order) for order in (1.5, 2.0, 2.5, 3.0, 3.4, 4.0, 5.0, 8.0, 16.0, chosen))
    assert choose_order([run], 1e-5, 1e-6) > 100  # nothing fits: no crash, the cheapest


def test_mixed_releases_without_sampling_have_an_exact_bound_that_holds_adaptively() -> None:
    reading = ScopeAccountant([PrivacyEvent(3.0, 1.0, 2), PrivacyEvent(6.0, 1.0, 4)], 5.0).reading(1e-5)
    assert reading.adaptive
    assert reading.epsilon == pytest.approx(gaussian_epsilon((2 / 9 + 4 / 36) ** 0.5, 1e-5), abs=1e-9)
    assert reading.epsilon < reading.rdp


def test_a_delta_too_small_for_fourier_transforms_falls_back_to_renyi() -> None:
    reading = ScopeAccountant([PrivacyEvent(3.0, 0.05, 100)]).reading(1e-12)
    assert reading.pld == float("inf") and reading.epsilon == reading.rdp
