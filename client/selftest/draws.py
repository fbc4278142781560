"""Noise and sampling of the code that trains: what is drawn, and who is."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

import client.models as models
import client.selftest.people as people
import client.selftest.report as report
import client.training.trainer as trainer
from client.selftest.report import Check, Vector
from client.training.gradients import GradientDiagnostics, empty
from common.model import FlatParameters
from common.trust.randomness import PrivateStream

SIGMA = 2.0
MICRO_BATCH = 7
DRAWN = 1 << 18
FAR = 1 << 22
SHORT, SUMS = 1 << 8, 1 << 10  # coordinates of a sum, and sums, of the look at directions
MANY, STEPS = 1 << 14, 400  # consumers and steps of the long look at sampling


def plan_of(steps: int, **changes: float) -> trainer.LocalPlan:
    """Constants of a local run."""
    constants = {
        "population": 100.0,
        "sampling_rate": 0.1,
        "clip": people.CLIP,
        "noise_multiplier": SIGMA,
    } | changes
    return trainer.LocalPlan(steps=steps, optimizer="sgd", learning_rate=1.0, **constants)  # type: ignore[arg-type]


def noise() -> list[Check]:
    """Everything that is drawn: right size in every tensor and coordinate, standard normal to the tails, independent."""
    runs = [_pure_noise(1) for _ in range(12)]
    layout = runs[0][1].layout
    checks = []
    for name in layout.entries:
        values = np.concatenate([layout.split(update.astype(np.float32))[name].ravel() for update, _ in runs])
        checks.append(
            report.variance_check(f"noise of {name}", values.astype(np.float64), "variance 1 in promised units")
        )
    every = np.stack([update for update, _ in runs])
    checks.append(report.coordinates_check("noise of every parameter", every, "none goes without"))
    several, _ = _pure_noise(8)
    checks.append(
        report.variance_check("noise of eight steps", several, "variance 1: steps draw independent noise")
    )
    sampled = np.concatenate([_pure_noise(8, silent=100)[0] for _ in range(4)])
    checks.append(
        report.variance_check("noise whoever is sampled", sampled, "variance 1: a batch's size changes nothing")
    )
    checks.append(report.correlation_check("noise of two runs", runs[0][0], runs[1][0]))
    return [
        *checks,
        *_drawn("noise", hardened=False),
        *_drawn("hardened noise", hardened=True),
        *_directions("noise", hardened=False),
        *_directions("hardened noise", hardened=True),
        _between_processes(),
    ]


def _drawn(name: str, *, hardened: bool) -> list[Check]:
    plan = replace(plan_of(1), hardened=hardened)
    mechanism = plan.mechanism(people.CLIP, PrivateStream())
    scale = SIGMA * people.CLIP * (1 + trainer.rounding_slack(plan.expected_batch))
    drawn = [mechanism.noise(DRAWN) / scale for _ in range(2)]
    return [
        *report.normality_checks(name, np.concatenate(drawn)),
        report.far_tails_check(name, mechanism.noise(FAR) / scale),
        report.correlation_check(f"{name} of two sums", *drawn),
        report.lags_check(f"{name} at any distance", np.stack(drawn)),
    ]


def _directions(name: str, *, hardened: bool) -> list[Check]:
    """Every sum of coordinates has its noise: none is left without by values that each look right."""
    plan = replace(plan_of(1), hardened=hardened)
    mechanism = plan.mechanism(people.CLIP, PrivateStream())
    scale = SIGMA * people.CLIP * (1 + trainer.rounding_slack(plan.expected_batch))
    drawn = np.stack([mechanism.noise(SHORT) for _ in range(SUMS)]) / scale
    place = np.arange(SHORT)
    along = {
        "all together": np.ones(SHORT),
        "every second one": np.where(place % 2, 1.0, -1.0),
        "one half against the other": np.where(place < SHORT // 2, 1.0, -1.0),
    }
    return [
        report.variance_check(f"{name} of {words}", drawn @ way / np.sqrt(SHORT), "variance 1 in this direction")
        for words, way in along.items()
    ]


def _pure_noise(steps: int, silent: int = 0) -> tuple[Vector, FlatParameters]:
    """An update without any gradient in it, in units of its promised standard deviation.

    ``silent``: so many consumers with one event each are there and sampled; there is nothing to learn from them.
    """
    config, plan = people.config_of(people.MODELS["lstm"]), plan_of(steps)
    chosen = people.encoded(people.people()).take(np.zeros(silent, dtype=np.intp))  # the first one has one event
    nobody = people.batches_of(chosen, config)
    engine = models.make_engine(people.model_of(config), nobody, config, "fast", MICRO_BATCH)
    update = trainer.train_locally(engine, engine.parameters.numpy(), plan, PrivateStream()).update.astype(
        np.float64
    )
    sensitivity_ = people.CLIP * (1 + trainer.rounding_slack(plan.expected_batch))
    promised = plan.noise_multiplier * sensitivity_ / plan.expected_batch * np.sqrt(steps)
    return update / promised, engine.parameters


def _between_processes() -> Check:
    """A forked process does not repeat its parent's stream, and two streams made at once are two."""
    stream, other = PrivateStream(), PrivateStream()
    stream.gaussian(10), other.gaussian(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child leaves at once
        os.write(writer, stream.gaussian(2_000).tobytes())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = np.frombuffer(pipe.read())
    os.waitpid(child, 0)
    ours, twin = stream.gaussian(2_000), other.gaussian(2_000)
    worst = max((report.correlation_check("", ours, x) for x in (theirs, twin)), key=lambda check: check.seen)
    return Check("noise of another process", worst.passed, worst.seen, worst.limit, worst.meaning)


class _Recorder:
    """An engine that remembers whom the trainer sampled, and adds nothing."""

    def __init__(self, consumers: int) -> None:
        self.parameters = FlatParameters(torch.nn.Linear(2, 2))
        self.consumers, self.clip = consumers, people.CLIP
        self.batches: list[NDArray[np.int64]] = []

    def clipped_sum(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, GradientDiagnostics]:
        self.batches.append(rows.copy())
        return torch.zeros(self.parameters.layout.size, dtype=torch.float64), GradientDiagnostics(empty(), empty())


def sampling() -> list[Check]:
    """Batches are Poisson samples of everybody, drawn anew in every step: rate to half a percent, right spread."""
    rate, level = 0.1, float(stats.norm.ppf(1 - report.LEVEL / 2))
    many = _batches(MANY, STEPS, rate)
    sizes = np.array([len(rows) for rows in many], dtype=np.float64)
    mean = (sizes.sum() - STEPS * MANY * rate) / np.sqrt(STEPS * MANY * rate * (1 - rate))
    again = np.array([len(np.intersect1d(a, b)) for a, b in pairwise(many)], dtype=np.float64)
    overlap = (again.sum() - len(again) * MANY * rate**2) / np.sqrt(len(again) * MANY * rate**2)
    there = np.full((STEPS, MANY), -rate)
    for step, rows in enumerate(many):
        there[step, rows] = 1 - rate
    there /= np.sqrt(rate * (1 - rate))
    each = there.sum(axis=0) / np.sqrt(STEPS)
    alike = STEPS - len({rows.tobytes() for rows in many})
    return [
        report.at_most("sampling rate", abs(mean), level, "mean batch size, in deviations (half a percent shows)"),
        *(_sizes(consumers, rate) for consumers in (3, 100)),
        report.at_most("batches of two steps", abs(overlap), level, "share drawn again, in deviations"),
        report.at_most("equal batches", alike, 0.0, "every step draws its own"),
        report.at_most("equal batches of two rounds", _again(rate), 0.0, "every round draws its own"),
        report.lags_check("sampled together", there),
        report.variance_check("sampling of every consumer", each, "each as often as the others"),
    ]


def _again(rate: float) -> int:
    """How many batches of a round were drawn in the round before it."""
    first, second = ({rows.tobytes() for rows in _batches(1_000, 5, rate)} for _ in range(2))
    return len(first & second)


def _sizes(consumers: int, rate: float) -> Check:
    """Batch sizes are binomial, and a batch may be empty: drawing it again would tell that somebody is there."""
    counts = np.bincount([len(rows) for rows in _batches(consumers, 3_000, rate)], minlength=consumers + 1)
    chances = stats.binom.pmf(np.arange(len(counts)), consumers, rate)
    return report.frequencies_check(f"batch sizes of {consumers}", counts, chances, "binomial")


def _batches(consumers: int, steps: int, rate: float) -> list[NDArray[np.int64]]:
    recorder = _Recorder(consumers)
    trainer.train_locally(
        recorder, recorder.parameters.numpy(), plan_of(steps, sampling_rate=rate), PrivateStream()
    )
    return recorder.batches


def accounts_for_its_draws() -> list[Check]:
    """What the mechanism says it did is what it drew."""
    mechanism = plan_of(3, noise_multiplier=1.7).mechanism(1.0, PrivateStream())
    for _ in range(3):
        mechanism.sample(0.1, 10)
        mechanism.noise(5)
    (event,) = mechanism.events()
    said = (event.noise_multiplier, event.sampling_rate, event.steps)
    return [report.holds("events of the draws", said == (1.7, 0.1, 3), "noise, rate and steps as drawn")]
