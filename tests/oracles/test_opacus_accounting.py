"""Our epsilon beside Opacus's accountants, on the same events."""

from __future__ import annotations

import warnings

import pytest

from common.privacy.accountant import PldAccountant, RdpAccountant
from common.privacy.mechanism import PrivacyEvent

pytestmark = pytest.mark.full
CASES = [(4.0, 0.01, 1_000), (1.5, 0.04, 450), (1.0, 0.0256, 400)]


@pytest.mark.parametrize(("sigma", "rate", "steps"), CASES)
def test_renyi_is_the_same_and_the_loss_distribution_agrees_with_prv(
    sigma: float, rate: float, steps: int
) -> None:
    from opacus.accountants import PRVAccountant, RDPAccountant as TheirRdp

    theirs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in (TheirRdp, PRVAccountant):
            accountant = kind()
            accountant.history = [(sigma, rate, steps)]
            theirs[kind] = accountant.get_epsilon(delta=1e-5)
    events = [PrivacyEvent(sigma, rate, steps)]
    assert RdpAccountant(events).epsilon(1e-5) == pytest.approx(theirs[TheirRdp], rel=0.01)
    assert PldAccountant(events, discretization=1e-4).epsilon(1e-5) == pytest.approx(
        theirs[PRVAccountant], abs=0.02
    )


@pytest.mark.parametrize(("sigma", "rate", "steps"), CASES)
def test_the_gaussian_limit_that_is_never_shown_lies_below_ours(sigma: float, rate: float, steps: int) -> None:
    from opacus.accountants import GaussianAccountant

    accountant = GaussianAccountant()
    accountant.history = [(sigma, rate, steps)]
    assert accountant.get_epsilon(delta=1e-5) < PldAccountant([PrivacyEvent(sigma, rate, steps)]).epsilon(1e-5)
