"""Planted bugs that a small sample does not show: large batches, doubled rows, single consumers, a second kit, tails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

import client.prepared as prepared
import client.tasks.series as series
import client.training.dpsgd.clipping as clipping
import client.training.evaluation as evaluation
import common.data.split as split
import common.privacy.accountant as accounting
import common.privacy.replay as replay
from client.guard import budget, failures, guard, policy
from client.training.gaussian import GaussianMechanism
from common.privacy.mechanism import Losses
from tests.planted.bug import CLIPPED, DRAWS, KNOWN, LATER, PAUSES, Bug, Patch, change_noise


def large_batches_unclipped(patch: Patch) -> None:
    true = clipping.clip_factors

    def busy(squares: torch.Tensor, clip: float) -> torch.Tensor:
        return torch.ones_like(squares) if len(squares) > 100 else true(squares, clip)

    patch.setattr(clipping, "clip_factors", busy)


def a_consumer_in_two_rows(patch: Patch) -> None:
    true = prepared.store_sequences

    def doubled(path: Any, pieces: Any, *rest: Any) -> None:
        true(
            path, [one.take(np.append(np.arange(len(one)), np.arange(min(1, len(one))))) for one in pieces], *rest
        )

    patch.setattr(prepared, "store_sequences", doubled)


def metrics_one_coordinate_short(patch: Patch) -> None:
    patch.setattr(
        evaluation, "metric_sensitivity", lambda heads: (len(evaluation.metric_names(heads)) - 1) ** 0.5
        if "purchase-intent" not in heads else 1.0
    )  # fmt: skip


def sales_learnt_from_what_was_sold(patch: Patch) -> None:
    def raw(site: Any, plan: Any) -> Any:
        spec = series.SalesSpec.of(plan.config)
        return series.purchases_at(site, plan).series(spec, plan.config.privacy.clip)

    patch.setattr(series, "kept_release", raw)


def another_kits_spending_not_counted(patch: Patch) -> None:
    true = guard.gate

    def own(state: Any, proposal: Any, delta: float, limit: float) -> Any:
        mine = Losses()
        for one in state.reservations.values():
            if not one.body.by or one.body.by == getattr(state, "_by", one.body.by):
                mine += Losses.of(one.body.events) if one.state != "void" else Losses()
        kept, state.spent = state.spent, mine if len(state.admitted) < 2 else Losses()
        try:
            return true(state, proposal, delta, limit)
        finally:
            state.spent = kept

    patch.setattr(guard, "gate", own)


def another_kits_reservations_closed(patch: Patch) -> None:
    patch.setattr(guard.Guard, "_mine", lambda _self, reservations: list(reservations))


def only_the_first_event_compared(patch: Patch) -> None:
    true = guard.must_be_charged
    patch.setattr(guard, "must_be_charged", lambda charged, ran: true(charged[:1], ran[:1]))


def killed_answers_given_back_for_ever(patch: Patch) -> None:
    true = guard.closing

    def generous(state: Any, one: Any, allowed: int, *, stored: bool, reason: str) -> Any:
        return true(state, one, allowed if stored else 10_000, stored=stored, reason=reason)

    patch.setattr(guard, "closing", generous)


def a_killed_site_goes_on(patch: Patch) -> None:
    true = failures.closing

    def patient(state: Any, one: Any, allowed: int, *, stored: bool, reason: str) -> Any:
        return true(state, one, allowed, stored=True, reason=reason)

    patch.setattr(guard, "closing", patient)


def the_same_consumers_in_every_round(patch: Patch) -> None:
    true, kept = GaussianMechanism.sample, {}

    def again(self: Any, rate: float, consumers: int) -> np.ndarray:
        rows = true(self, rate, consumers)
        return kept.setdefault((rate, consumers, sum(self._steps.values())), rows) if rate < 1 else rows

    patch.setattr(GaussianMechanism, "sample", again)


def long_rows_always_trained(patch: Patch) -> None:
    def of(self: Any, rows: Any) -> Any:
        chooses, reported = (part & (rows.lengths < 60) for part in self.masks(rows.consumers))
        return split.Sides(rows.take(~(chooses | reported)), rows.take(chooses), rows.take(reported))

    patch.setattr(split.Split, "of", of)


def epsilon_remembered_for_another_order(patch: Patch) -> None:
    true, kept = accounting.epsilon_of, {}

    def remembered(events: Any, delta: float, order: float | None = None) -> float:
        losses = Losses.of(events)
        return kept.setdefault((losses, delta), true(losses, delta, order))

    for place in (accounting, budget, guard):
        patch.setattr(place, "epsilon_of", remembered)


def late_sites_counted_as_planned(patch: Patch) -> None:
    true = accounting.epsilon_everywhere
    patch.setattr(
        accounting, "epsilon_everywhere", lambda sites, delta: true([(losses, None) for losses, _ in sites], delta)
    )


def a_run_may_look_as_often_as_it_likes(patch: Patch) -> None:
    true = guard.check_run_total

    def training_only(state: Any, proposal: Any, by: str) -> None:
        asked = [
            event for event in proposal.events if event.sub_scope == accounting.PrivacyEvent(1, 1, 1).sub_scope
        ]
        if asked:
            true(state, replace(proposal, events=tuple(asked)), by)

    patch.setattr(guard, "check_run_total", training_only)


def only_the_first_event_against_the_policy(patch: Patch) -> None:
    true = policy.SitePolicy.check_proposal
    patch.setattr(
        policy.SitePolicy,
        "check_proposal",
        lambda self, asked: true(self, replace(asked, events=asked.events[:1])),
    )


def a_moved_ledger_counts_as_planned(patch: Patch) -> None:
    true = replay.Replay._take_over_plans
    patch.setattr(
        replay.Replay, "_take_over_plans",
        lambda self, body: true(self, body.model_copy(update={"adaptive": False})),
    )  # fmt: skip


def two_planned_runs_go_on_as_one(patch: Patch) -> None:
    patch.setattr(replay.Replay, "_is_late", lambda self, config: self.released_any and config not in self.planned)


def noise_in_single_precision(patch: Patch) -> None:
    change_noise(patch, lambda drawn: drawn.astype(np.float32).astype(np.float64))


def noise_cut_at_four_and_a_half_deviations(patch: Patch) -> None:
    true = GaussianMechanism.noise

    def cut(self: Any, size: int) -> np.ndarray:
        bound = 4.5 * self._noise.multiplier * self._noise.sensitivity
        return np.clip(true(self, size), -bound, bound)

    patch.setattr(GaussianMechanism, "noise", cut)


def noise_of_long_vectors_missing_at_the_end(patch: Patch) -> None:
    true = GaussianMechanism.noise

    def short(self: Any, size: int) -> np.ndarray:
        drawn = true(self, size)
        drawn[100_000:] = 0
        return drawn

    patch.setattr(GaussianMechanism, "noise", short)


def noise_of_every_tenth_round_missing(patch: Patch) -> None:
    true, count = GaussianMechanism.noise, [0]

    def sometimes(self: Any, size: int) -> np.ndarray:
        count[0] += not self._steps
        return true(self, size) * (count[0] % 10 != 9)

    patch.setattr(GaussianMechanism, "noise", sometimes)


def noise_less_for_many_consumers(patch: Patch) -> None:
    true = evaluation.evaluate

    def quiet(model: Any, holdout: Any, noise: float, stream: Any, **rest: Any) -> Any:
        made = true(model, holdout, noise, stream, **rest)
        exact = evaluation.metric_sums(model, holdout)
        return replace(made, vector=exact + 0.5 * (made.vector - exact)) if len(holdout) > 50 else made

    patch.setattr(evaluation, "evaluate", quiet)


BUGS = (
    Bug(large_batches_unclipped, CLIPPED, "sensitivity"),
    Bug(a_consumer_in_two_rows, DRAWS, "whole answer"),
    Bug(metrics_one_coordinate_short, DRAWS, "metrics"),
    Bug(sales_learnt_from_what_was_sold, DRAWS, "series"),
    Bug(another_kits_spending_not_counted, "tests/attacks/test_two_kits_one_scope.py", "rules"),
    Bug(another_kits_reservations_closed, "tests/attacks/test_two_kits_one_scope.py", "rules"),
    Bug(only_the_first_event_compared, DRAWS, "rules"),
    Bug(killed_answers_given_back_for_ever, PAUSES, "rules"),
    Bug(a_killed_site_goes_on, PAUSES, "rules"),
    Bug(the_same_consumers_in_every_round, DRAWS, "sampling"),
    Bug(long_rows_always_trained, DRAWS, "whole answer"),
    Bug(epsilon_remembered_for_another_order, DRAWS, "accountant"),
    Bug(late_sites_counted_as_planned, KNOWN, "accountant"),
    Bug(a_run_may_look_as_often_as_it_likes, DRAWS, "rules"),
    Bug(only_the_first_event_against_the_policy, DRAWS, "rules"),
    Bug(a_moved_ledger_counts_as_planned, DRAWS, "rules"),
    Bug(two_planned_runs_go_on_as_one, LATER, "ledger"),
    Bug(noise_in_single_precision, DRAWS, "noise"),
    Bug(noise_cut_at_four_and_a_half_deviations, DRAWS, "noise"),
    Bug(noise_of_long_vectors_missing_at_the_end, DRAWS, "noise"),
    Bug(noise_of_every_tenth_round_missing, DRAWS, "noise"),
    Bug(noise_less_for_many_consumers, DRAWS, "metrics"),
)
