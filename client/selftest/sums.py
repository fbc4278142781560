"""Sensitivity of everything that is summed over consumers: gradients, metrics, sales series."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import client.models as models
import client.selftest.people as people
import client.selftest.report as report
import client.training.evaluation as evaluation
import client.training.trainer as trainers
from client.selftest.report import Check, Vector
from common.tasks import LOSS_BOUND, metric_sensitivity
from common.trust.randomness import PrivateStream

SIGMA = 2.0
MICRO_BATCH = 7
DRAWS = 200
CROWD = 300
HOSTILE = (float("nan"), float("inf"), 1e30, 2e4)
SERIES_NOISE = 1.5


def sensitivity() -> list[Check]:
    """Remove one consumer with all their events: no sum that is released moves by more than it says."""
    checks = []
    trials = {**people.MODELS, "with a norm": people.MODELS["lstm"], "by Opacus": people.MODELS["lstm"]}
    for name, settings in trials.items():
        config, log, worst = people.config_of(settings), people.people(), 0.0
        whole = _clipped_sum(log, config, name)
        for consumer in (1, 2, 3, 4, 9, 17, 24):
            moved = whole - _clipped_sum(people.without(log, consumer), config, name)
            worst = max(worst, float(np.linalg.norm(moved)))
        checks.append(_at_most_the_clip(f"sensitivity: {name}", worst))
    return [*checks, *_hostile(), _in_large_batches()]


def _at_most_the_clip(name: str, moved: float) -> Check:
    return report.at_most(name, moved, people.CLIP * (1 + 1e-5), "one consumer moves it by at most C")


def _clipped_sum(log: people.EventLog, config: people.RunConfig, name: str) -> Vector:
    model = people.model_of(config)
    model = people.with_norm(model) if name == "with a norm" else model
    return _sum_of(model, log, config, "opacus" if name == "by Opacus" else "fast")


def _sum_of(
    model: Any, log: people.EventLog, config: people.RunConfig, trainer: str, micro_batch: int = MICRO_BATCH
) -> Vector:
    engine = models.make_engine(model, people.batches(log, config), config, trainer, micro_batch)
    with trainers.one_thread():
        total, _ = engine.clipped_sum(np.arange(engine.consumers))
    copied: Vector = total.double().numpy().copy()
    return copied


def _hostile() -> list[Check]:
    """A model made so that one consumer's gradient is not a number, or huge: still nobody moves the sum by more than C."""
    config = people.config_of(people.MODELS["untied, projected"])
    log, checks = people.one_of_a_kind(people.people()), []
    for value in HOSTILE:
        whole, rest = (
            _sum_of(people.hostile_model(config, value), one, config, "fast")
            for one in (log, people.without(log, people.ALONE))
        )
        moved = float(np.linalg.norm(np.nan_to_num(whole - rest, nan=np.inf)))
        checks.append(_at_most_the_clip(f"sensitivity: a parameter of {value:g}", moved))
    return checks


def _in_large_batches() -> Check:
    """As many consumers as a real batch has, in one piece."""
    config, log = people.config_of(people.MODELS["lstm"]), people.people(CROWD, seed=CROWD)
    whole = _sum_of(people.model_of(config), log, config, "fast", CROWD)
    worst = 0.0
    for consumer in (2, 3, CROWD):
        rest = _sum_of(people.model_of(config), people.without(log, consumer), config, "fast", CROWD)
        worst = max(worst, float(np.linalg.norm(whole - rest)))
    return _at_most_the_clip(f"sensitivity: a batch of {CROWD}", worst)


def metrics() -> list[Check]:
    """Metric sums of every task: bounded loss, right sensitivity, noise of the promised size."""
    checks = []
    for name in ("lstm", "intent", "both"):
        config = people.config_of(people.MODELS[name])
        log, bound = people.people(), metric_sensitivity(list(config.model.heads))
        for scale in (1.0, 60.0):  # a model that is very sure and very wrong
            worst = max(float(np.linalg.norm(moved)) for moved in _metric_moves(log, config, scale))
            checks.append(
                report.at_most(f"metric sensitivity: {name}, x{scale:g}", worst, bound * (1 + 1e-9), "L2 bound")
            )
        for consumers in (24, CROWD):
            values, told = _metric_noise(config, consumers), f"{name}, {consumers} consumers"
            checks.append(
                report.variance_check(
                    f"noise of metric sums: {told}", values.ravel(), "variance 1 in promised units"
                )
            )
            checks.append(report.coordinates_check(f"noise of every metric: {told}", values, "none goes without"))
    return [*checks, report.at_most("loss of a consumer", LOSS_BOUND, 10.0, "nats, counted at most")]


def _metric_noise(config: people.RunConfig, consumers: int) -> Vector:
    """What is added to the metrics of so many consumers, in promised units: ``[draws, metrics]``."""
    model, holdout = people.model_of(config), people.batches(people.people(consumers), config)
    exact = evaluation.metric_sums(model, holdout)
    drawn = [
        evaluation.evaluate(model, holdout, evaluation.MetricNoise(SIGMA), PrivateStream()).vector - exact
        for _ in range(DRAWS)
    ]
    values: Vector = np.stack(drawn) / (SIGMA * metric_sensitivity(list(config.model.heads)))
    return values


def _metric_moves(log: people.EventLog, config: people.RunConfig, scale: float) -> Iterator[Vector]:
    model = people.model_of(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    whole = evaluation.metric_sums(model, people.batches(log, config))
    for consumer in (1, 2, 3, 9, 24):
        yield whole - evaluation.metric_sums(model, people.batches(people.without(log, consumer), config))


def _kept() -> list[Check]:
    """What a sales run learns from is what has left: the kept bytes, and none but those that were charged."""
    from client.guard import outbox_digest
    from client.tasks.series import keep_release, kept_release
    from common.contribution import STATISTICS
    from common.secagg import fixedpoint

    plan = people.sales_plan(1.0, ["all"], SERIES_NOISE)
    cells = people.sales_spec(plan).cells
    ring, other = (np.arange(cells, dtype=np.uint32) * k for k in (1_000, 2_000))
    with tempfile.TemporaryDirectory(prefix="fedcart-selftest-") as name:
        door = SimpleNamespace(released_digest=lambda *_: outbox_digest(ring.tobytes()).hex())
        site: Any = SimpleNamespace(kit=SimpleNamespace(state=Path(name)), guard=lambda: door)
        seen = []
        for kept in (ring, other):
            keep_release(Path(name), plan, kept.tobytes())
            try:
                seen.append(kept_release(site, plan).reshape(-1))
            except Exception:  # refused, or not learnt from the file at all
                seen.append(np.zeros(0))
    wanted = fixedpoint.decode(ring, plan.blocks(STATISTICS))
    return [
        report.holds(
            "what sales are learnt from", np.array_equal(seen[0], wanted / plan.weight("self")), "what has left"
        ),
        report.holds("another series", not len(seen[1]), "is not learnt from: it was not charged"),
    ]


def series() -> list[Check]:
    """The sales series: one consumer moves all cells of all channels together by at most the clip, and all are noised."""
    from client.tasks.series import noised_series, purchases_in
    from common.privacy import SUB_SCOPES

    log, checks = people.people(), []
    for categories in (["all"], ["a", "b", "c"]):
        for clip in (0.3, 1.0):
            plan = people.sales_plan(clip, categories, SERIES_NOISE)
            spec = people.sales_spec(plan)
            whole = purchases_in(log, plan).series(spec, clip)
            moves = (
                whole - purchases_in(people.without(log, c), plan).series(spec, clip) for c in (1, 2, 3, 9, 24)
            )
            checks.append(
                report.at_most(
                    f"sensitivity: sales series, {len(categories)} categories, clip {clip:g}",
                    max(float(np.linalg.norm(moved)) for moved in moves),
                    clip * (1 + 1e-9),
                    "over all cells",
                )
            )
        bought = purchases_in(log, plan)
        releases = [noised_series(bought, plan, PrivateStream()) for _ in range(20)]
        drawn = np.stack([one.vector.astype(np.float64) for one in releases]) - whole.reshape(-1)
        name = f"noise of a sales series, {len(categories)} categories"
        values = drawn / (SERIES_NOISE * clip)
        checks.append(report.variance_check(name, values.ravel(), "variance 1 in promised units"))
        checks.append(report.coordinates_check(f"{name}, every cell", values, "none goes without"))
        sides = {event.sub_scope for event in releases[0].events} == set(SUB_SCOPES)
        checks.append(report.holds(f"{name}: whom it reads", sides, "every part of the consumers pays"))
    return [*checks, *_kept()]
