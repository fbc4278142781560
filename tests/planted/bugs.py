"""One patch a bug, of the kinds that privacy code has had. ``check``: the group of the self-test, ``test``: of our tests."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import client.models as models
import client.training.dpsgd.clipping as clipping
import client.training.dpsgd.engine as engine
import client.training.dpsgd.norms as norms
import client.training.evaluation as evaluation
import client.training.trainer as trainer
import common.data.sequences as sequences
import common.data.split as split
import common.model.metrics as metrics
import common.privacy.accountant as accounting
import common.privacy.replay as replay
import common.tasks.metric_sums as metric_sums
import common.trust.randomness as randomness
from client.guard import budget, guard
from client.site import Site
from client.tasks.purchases import Purchases
from client.training.dpsgd.records import Outer, Picked, Summed
from client.training.gaussian import GaussianMechanism
from common.privacy.mechanism import TRAIN_SIDE
from common.tasks import Task
from tests.planted import (
    account_bugs,
    draw_bugs,
    later_bugs,
    more_bugs,
    quorum_bugs,
    quorum_rule_bugs,
    sum_bugs,
    wide_bugs,
)
from tests.planted.bug import CHARGED, CLIPPED, DRAWS, EXACT, GUARD, KNOWN, LATER, PAUSES, Bug, Patch, change_noise


def noise_halved(patch: Patch) -> None:
    change_noise(patch, lambda drawn: drawn / 2)


def noise_cut_at_four_deviations(patch: Patch) -> None:
    true = GaussianMechanism.noise

    def cut(self: Any, size: int) -> np.ndarray:
        most = 4 * self._noise.multiplier * self._noise.sensitivity
        return np.clip(true(self, size), -most, most)

    patch.setattr(GaussianMechanism, "noise", cut)


def noise_on_a_coarse_grid(patch: Patch) -> None:
    change_noise(patch, lambda drawn: drawn.astype(np.float16).astype(np.float64))


def noise_of_one_layer_missing(patch: Patch) -> None:
    def partial(drawn: np.ndarray) -> np.ndarray:
        drawn[:64] = 0
        return drawn

    change_noise(patch, partial)


def noise_from_a_seed(patch: Patch) -> None:
    change_noise(patch, lambda drawn: np.random.default_rng(7).normal(size=len(drawn)) * drawn.std())


def noise_repeated_in_every_step(patch: Patch) -> None:
    true, kept = GaussianMechanism.noise, {}

    def same(self: Any, size: int) -> np.ndarray:
        drawn = true(self, size)
        return kept.setdefault((id(self), size), drawn)

    patch.setattr(GaussianMechanism, "noise", same)


def noise_under_a_key_from_the_clock(patch: Patch) -> None:
    def clock(self: Any) -> None:
        randomness.RandomStream.__init__(self, int(time.time()).to_bytes(32, "big"))

    patch.setattr(randomness.PrivateStream, "__init__", clock)


def noise_divided_by_the_batch(patch: Patch) -> None:
    change_noise(patch, lambda drawn: drawn / 10)


def noise_of_metrics_missing(patch: Patch) -> None:
    true = evaluation.evaluate

    def exact(model: Any, holdout: Any, noise: Any, stream: Any) -> Any:
        release = true(model, holdout, noise, stream)
        return replace(release, vector=evaluation.metric_sums(model, holdout))

    patch.setattr(evaluation, "evaluate", exact)


def sampling_two_percent_more(patch: Patch) -> None:
    true = randomness.RandomStream.bernoulli
    patch.setattr(randomness.RandomStream, "bernoulli", lambda self, p, n: true(self, min(1.0, 1.02 * p), n))


def sampling_once_per_round(patch: Patch) -> None:
    true, kept = GaussianMechanism.sample, {}

    def once(self: Any, rate: float, consumers: int) -> np.ndarray:
        drawn = true(self, rate, consumers)
        return kept.setdefault((id(self), consumers), drawn)

    patch.setattr(GaussianMechanism, "sample", once)


def batches_capped(patch: Patch) -> None:
    true = GaussianMechanism.sample
    patch.setattr(GaussianMechanism, "sample", lambda self, q, n: true(self, q, n)[: int(1.2 * q * n)])


def batches_of_a_fixed_size(patch: Patch) -> None:
    def shuffled(_self: Any, p: float, n: int) -> np.ndarray:
        chosen = np.zeros(n, dtype=bool)
        chosen[np.random.default_rng().permutation(n)[: round(p * n)]] = True
        return chosen

    patch.setattr(randomness.RandomStream, "bernoulli", shuffled)


def clip_of_the_batch_median(patch: Patch) -> None:
    def median(squares: torch.Tensor, clip: float) -> torch.Tensor:
        return torch.full_like(squares, min(1.0, clip / max(float(squares.sqrt().median()), 1e-30)))

    patch.setattr(clipping, "clip_factors", median)


def second_micro_batch_unclipped(patch: Patch) -> None:
    true, count = clipping.clip_factors, [0]
    clipped_sum = engine.TapeEngine.clipped_sum

    def begun(self: Any, rows: Any) -> Any:
        count[0] = 0
        return clipped_sum(self, rows)

    def only_the_first(squares: torch.Tensor, clip: float) -> torch.Tensor:
        count[0] += 1
        return true(squares, clip) if count[0] % 2 else torch.ones_like(squares)

    patch.setattr(engine.TapeEngine, "clipped_sum", begun)
    patch.setattr(clipping, "clip_factors", only_the_first)


def clip_per_tensor(patch: Patch) -> None:
    true = clipping.clip_factors
    patch.setattr(clipping, "clip_factors", lambda squares, clip: true(squares / 14, clip))


def _out_of_the_norm(patch: Patch, kind: type) -> None:
    true = norms._SQUARES[kind]

    def nothing(record: Any) -> Any:
        square, row = true(record)
        return (square * 0, row * 0)

    patch.setitem(norms._SQUARES, kind, nothing)


def a_linear_layer_out_of_the_norm(patch: Patch) -> None:
    _out_of_the_norm(patch, Outer)


def an_embedding_out_of_the_norm(patch: Patch) -> None:
    _out_of_the_norm(patch, Picked)


def a_scale_out_of_the_norm(patch: Patch) -> None:
    _out_of_the_norm(patch, Summed)


def gram_halved_on_long_rows(patch: Patch) -> None:
    true = norms._by_length

    def halved(record: Outer) -> torch.Tensor:
        squares = true(record)
        lengths = torch.bincount(record.rows.consumer, minlength=record.rows.consumers)
        return torch.where(lengths > 60, squares / 2, squares)

    patch.setattr(norms, "_by_length", halved)


def tied_cross_term_missing(patch: Patch) -> None:
    patch.setattr(norms, "_tied", lambda _records: [])


def divisor_from_true_counts(patch: Patch) -> None:
    true = trainer.train_locally

    def counted(engine_: Any, start: Any, plan: Any, stream: Any) -> Any:
        return true(engine_, start, replace(plan, population=float(max(engine_.consumers, 1))), stream)

    patch.setattr(trainer, "train_locally", counted)


def held_out_also_trained(patch: Patch) -> None:
    true = Site.prepared

    def everybody(self: Site, plan: Any) -> Any:
        prepared = true(self, plan)
        both = prepared.sides
        joined = sequences.ConsumerSequences(
            np.append(both.train.consumers, both.holdout.consumers),
            np.append(both.train.offsets, both.train.offsets[-1] + both.holdout.offsets[1:]),
            np.concatenate([both.train.integers, both.holdout.integers]),
            np.concatenate([both.train.numeric, both.holdout.numeric]),
            np.append(both.train.timestamps, both.holdout.timestamps),
        )
        return replace(prepared, sides=replace(both, train=joined))

    patch.setattr(Site, "prepared", everybody)


def held_out_by_position(patch: Patch) -> None:
    def fifth(consumers: np.ndarray, _key: bytes, fraction: float) -> np.ndarray:
        return np.arange(len(consumers)) % 5 < 5 * fraction

    patch.setattr(split, "holdout_mask", fifth)


def sensitivity_of_intent_too_small(patch: Patch) -> None:
    patch.setattr(evaluation, "metric_sensitivity", lambda heads: metric_sums.metric_sensitivity(heads) / 2)
    import client.selftest.sums as checks

    patch.setattr(checks, "metric_sensitivity", lambda heads: metric_sums.metric_sensitivity(heads) / 2)


def loss_without_a_bound(patch: Patch) -> None:
    true = metrics.consumer_metrics

    def unbounded(model: Any, batch: Any) -> np.ndarray:
        columns = true(model, batch)
        columns[:, 1] *= 1e3
        return columns

    patch.setattr(evaluation, "consumer_metrics", unbounded)


def series_clipped_per_channel(patch: Patch) -> None:
    true = Purchases.norms
    patch.setattr(Purchases, "norms", lambda self, spec: true(self, spec) / 2**0.5)


def accountant_five_percent_low(patch: Patch) -> None:
    true = accounting.PldAccountant.sub_epsilon
    patch.setattr(accounting.PldAccountant, "sub_epsilon", lambda self, s, d: 0.95 * true(self, s, d))


def late_runs_by_the_loss_distribution(patch: Patch) -> None:
    patch.setattr(replay.Replay, "_is_late", lambda _self, _config: False)


def order_chosen_afterwards(patch: Patch) -> None:
    true = accounting.RdpAccountant
    patch.setattr(accounting, "_rdp_epsilon", lambda steps, delta, _order: true(_events(steps)).epsilon(delta))


def _events(steps: Any) -> list[accounting.PrivacyEvent]:
    return [accounting.PrivacyEvent(sigma, rate, n) for (rate, sigma), n in steps]


def the_better_side_at_every_site(patch: Patch) -> None:
    true = accounting._sides
    patch.setattr(accounting, "_sides", lambda losses: true(losses)[:1])
    patch.setattr(
        accounting, "epsilon_everywhere",
        lambda sites, delta: accounting.epsilon_of([e for losses, _ in sites for e in losses], delta),
    )  # fmt: skip


def gate_off_by_one_round(patch: Patch) -> None:
    true = budget.gate
    patch.setattr(guard, "gate", lambda state, proposal, delta, limit: true(state, proposal, delta, 1.2 * limit))


def forfeit_gives_back(patch: Patch) -> None:
    true = replay.Replay._apply_body

    def generous(self: Any, entry: Any) -> None:
        true(self, entry)
        if isinstance(entry.body, replay.Forfeit):
            self.spent -= replay.Losses.of(self.reservations[entry.body.reserve].body.events)

    patch.setattr(replay.Replay, "_apply_body", generous)


def voids_without_end(patch: Patch) -> None:
    true = guard.closing

    def free(state: Any, reservation: Any, _voids_max: int, **rest: Any) -> Any:
        return true(state, reservation, 10_000, **rest)

    patch.setattr(guard, "closing", free)


def evaluation_charged_to_the_training_side(patch: Patch) -> None:
    true = Task.evaluation_event
    patch.setattr(
        Task, "evaluation_event", lambda self, plan, kind: replace(true(self, plan, kind), sub_scope=TRAIN_SIDE)
    )


def totals_before_instead_of_after(patch: Patch) -> None:
    true = budget.project

    def before(state: Any, *arguments: Any, **named: Any) -> Any:
        return replace(true(state, *arguments, **named), totals=state.spent.events)

    patch.setattr(budget, "project", before)


def weights_by_true_counts(patch: Patch) -> None:
    import client.tasks.behaviour as behaviour

    true = behaviour.train

    def weighted(site: Any, question: Any) -> Any:
        update, *rest = true(site, question)
        rows = models.engine_of(site, question.plan, question.speed)[1].consumers
        return [update.scaled(rows / 1_000), *rest]

    patch.setattr(behaviour, "ANSWERS", {**behaviour.ANSWERS, "train": weighted})


BUGS = {
    bug.name: bug
    for bug in (
        Bug(noise_halved, CHARGED, "noise"),
        Bug(noise_cut_at_four_deviations, DRAWS, "noise"),
        Bug(noise_on_a_coarse_grid, DRAWS, "noise"),
        Bug(noise_of_one_layer_missing, DRAWS, "noise"),
        Bug(noise_from_a_seed, DRAWS, "noise"),
        Bug(noise_repeated_in_every_step, DRAWS, "noise"),
        Bug(noise_under_a_key_from_the_clock, DRAWS, "noise"),
        Bug(noise_divided_by_the_batch, CHARGED, "noise"),
        Bug(noise_of_metrics_missing, DRAWS, "metrics"),
        Bug(sampling_two_percent_more, DRAWS, "sampling"),
        Bug(sampling_once_per_round, DRAWS, "sampling"),
        Bug(batches_capped, DRAWS, "sampling"),
        Bug(batches_of_a_fixed_size, DRAWS, "sampling"),
        Bug(clip_of_the_batch_median, EXACT, "sensitivity"),
        Bug(second_micro_batch_unclipped, EXACT, "sensitivity"),
        Bug(clip_per_tensor, EXACT, "sensitivity"),
        Bug(a_linear_layer_out_of_the_norm, EXACT, "sensitivity"),
        Bug(an_embedding_out_of_the_norm, EXACT, "sensitivity"),
        Bug(a_scale_out_of_the_norm, EXACT, "sensitivity"),
        Bug(gram_halved_on_long_rows, CLIPPED, "sensitivity"),
        Bug(tied_cross_term_missing, EXACT, "sensitivity"),
        Bug(divisor_from_true_counts, DRAWS, "whole answer"),
        Bug(weights_by_true_counts, DRAWS, "whole answer"),
        Bug(held_out_also_trained, DRAWS, "whole answer"),
        Bug(held_out_by_position, "tests/common/data/test_consumer_sequences.py", "whole answer"),
        Bug(sensitivity_of_intent_too_small, DRAWS, "metrics"),
        Bug(loss_without_a_bound, "tests/common/model/test_metrics.py", "metrics"),
        Bug(series_clipped_per_channel, "tests/client/tasks/test_purchases.py", "series"),
        Bug(accountant_five_percent_low, KNOWN, "accountant"),
        Bug(late_runs_by_the_loss_distribution, LATER, "ledger"),
        Bug(order_chosen_afterwards, "tests/properties/test_accounting_properties.py", "accountant"),
        Bug(the_better_side_at_every_site, KNOWN, "accountant"),
        Bug(gate_off_by_one_round, GUARD, "ledger"),
        Bug(forfeit_gives_back, GUARD, "ledger"),
        Bug(voids_without_end, PAUSES, "ledger"),
        Bug(evaluation_charged_to_the_training_side, "tests/common/run/test_plan.py", "whole answer"),
        Bug(totals_before_instead_of_after, GUARD, "ledger"),
        *draw_bugs.BUGS,
        *sum_bugs.BUGS,
        *account_bugs.BUGS,
        *more_bugs.BUGS,
        *wide_bugs.BUGS,
        *later_bugs.BUGS,
        *quorum_bugs.BUGS,
        *quorum_rule_bugs.BUGS,
    )
}
