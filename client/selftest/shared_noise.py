"""Noise that several sites share: what is drawn, what a scratch site sends of it, and what it never sends twice.

A share of a sum's noise is a discrete Gaussian in the ring. A scratch site among five is asked as by a coordinator; what
opens, minus what it would be without noise, in units of the promised deviation, is standard normal in every coordinate.
"""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

import client.selftest.people as people
import client.selftest.report as report
import client.selftest.sessions as sessions
import client.selftest.shares as shares
import common.secagg.fixedpoint as fixedpoint
from client.selftest.report import Check, Vector
from common.contribution import METRICS, TRAIN, UPDATE

NOISE = (0.25, 1.0)  # own multipliers of training, as small as there is a delta for, and of metrics
MARKET = people.Market(others=(1_024, 512, 512, 512), stocked=30)
LARGEST = 1_024 * 0.8  # training consumers of the site by whose batch all sums are divided
SETTINGS: dict[str, Any] = {
    "model": {"heads": {"next-item": 1.0, "next-event": 0.3}},
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "rounds": 200},
    "privacy": {"trust": "quorum", "colluders": 1, "honest": 3, "sampling_rate": 1.0, "epsilon": 1000.0},
    "aggregation": {"threshold": 4},
}


def noise() -> list[Check]:
    """Everything about the draw and the answer; see the functions below."""
    return [*shares.draws(), *shares.mechanism(), *whole_answer(), *sampled(), *memory_only(), *attempts()]


def whole_answer() -> list[Check]:
    """With nobody and with three hundred: what opens is the clipped sum and its noise, items that are not stocked included."""
    checks, first = [], []
    for consumers, rounds in ((0, 8), (300, 4)):
        log = people.people(consumers, seed=consumers) if consumers else None
        with people.scratch_site(log, SETTINGS, NOISE, market=MARKET) as scratch:
            exact = _without_noise(scratch)
            opened = np.stack([_opened(scratch, number) for number in range(1, rounds + 1)])
            metrics = (np.stack([_answer(scratch)[METRICS] for _ in range(60)]) - exact.metrics) / exact.of_metrics
        update = (opened[:, : len(exact.update)] - exact.update) / exact.of_update
        shown = (opened[:, len(exact.update) :] - exact.metrics) / exact.of_metrics
        who, stocked = f"{consumers} consumers", exact.stocked
        first.append(update[0])
        checks += [
            report.variance_check(f"shared update of {who}", update[:, stocked].ravel(), "variance 1 in promised units, opened"),
            report.variance_check(f"items that are not stocked, {who}", update[:, ~stocked].ravel(), "variance 1 there too"),
            report.coordinates_check(f"every coordinate of {who}", update, "none goes without"),
            report.variance_check(f"shared metrics of {who}", shown.ravel(), "variance 1 in promised units, opened"),
            report.coordinates_check(f"every metric of {who}", metrics, "none goes without"),
            report.variance_check(f"many shared metrics of {who}", metrics.ravel(), "variance 1 in promised units"),
            report.correlation_check(f"shared rounds of {who}", update[0], update[1]),
            report.lags_check(f"rounds of {who} at any distance", update),
        ]  # fmt: skip
    return [*checks, report.correlation_check("the same round of two sites", *first)]


@dataclasses.dataclass(frozen=True)
class _Exact:
    """What an answer would be without noise, the promised deviations of the own share, and the coordinates that are stocked."""

    update: Vector
    metrics: Vector
    of_update: float
    of_metrics: float
    stocked: NDArray[np.bool_]


def _without_noise(scratch: people.Scratch) -> _Exact:
    from client.models import engine_of, measured_of
    from client.training.evaluation import metric_sums
    from common.run import PerformanceSettings
    from common.tasks import metric_sensitivity

    site, plan, model = scratch.site, scratch.plan, _model(scratch)
    rows, engine = engine_of(site, plan, PerformanceSettings())
    engine.parameters.load(rows.restrict(model))
    total, _ = engine.clipped_sum(np.arange(engine.consumers))
    return _Exact(
        update=rows.expand(total.numpy().astype(np.float64)) / -LARGEST,
        metrics=metric_sums(*measured_of(site, plan, model, TRAIN)),
        of_update=NOISE[0] * people.CLIP / LARGEST,
        of_metrics=NOISE[1] * metric_sensitivity(list(plan.config.model.heads)),
        stocked=np.asarray(rows.expand(np.ones(len(rows.index))) > 0),
    )


def _model(scratch: people.Scratch) -> NDArray[np.float32]:
    return (0.3 * np.random.default_rng(1).normal(size=scratch.plan.parameters)).astype(np.float32)


def _opened(scratch: people.Scratch, number: int) -> Vector:
    ring = sessions.Round(scratch, sessions.asked(scratch, number, _model(scratch))).opened()
    found: Vector = fixedpoint.decode(ring, scratch.plan.blocks(TRAIN))
    return found


def _answer(scratch: people.Scratch) -> dict[str, Vector]:
    """The blocks of an answer, decoded, without a session around it; metrics alone where nobody is trained on."""
    from client.site import Question
    from client.tasks.behaviour import evaluate, train
    from common.contribution import Query
    from common.run import model_digest

    plan, model = scratch.plan, _model(scratch)
    question = Question(Query(TRAIN, plan.run, 1, plan.to_json(), model_digest(model)), plan, model)
    whole = plan.config.privacy.sampling_rate < 1
    releases = (train if whole else evaluate)(scratch.site, question)
    blocks = {block.name: block for block in plan.blocks(TRAIN)}
    return {one.name: fixedpoint.decode(one.vector.astype(np.uint32), (blocks[one.name],)) for one in releases}


def sampled() -> list[Check]:
    """A single consumer is in a sum as often as the rate says, and not in every one: along the own gradient it shows."""
    settings = {**SETTINGS, "privacy": {**SETTINGS["privacy"], "sampling_rate": 0.5}}
    answers, seen = 60, 0
    for number in range(1, 20):  # under one of these keys the consumer is not held out
        with people.scratch_site(_one(), settings, NOISE, bytes([number]) * 32, MARKET) as scratch:
            along = _along_the_gradient(scratch)
            if along is None:
                continue
            seen = sum(float(_answer(scratch)[UPDATE] @ along) > 2 for _ in range(answers))
            break
    return [
        report.at_most(
            "one consumer in a shared sum", shares.deviations(seen, answers, 0.5), 5.5, "in half of the sums"
        )
    ]


def _one() -> people.EventLog:
    log = people.people(3)
    return people.without(people.without(log, 1), 2)


def _along_the_gradient(scratch: people.Scratch) -> Vector | None:
    """What makes one number of an answer: 4 where the consumer is in the sum, else 0, and standard normal noise."""
    from client.models import engine_of
    from common.run import PerformanceSettings

    rows, engine = engine_of(scratch.site, scratch.plan, PerformanceSettings())
    if not engine.consumers:
        return None
    engine.parameters.load(rows.restrict(_model(scratch)))
    gradient = rows.expand(engine.clipped_sum(np.arange(1))[0].numpy().astype(np.float64))
    found: Vector = gradient / -np.linalg.norm(gradient) * (LARGEST * 0.5) / (NOISE[0] * people.CLIP)
    return found


def memory_only() -> list[Check]:
    """The ring lives in memory until it is masked: no file of the site holds a part of it, in bytes or as text."""
    from client.guard import outbox_digest

    with people.scratch_site(None, SETTINGS, NOISE, market=MARKET) as scratch:
        round_ = sessions.Round(scratch, sessions.asked(scratch, 1, _model(scratch)))
        ring = round_.memory.ring
        on_disk = [_files(scratch)]
        waiting = [data for name, data in on_disk[0].items() if name.endswith(".contribution")]
        digest = outbox_digest(ring)
        while round_.step_from("share", "accept", "mask"):
            on_disk.append(_files(scratch))
        masked = round_.memory.ring
        round_.opened()
        on_disk.append(_files(scratch))
    written = (ring, ring.hex().encode(), base64.b64encode(ring))
    pieces = [text[start : start + 24] for text in written for start in range(0, len(text) - 24, 24)]
    kept = any(piece in data for files in on_disk for data in files.values() for piece in pieces)
    return [
        report.holds("the ring of a share", len(ring) > 4_000, "waits in memory"),
        report.holds("the ring on the disk", not kept, "no file of the site holds a part of it, in any exchange"),
        report.holds("the outbox of a share", waiting == [outbox_digest(digest) + digest], "holds a digest only"),
        report.holds("the ring after it was masked", not masked, "is forgotten"),
    ]


def _files(scratch: people.Scratch) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in scratch.site.kit.path.rglob("*") if path.is_file()}


def attempts() -> list[Check]:
    """Another attempt computes anew: the older ring can leave no more, its reservation is given back, noise is fresh."""
    with people.scratch_site(None, SETTINGS, NOISE, market=MARKET) as scratch:
        model = _model(scratch)
        first = sessions.Round(scratch, sessions.asked(scratch, 1, model))
        while first.step_from("share", "accept"):
            pass
        older = first.memory.ring
        second = sessions.Round(scratch, sessions.asked(scratch, 1, model, attempt=2))
        status = scratch.site.guard().status()
        newer = second.memory.ring
        refused = not _leaves(first)
        opened = second.opened()
        after = scratch.site.guard().status()
        sent_again = _leaves(sessions.Round(scratch, sessions.asked(scratch, 2, model)), older)
        turned = older[4:] + older[:4]
        other_sent = _leaves(sessions.Round(scratch, sessions.asked(scratch, 3, model)), turned)
    scale = 2.0 ** scratch.plan.blocks(TRAIN)[0].noise_bits
    pair = [
        np.frombuffer(ring, dtype=np.int32).astype(np.float64)[: scratch.plan.parameters] / scale
        for ring in (older, newer)
    ]
    counts = (status.void, status.open, after.committed, after.open)
    return [
        report.holds("an earlier attempt's ring", refused, "never leaves after a new attempt"),
        report.holds("another round with a ring of before", not sent_again, "does not leave"),
        report.holds("a ring that was not noted", not other_sent, "does not leave"),
        report.holds("an earlier attempt's reservation", counts == (1, 1, 1, 0), "is given back, the new one stands"),
        report.holds("what a new attempt sends", opened.tobytes() == newer, "is what it drew"),
        report.correlation_check("noise of two attempts", *pair),
    ]  # fmt: skip


def _leaves(round_: sessions.Round, ring: bytes = b"") -> bool:
    """Whether the masked vector leaves, of another ring if one is given."""
    from common.errors import FedcartError

    if ring:
        round_.memory = dataclasses.replace(round_.memory, ring=ring)
    try:
        while round_.step_from("share", "accept", "mask"):
            pass
    except FedcartError:
        return False
    return True
