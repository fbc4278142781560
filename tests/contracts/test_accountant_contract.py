"""What every accountant must do, whichever bound it computes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import pytest

from common.errors import ConfigError
from common.privacy.accountant import Accountant, PldAccountant, RdpAccountant, ScopeAccountant
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, PrivacyEvent

DELTA = 1e-5
STEP = PrivacyEvent(4.0, 0.01, 20)
HELD = PrivacyEvent(8.0, 1.0, 1, HOLDOUT_SIDE)


class AccountantContract(ABC):
    @abstractmethod
    def make(self) -> Accountant: ...

    def test_nothing_added_costs_nothing(self) -> None:
        assert self.make().epsilon(DELTA) == 0.0

    def test_an_event_without_steps_costs_nothing(self) -> None:
        accountant = self.make()
        accountant.add(PrivacyEvent(4.0, 0.01, 0))
        assert accountant.epsilon(DELTA) == 0.0

    def test_n_events_cost_the_same_as_one_event_with_n_times_the_steps(self) -> None:
        many, one = self.make(), self.make()
        many.add(STEP, 5)
        one.add(PrivacyEvent(4.0, 0.01, 100))
        assert many.epsilon(DELTA) == pytest.approx(one.epsilon(DELTA), abs=1e-6)

    def test_every_further_event_costs_more(self) -> None:
        accountant, last = self.make(), 0.0
        for _ in range(4):
            accountant.add(STEP)
            assert accountant.epsilon(DELTA) > last
            last = accountant.epsilon(DELTA)

    def test_epsilon_is_the_larger_of_two_disjoint_sub_scopes_not_their_sum(self) -> None:
        both, train, held = self.make(), self.make(), self.make()
        for event in (STEP, HELD):
            both.add(event)
        train.add(STEP)
        held.add(HELD)
        assert both.epsilon(DELTA) == max(train.epsilon(DELTA), held.epsilon(DELTA))
        assert both.sub_epsilon(TRAIN_SIDE, DELTA) == train.epsilon(DELTA)

    def test_a_copy_is_independent(self) -> None:
        accountant = self.make()
        accountant.add(STEP)
        before = accountant.epsilon(DELTA)
        accountant.copy().add(STEP, 100)
        assert accountant.epsilon(DELTA) == before
        assert accountant.copy().epsilon(DELTA) == before

    def test_a_smaller_delta_costs_more(self) -> None:
        accountant = self.make()
        accountant.add(STEP, 10)
        assert accountant.epsilon(1e-8) > accountant.epsilon(1e-5)

    def test_events_cannot_be_taken_back(self) -> None:
        with pytest.raises(ValueError, match="take back"):
            self.make().add(STEP, -1)

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
    def test_a_delta_that_is_no_probability_is_refused(self, delta: float) -> None:
        with pytest.raises(ConfigError, match="delta"):
            self.make().epsilon(delta)


class TestRdpAccountant(AccountantContract):
    def make(self) -> Accountant:
        return RdpAccountant()


class TestPldAccountant(AccountantContract):
    def make(self) -> Accountant:
        return PldAccountant()


class TestPldAccountantOnAFixedGrid(AccountantContract):
    def make(self) -> Accountant:
        return PldAccountant(discretization=1e-3)


class TestScopeAccountant(AccountantContract):
    def make(self) -> Accountant:
        return ScopeAccountant()
