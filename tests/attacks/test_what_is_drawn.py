"""What a site draws and counts, end to end: the self-test's checks as tests of the project, and bugs that they must see."""

from __future__ import annotations

import pytest

from client import selftest
from client.selftest import attack
from client.selftest.report import LEVEL, frequencies_check, normality_checks, variance_check

FAST = (
    "accountant",
    "ledger",
    "rules",
    "metrics",
    "series",
    "noise",
    "sampling",
    "draws",
    "whole answer",
    "shared noise",
    "quorum",
)


@pytest.mark.parametrize("group", FAST)
def test_every_promise_holds(group: str) -> None:
    assert [check for check in selftest.TESTS[group]() if not check.passed] == []


def test_statistics_of_true_normals_pass_and_of_others_do_not() -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    values = rng.normal(size=400_000)
    assert all(check.passed for check in normality_checks("x", values))
    assert variance_check("x", values, "").passed
    assert not variance_check("x", values * 1.02, "").passed
    for other in (np.clip(values, -4, 4), values.astype(np.float16).astype(float), rng.standard_t(30, 400_000)):
        assert not all(check.passed for check in normality_checks("x", other))
    counts, chances = np.bincount(rng.binomial(20, 0.3, 5_000), minlength=21), _binomial()
    assert frequencies_check("x", counts, chances, "").passed
    assert not frequencies_check("x", np.roll(counts, 1), chances, "").passed
    assert LEVEL < 1e-6


def _binomial():
    import numpy as np
    from scipy import stats

    return stats.binom.pmf(np.arange(21), 20, 0.3)


def test_the_attack_proves_less_than_was_promised_and_more_than_nothing() -> None:
    audit = attack.empirical_audit()
    assert audit.passed
    assert 1.0 < audit.lower < audit.upper
