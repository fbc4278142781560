"""Known epsilons at delta 1e-5.

Source: computed once with dp-accounting 0.6.0 through its own accountants (PLD at 1e-4, default Renyi
orders); the unsampled ones agree with the closed form of Balle and Wang 2018 to six digits.
"""

from __future__ import annotations

import pytest

from common.privacy.accountant import (
    PldAccountant,
    RdpAccountant,
    ScopeAccountant,
    epsilon_everywhere,
    gaussian_epsilon,
)
from common.privacy.mechanism import HOLDOUT_SIDE, SUB_SCOPES, Losses, PrivacyEvent

UNSAMPLED = [(0.5, 9.997256), (1.0, 4.377178), (2.0, 1.993091), (5.0, 0.725522), (10.0, 0.340669)]
SAMPLED = [  # sigma, rate, steps, RDP, PLD
    (4.0, 0.01, 10_000, 1.0355, 0.9470),
    (20.0, 0.01, 10_000, 0.1818, 0.1609),
]
SAMPLED_SLOW = [
    (1.1, 256 / 60_000, 14_062, 2.5966, 2.3817),
    (1.0, 128 / 5_000, 400, 3.6738, 3.2505),
    (0.7, 250 / 60_000, 10_800, 6.2343, 5.5622),
    (1.5, 0.04, 2_250, 7.3291, 6.7688),
]


@pytest.mark.parametrize(("sigma", "expected"), UNSAMPLED)
def test_unsampled_gaussian_is_exact(sigma: float, expected: float) -> None:
    assert gaussian_epsilon(1 / sigma, 1e-5) == pytest.approx(expected, abs=1e-6)
    assert ScopeAccountant([PrivacyEvent(sigma, 1.0, 1)]).epsilon(1e-5) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("sigma", "expected"), UNSAMPLED[1:3])
def test_the_exact_formula_agrees_with_the_loss_distribution(sigma: float, expected: float) -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    theirs = pld.from_gaussian_mechanism(sigma, value_discretization_interval=1e-3).get_epsilon_for_delta(1e-5)
    assert gaussian_epsilon(1 / sigma, 1e-5) <= theirs + 1e-9
    assert theirs == pytest.approx(expected, abs=1e-3)


def check(sigma: float, rate: float, steps: int, rdp: float, pld: float) -> None:
    events = [PrivacyEvent(sigma, rate, steps)]
    found = ScopeAccountant(events).epsilon(1e-5)
    assert RdpAccountant(events).epsilon(1e-5) == pytest.approx(rdp, abs=1e-3)
    assert PldAccountant(events, discretization=1e-4).epsilon(1e-5) == pytest.approx(pld, abs=1e-3)
    assert pld - 1e-3 <= found <= min(rdp, pld + 0.01) + 1e-3


@pytest.mark.parametrize(("sigma", "rate", "steps", "rdp", "pld"), SAMPLED)
def test_sampled_gaussian_by_both_accountants(
    sigma: float, rate: float, steps: int, rdp: float, pld: float
) -> None:
    check(sigma, rate, steps, rdp, pld)


@pytest.mark.full
@pytest.mark.parametrize(("sigma", "rate", "steps", "rdp", "pld"), SAMPLED_SLOW)
def test_sampled_gaussian_with_large_epsilon(
    sigma: float, rate: float, steps: int, rdp: float, pld: float
) -> None:
    check(sigma, rate, steps, rdp, pld)


def test_a_coarse_grid_is_looser_where_epsilon_is_small_so_the_fine_one_is_used() -> None:
    events = [PrivacyEvent(20.0, 0.01, 10_000)]
    assert PldAccountant(events, discretization=1e-3).epsilon(1e-5) == pytest.approx(0.2114, abs=1e-3)
    assert PldAccountant(events).epsilon(1e-5) == pytest.approx(0.1609, abs=1e-3)


@pytest.mark.parametrize(("sites", "expected"), [(1, 3.25), (2, 4.57), (3, 5.65), (5, 7.45)])
def test_a_consumer_at_several_equal_sites(sites: int, expected: float) -> None:
    one = Losses.of([PrivacyEvent(1.0, 128 / 5_000, 400)])
    assert epsilon_everywhere([(one, None)] * sites, 1e-5) == pytest.approx(expected, abs=0.01)


def test_a_consumer_trained_on_here_and_held_out_there() -> None:
    """Hold-outs are drawn per site: 100 steps (sigma 1, q .05) at A and one evaluation (sigma 1.2) at B: 5.040."""
    trained = Losses.of([PrivacyEvent(1.0, 0.05, 100)])
    held_out = Losses.of([PrivacyEvent(1.2, 1.0, 1, HOLDOUT_SIDE)])
    assert epsilon_everywhere([(trained, None), (held_out, None)], 1e-5) == pytest.approx(5.040, abs=1e-3)
    both = trained + held_out
    pair = epsilon_everywhere([(both, None)] * 2, 1e-5)
    sides = [PldAccountant([*a, *b]).epsilon(1e-5) for a in alone(both) for b in alone(both)]
    assert pair == pytest.approx(max(sides), abs=1e-6)
    many = epsilon_everywhere([(both, None)] * 12, 1e-5)  # of equal sites it only matters how many take which side
    mixes = [[PrivacyEvent(1.0, 0.05, 100 * (12 - held)), PrivacyEvent(1.2, 1.0, held)] for held in range(13)]
    assert many == pytest.approx(max(PldAccountant(mix).epsilon(1e-5) for mix in mixes), abs=1e-6)
    others = [trained + Losses.of([PrivacyEvent(1.2 + n / 50, 1.0, 1, HOLDOUT_SIDE)]) for n in range(12)]
    different = epsilon_everywhere(
        [(losses, None) for losses in others], 1e-5
    )  # 4096 choices: Renyi, above all of them
    assert different >= PldAccountant([PrivacyEvent(1.0, 0.05, 1_200)]).epsilon(1e-5)
    assert different >= RdpAccountant([PrivacyEvent(1.2 + n / 50, 1.0, 1) for n in range(12)]).epsilon(1e-5)
    fixed = epsilon_everywhere([(both, 4.0), (both, None)], 1e-5)
    assert fixed >= RdpAccountant([*trained, *trained], orders=(4.0,)).epsilon(1e-5)


def alone(losses: Losses) -> list[list[PrivacyEvent]]:
    """Each side's events, as if all had been on one side."""
    return [
        [PrivacyEvent(e.noise_multiplier, e.sampling_rate, e.steps) for e in losses if e.sub_scope == side]
        for side in SUB_SCOPES
    ]
