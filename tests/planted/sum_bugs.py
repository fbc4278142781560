"""More planted bugs of sums over consumers: a clip that does not hold for everybody, and metrics without a bound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

import client.models as models
import client.tasks.behaviour as behaviour
import client.training.dpsgd.clipping as clipping
import client.training.dpsgd.engine as engine
import client.training.dpsgd.norms as norms
import client.training.evaluation as evaluation
import common.model.metrics as metrics
from client.tasks.purchases import Purchases
from client.training.dpsgd.records import Outer
from common.contribution import EVALUATE
from common.data import Split, holdout_mask
from tests.planted.bug import CLIPPED, DRAWS, EXACT, Bug, Patch


def gradients_that_are_not_finite_let_through(patch: Patch) -> None:
    true = clipping.clip_factors

    def through(squares: torch.Tensor, clip: float) -> torch.Tensor:
        return torch.where(torch.isfinite(squares), true(squares, clip), torch.ones_like(squares))

    patch.setattr(clipping, "clip_factors", through)


def clip_two_percent_loose(patch: Patch) -> None:
    true = clipping.clip_factors
    patch.setattr(clipping, "clip_factors", lambda squares, clip: true(squares, 1.02 * clip))


def clip_of_the_batch_before(patch: Patch) -> None:
    true, kept = clipping.clip_factors, []

    def stale(squares: torch.Tensor, clip: float) -> torch.Tensor:
        kept.append(true(squares, clip))
        return kept[-2] if len(kept) > 1 and len(kept[-2]) == len(squares) else kept[-1]

    patch.setattr(clipping, "clip_factors", stale)


def biases_out_of_the_norm(patch: Patch) -> None:
    true = norms._SQUARES[Outer]
    patch.setitem(norms._SQUARES, Outer, lambda record: true(replace(record, biases=())))


def norms_of_far_rows_lost(patch: Patch) -> None:
    patch.setattr(norms, "_in_doubles", lambda _records, _consumer: 0.0)


def last_micro_batch_dropped(patch: Patch) -> None:
    def whole(rows: Any, size: int) -> list[Any]:
        return [rows[begin : begin + size] for begin in range(0, len(rows) - size + 1, size)]

    patch.setattr(engine, "in_parts", whole)


def clip_of_the_opacus_path_loose(patch: Patch) -> None:
    import client.training.dpsgd.opacus_path as opacus_path  # heavy: not where tests are collected

    true = opacus_path.clip_factors
    patch.setattr(opacus_path, "clip_factors", lambda squares, clip: true(squares, 10 * clip))


def measured_on_the_training_part(patch: Patch) -> None:
    true = models.measured_of

    def trained(site: Any, plan: Any, parameters: Any, kind: str) -> Any:
        model, _ = true(site, plan, parameters, kind)
        rows, _, _ = models.site_model(site, plan)
        return model, models.make_batcher(models.localize(site.prepared(plan).sides.train, rows), plan.config)

    import client.selftest.ring as ring

    for module in (models, behaviour, ring):
        patch.setattr(module, "measured_of", trained)


def those_who_choose_also_reported_on(patch: Patch) -> None:
    patch.setattr(Split, "masks", lambda self, who: (holdout_mask(who, self.key, self.holdout * self.validation),
                                                     holdout_mask(who, self.key, self.holdout)))  # fmt: skip


def those_reported_on_asked_in_every_round(patch: Patch) -> None:
    true = models.measured_of

    def reported(site: Any, plan: Any, parameters: Any, _kind: str) -> Any:
        return true(site, plan, parameters, EVALUATE)

    import client.selftest.ring as ring

    for module in (models, behaviour, ring):
        patch.setattr(module, "measured_of", reported)


def events_counted_instead_of_consumers(patch: Patch) -> None:
    true = metrics.consumer_metrics

    def counted(model: Any, batch: Any) -> np.ndarray:
        columns = true(model, batch)
        columns[:, 0] *= np.minimum(batch.lengths.numpy(), 50)
        return columns

    patch.setattr(evaluation, "consumer_metrics", counted)


def noise_of_metrics_for_a_sensitivity_of_one(patch: Patch) -> None:
    patch.setattr(evaluation, "metric_sensitivity", lambda _heads: 1.0)


def series_clipped_per_category(patch: Patch) -> None:
    def apart(self: Any, spec: Any) -> np.ndarray:
        squares = (self.scaled(spec) ** 2).sum(axis=1)
        line = np.unique(self.consumer * 10_000 + self.cell // spec.periods, return_inverse=True)[1]
        return np.sqrt(np.bincount(line, weights=squares)[line])

    patch.setattr(Purchases, "norms", apart)


def series_clipped_per_cell(patch: Patch) -> None:
    patch.setattr(Purchases, "norms", lambda self, spec: np.sqrt((self.scaled(spec) ** 2).sum(axis=1)))


BUGS = (
    Bug(gradients_that_are_not_finite_let_through, CLIPPED, "sensitivity"),
    Bug(clip_two_percent_loose, CLIPPED, "sensitivity"),
    Bug(clip_of_the_batch_before, EXACT, "sensitivity"),
    Bug(biases_out_of_the_norm, EXACT, "sensitivity"),
    Bug(norms_of_far_rows_lost, CLIPPED, "sensitivity"),
    Bug(last_micro_batch_dropped, CLIPPED, "sensitivity"),
    Bug(clip_of_the_opacus_path_loose, CLIPPED, "sensitivity"),
    Bug(measured_on_the_training_part, DRAWS, "whole answer"),
    Bug(those_who_choose_also_reported_on, DRAWS, "whole answer"),
    Bug(those_reported_on_asked_in_every_round, "tests/simulations/test_three_parts.py", "whole answer"),
    Bug(events_counted_instead_of_consumers, DRAWS, "metrics"),
    Bug(noise_of_metrics_for_a_sensitivity_of_one, DRAWS, "metrics"),
    Bug(series_clipped_per_category, DRAWS, "series"),
    Bug(series_clipped_per_cell, DRAWS, "series"),
)
