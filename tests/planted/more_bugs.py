"""Planted bugs that show only later: in a second step, a second round, a lone consumer, a second run, a recovery."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_EVEN
from typing import Any

import numpy as np
import torch

import client.training.dpsgd.clipping as clipping
import common.privacy.accountant as accounting
import common.privacy.divergence as divergence
import common.privacy.replay as replay
import common.trust.randomness as randomness
from client.guard import guard
from client.training.gaussian import GaussianMechanism
from common.privacy.mechanism import Losses
from tests.planted.bug import CLIPPED, DRAWS, GUARD, KNOWN, LATER, Bug, Patch, change_noise


def noise_fading_over_the_steps(patch: Patch) -> None:
    true = GaussianMechanism.noise

    def fading(self: Any, size: int) -> np.ndarray:
        drawn = true(self, size)
        return drawn * (0.8 if sum(self._steps.values()) > 2 else 1.0)

    patch.setattr(GaussianMechanism, "noise", fading)


def noise_repeated_in_the_next_round(patch: Patch) -> None:
    true, kept = GaussianMechanism.noise, {}

    def again(self: Any, size: int) -> np.ndarray:
        drawn = true(self, size)
        step = (size, sum(self._steps.values()), self._noise.multiplier)
        return kept.setdefault(step, drawn.copy()).copy()

    patch.setattr(GaussianMechanism, "noise", again)


def noise_shared_between_neighbours(patch: Patch) -> None:
    change_noise(patch, lambda drawn: (drawn + np.roll(drawn, 1)) / np.sqrt(2))


def noise_that_sums_to_nothing(patch: Patch) -> None:
    change_noise(patch, lambda drawn: drawn - drawn.mean() if len(drawn) > 1 else drawn)


def sampling_without_those_of_the_step_before(patch: Patch) -> None:
    true = GaussianMechanism.sample

    def others(self: Any, rate: float, consumers: int) -> np.ndarray:
        rows = true(self, rate, consumers)
        fresh = np.setdiff1d(rows, getattr(self, "_last", [])).astype(np.int64) if rate < 1 else rows
        self._last = fresh
        return fresh

    patch.setattr(GaussianMechanism, "sample", others)


def sampling_whole_tens(patch: Patch) -> None:
    true = randomness.RandomStream.bernoulli

    def tens(self: Any, p: float, n: int) -> np.ndarray:
        return np.repeat(true(self, p, (n + 9) // 10), 10)[:n]

    patch.setattr(randomness.RandomStream, "bernoulli", tens)


def a_lone_consumer_unclipped(patch: Patch) -> None:
    true = clipping.clip_factors

    def lone(squares: torch.Tensor, clip: float) -> torch.Tensor:
        return torch.ones_like(squares) if len(squares) == 1 else true(squares, clip)

    patch.setattr(clipping, "clip_factors", lone)


def sampling_rate_halved_in_the_account(patch: Patch) -> None:
    true = divergence.rdp_of_step
    patch.setattr(
        accounting, "rdp_of_step", lambda rate, sigma, at=(): true(rate / 2 if rate < 1 else rate, sigma, at)
    )


def steps_without_sampling_forgotten(patch: Patch) -> None:
    true = accounting.Accountant.add

    def forgetful(self: Any, event: Any, n: int = 1) -> None:
        if event.sampling_rate < 1:
            true(self, event, n)

    patch.setattr(accounting.Accountant, "add", forgetful)


def a_single_step_forgotten(patch: Patch) -> None:
    true = accounting.Accountant.add

    def forgetful(self: Any, event: Any, n: int = 1) -> None:
        if event.steps * n > 1:
            true(self, event, n)

    patch.setattr(accounting.Accountant, "add", forgetful)


def epsilon_shown_to_the_nearest(patch: Patch) -> None:
    patch.setattr(accounting, "ROUND_CEILING", ROUND_HALF_EVEN)


def a_late_run_forgotten_after_a_void(patch: Patch) -> None:
    true = replay.Replay._forget_plan

    def forgetful(self: Any, config: str) -> None:
        true(self, config)
        self.late.clear()

    patch.setattr(replay.Replay, "_forget_plan", forgetful)


def the_other_side_not_charged_at_a_recovery(patch: Patch) -> None:
    patch.setattr(Losses, "on_every_side", lambda self: self)


def what_failed_is_no_release(patch: Patch) -> None:
    true = replay.Replay._apply_body

    def silent(self: Any, entry: Any) -> None:
        before = self.released_any
        true(self, entry)
        if isinstance(entry.body, replay.Forfeit):
            self.released_any = before

    patch.setattr(replay.Replay, "_apply_body", silent)


def the_larger_instead_of_the_sum(patch: Patch) -> None:
    patch.setattr(Losses, "__add__", lambda self, other: self | other)


def spent_and_asked_in_two_budgets(patch: Patch) -> None:
    true = guard.gate

    def apart(state: Any, proposal: Any, delta: float, limit: float) -> Any:
        spent, state.spent = state.spent, Losses()
        try:
            return true(state, proposal, delta, limit)
        finally:
            state.spent = spent

    patch.setattr(guard, "gate", apart)


def open_reservations_not_counted(patch: Patch) -> None:
    true = replay.Replay._apply_body

    def later(self: Any, entry: Any) -> None:
        true(self, entry)
        kept = [r for r in self.reservations.values() if r.state in ("committed", "forfeit")]
        total = self.carried
        for one in kept:
            total += Losses.of(one.body.events)
        self.spent = total

    patch.setattr(replay.Replay, "_apply_body", later)


def steps_counted_once_for_equal_noise(patch: Patch) -> None:
    def once(events: Any) -> Counter[Any]:
        from dataclasses import replace

        total: Counter[Any] = Counter()
        for event in events:
            one = replace(event, steps=1)
            total[one] = max(total[one], event.steps)
        return total

    import common.privacy.mechanism as mechanism

    patch.setattr(mechanism, "_steps", once)


BUGS = (
    Bug(noise_fading_over_the_steps, DRAWS, "noise"),
    Bug(noise_repeated_in_the_next_round, DRAWS, "noise"),
    Bug(noise_shared_between_neighbours, DRAWS, "noise"),
    Bug(noise_that_sums_to_nothing, DRAWS, "noise"),
    Bug(sampling_without_those_of_the_step_before, DRAWS, "sampling"),
    Bug(sampling_whole_tens, DRAWS, "sampling"),
    Bug(a_lone_consumer_unclipped, CLIPPED, "sensitivity"),
    Bug(sampling_rate_halved_in_the_account, KNOWN, "accountant"),
    Bug(steps_without_sampling_forgotten, KNOWN, "accountant"),
    Bug(a_single_step_forgotten, KNOWN, "accountant"),
    Bug(epsilon_shown_to_the_nearest, "tests/properties/test_accounting_properties.py", "accountant"),
    Bug(a_late_run_forgotten_after_a_void, DRAWS, "ledger"),
    Bug(the_other_side_not_charged_at_a_recovery, "tests/properties/test_losses.py", "rules"),
    Bug(what_failed_is_no_release, LATER, "ledger"),
    Bug(the_larger_instead_of_the_sum, GUARD, "ledger"),
    Bug(spent_and_asked_in_two_budgets, GUARD, "ledger"),
    Bug(open_reservations_not_counted, GUARD, "ledger"),
    Bug(steps_counted_once_for_equal_noise, DRAWS, "accountant"),
)
