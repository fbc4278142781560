"""More planted bugs of the account: an accountant that forgets, a gate that looks away, an attestation of another state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import common.privacy.accountant as accounting
import common.privacy.divergence as divergence
import common.privacy.replay as replay
from client.guard import SitePolicy, budget, guard
from client.guard.ledger import Ledger
from common.errors import BudgetExhaustedError
from common.privacy.mechanism import TRAIN_SIDE, Losses
from tests.planted.bug import CHARGED, GUARD, KNOWN, PAUSES, Bug, Patch

ROLLBACK = "tests/attacks/test_ledger_rollback.py"
RULES = "tests/attacks/test_what_is_drawn.py"


def epsilon_at_ten_times_delta(patch: Patch) -> None:
    true = accounting.PldAccountant.sub_epsilon
    patch.setattr(accounting.PldAccountant, "sub_epsilon", lambda self, s, d: true(self, s, min(10 * d, 0.5)))


def epsilon_remembered_for_another_delta(patch: Patch) -> None:
    kept: dict[Any, float] = {}

    def forgetful(losses: Any, delta: float, order: Any) -> float:
        return kept.setdefault((losses, order), accounting.ScopeAccountant(losses, order).epsilon(delta))

    patch.setattr(accounting, "_epsilon_of", forgetful)


def distribution_remembered_for_other_steps(patch: Patch) -> None:
    true, kept = divergence._RecentPlds.get, {}

    def forgetful(self: Any, rate: float, sigma: float, grid: float, steps: int) -> Any:
        return kept.setdefault((rate, sigma, grid), true(self, rate, sigma, grid, steps))

    patch.setattr(divergence._RecentPlds, "get", forgetful)


def only_adding_a_consumer_counted(patch: Patch) -> None:
    true = divergence.pld_epsilon

    class One:
        def __init__(self, both: Any) -> None:
            self.get_delta_for_epsilon = both._pmf_add.get_delta_for_epsilon

    patch.setattr(accounting, "pld_epsilon", lambda both, delta: true(One(both), delta))


def the_better_part_of_the_consumers(patch: Patch) -> None:
    def least(self: Any, delta: float) -> float:
        return min((self.sub_epsilon(s, delta) for s in self._steps), default=0.0)

    patch.setattr(accounting.Accountant, "epsilon", least)


def an_earlier_ledger_forgotten(patch: Patch) -> None:
    true = replay.Replay._apply_body

    def forgetful(self: Any, entry: Any) -> None:
        before = self.spent
        true(self, entry)
        if isinstance(entry.body, replay.Charge):
            self.spent = before

    patch.setattr(replay.Replay, "_apply_body", forgetful)


def what_has_left_given_back_at_restart(patch: Patch) -> None:
    true = replay.Replay._open_reservation

    def any_of_them(self: Any, sequence: int) -> Any:
        found = self.reservations.get(sequence)
        return found if found and found.state == "committed" else true(self, sequence)

    def restart(self: Any) -> None:
        with self._ledger.transaction() as state:
            self._outbox.clear()
            self._end(
                [r for r in state.reservations.values() if r.state in ("open", "committed")], set(), "restart"
            )

    patch.setattr(replay.Replay, "_open_reservation", any_of_them)
    patch.setattr(guard.Guard, "restart", restart)


def gate_looks_at_training_only(patch: Patch) -> None:
    true = budget.gate

    def half(state: Any, proposal: Any, delta: float, limit: float) -> Any:
        trained = tuple(e for e in proposal.events if e.sub_scope == TRAIN_SIDE)
        true(state, replace(proposal, events=trained), delta, limit)
        return true(state, proposal, delta, 1e9)

    patch.setattr(guard, "gate", half)


def gate_looks_at_what_was_before(patch: Patch) -> None:
    def before(state: Any, proposal: Any, delta: float, limit: float) -> Any:
        projection = budget.project(state, proposal, delta, limit)
        if projection.before <= limit:
            return projection
        raise BudgetExhaustedError("spent", hint="none")

    patch.setattr(guard, "gate", before)


def a_run_may_pass_its_plan(patch: Patch) -> None:
    patch.setattr(guard, "check_run_total", lambda _state, _proposal, _by: None)


def consumers_may_change_sides(patch: Patch) -> None:
    patch.setattr(guard, "check_split", lambda _state, _proposal: None)
    patch.setattr(replay.Replay, "_bind_split", lambda _self, _holdout, _key, _validation: None)


def what_ran_is_not_compared(patch: Patch) -> None:
    patch.setattr(guard, "must_be_charged", lambda _charged, _ran: None)


def a_ledger_cut_back_is_taken(patch: Patch) -> None:
    patch.setattr(Ledger, "refuse_rollback", lambda _self, _echoed, _kit=None: None)


def a_round_answered_twice(patch: Patch) -> None:
    patch.setattr(guard.Guard, "_refuse_repeated", lambda _self, _state, _proposal, _unsent: None)


def a_failing_run_goes_on(patch: Patch) -> None:
    patch.setattr(guard, "refuse_paused", lambda _state, _run, _failures_max, _by: None)


def policy_not_asked(patch: Patch) -> None:
    patch.setattr(SitePolicy, "check_proposal", lambda _self, _proposal: None)


def a_failure_given_back(patch: Patch) -> None:
    def free(self: Any, reservation: Any) -> None:
        with self._ledger.transaction():
            self._ledger.append(guard.Void(reserve=reservation.sequence, reason="failed"))
            self._outbox.remove([reservation.sequence])
            self._ledger.renew_anchor()

    patch.setattr(guard.Guard, "fail", free)


def totals_of_one_round(patch: Patch) -> None:
    true = budget.project

    def alone(state: Any, proposal: Any, *rest: Any, **named: Any) -> Any:
        return replace(true(state, proposal, *rest, **named), totals=Losses.of(proposal.events).events)

    for module in (budget, guard):
        patch.setattr(module, "project", alone)


def epsilon_attested_before_the_round(patch: Patch) -> None:
    true = budget.gate

    def early(*arguments: Any) -> Any:
        projection = true(*arguments)
        return replace(projection, after=projection.before)

    patch.setattr(guard, "gate", early)


def a_second_attempt_attests_less(patch: Patch) -> None:
    true = budget.project

    def less(state: Any, proposal: Any, delta: float, limit: float, *, again: bool = False) -> Any:
        projection = true(state, proposal, delta, limit, again=again)
        return replace(projection, after=projection.before) if again else projection

    patch.setattr(guard, "project", less)


BUGS = (
    Bug(epsilon_at_ten_times_delta, KNOWN, "accountant"),
    Bug(epsilon_remembered_for_another_delta, RULES, "accountant"),
    Bug(distribution_remembered_for_other_steps, KNOWN, "accountant"),
    Bug(only_adding_a_consumer_counted, KNOWN, "accountant"),
    Bug(the_better_part_of_the_consumers, RULES, "ledger"),
    Bug(an_earlier_ledger_forgotten, ROLLBACK, "rules"),
    Bug(what_has_left_given_back_at_restart, GUARD, "rules"),
    Bug(gate_looks_at_training_only, RULES, "rules"),
    Bug(gate_looks_at_what_was_before, GUARD, "ledger"),
    Bug(a_run_may_pass_its_plan, "tests/attacks/test_run_total.py", "rules"),
    Bug(consumers_may_change_sides, "tests/attacks/test_holdout_split.py", "rules"),
    Bug(what_ran_is_not_compared, CHARGED, "rules"),
    Bug(a_ledger_cut_back_is_taken, ROLLBACK, "rules"),
    Bug(a_round_answered_twice, GUARD, "rules"),
    Bug(a_failing_run_goes_on, PAUSES, "rules"),
    Bug(policy_not_asked, "tests/client/guard/test_policy.py", "rules"),
    Bug(a_failure_given_back, GUARD, "ledger"),
    Bug(totals_of_one_round, RULES, "rules"),
    Bug(epsilon_attested_before_the_round, GUARD, "rules"),
    Bug(a_second_attempt_attests_less, RULES, "rules"),
)
