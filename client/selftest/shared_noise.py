"""Noise that several sites share: what is drawn, what a scratch site sends of it, and what it never sends twice.

A share of a sum's noise is a discrete Gaussian in the ring. A scratch site among five is asked as by a coordinator; what
opens, minus what it would be without noise, in units of the promised deviation, is standard normal in every coordinate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

import client.selftest.people as people
import client.selftest.report as report
import client.selftest.sessions as sessions
import common.secagg.fixedpoint as fixedpoint
from client.selftest.report import Check, Vector
from client.training.discrete_gaussian import bell_height, draw, table_of
from client.training.quorum import QuorumMechanism, Share
from common.contribution import METRICS, TRAIN, UPDATE, Block
from common.privacy import TRAIN_SIDE, PrivacyEvent, Quorum, noised_grid, to_ring
from common.trust.randomness import PrivateStream, SeededStream

NOISE = (0.25, 1.0)  # own multipliers of training, as small as there is a delta for, and of metrics
MARKET = people.Market(others=(1_024, 512, 512, 512), stocked=30)
LARGEST = 1_024 * 0.8  # training consumers of the site by whose batch all sums are divided
COUNTED_ON = Quorum(sites=5, threshold=4, colluders=1, honest=3)
SETTINGS: dict[str, Any] = {
    "model": {"heads": {"next-item": 1.0, "next-event": 0.3}},
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "rounds": 200},
    "privacy": {"trust": "quorum", "colluders": 1, "honest": 3, "sampling_rate": 1.0, "epsilon": 1000.0},
    "aggregation": {"threshold": 4},
}
DRAWN, FAR = 1 << 18, 1 << 22
ALL_BITS = range(8, 21)


def noise() -> list[Check]:
    """Everything about the draw and the answer; see the functions below."""
    return [*draws(), *mechanism(), *whole_answer(), *sampled(), *memory_only(), *attempts()]


def draws() -> list[Check]:
    """The table's probabilities one by one, the low bits, the whole distribution to its tails, and independence."""
    checks = [_table(8), _exact(8), *(_spread(bits) for bits in ALL_BITS)]
    for bits in (8, 20):
        numbers = draw(PrivateStream(), bits, DRAWN)
        smooth = (numbers + PrivateStream().uniform(DRAWN) - 0.5) / 2**bits
        checks += report.normality_checks(f"a share of 2**{bits} units", smooth)
        low = np.bincount(numbers & 15, minlength=16)
        checks.append(
            report.frequencies_check(f"low bits of 2**{bits} units", low, np.full(16, 1 / 16), "uniform")
        )
    two = [draw(PrivateStream(), 16, DRAWN) / 2.0**16 for _ in range(2)]
    far = draw(PrivateStream(), 14, FAR) / 2.0**14
    return [
        *checks,
        report.far_tails_check("a share", far),
        report.variance_check("the end of a long share", far[-DRAWN:], "variance 1 there too"),
        report.correlation_check("two shares", *two),
        report.lags_check("a share at any distance", np.stack(two)),
    ]


def _table(bits: int) -> Check:
    """Relative error of the probability of every number: from the columns as they are drawn from, not as they are named."""
    table, reach = table_of(bits), 12 << bits
    weights = np.zeros(len(table.threshold))
    np.add.at(weights, np.arange(len(weights)), table.threshold.astype(np.float64))
    np.add.at(weights, table.alias, 2.0**52 - table.threshold.astype(np.float64))
    numbers = np.arange(-reach, reach)
    step = (numbers >> (bits - 7)) + (12 << 7)
    near = np.abs(numbers) < reach // 2  # a sum of doubles has too few digits for weights further out
    chance = (weights[step] * bell_height(table, numbers, step))[near]
    bell = np.exp(-((numbers[near] / 2.0**bits) ** 2) / 2)
    ratio = chance / bell
    return report.at_most(
        "probabilities of a share", float(np.ptp(ratio) / ratio.mean()), 1e-9, "those of the bell, each"
    )


def _exact(bits: int) -> Check:
    """How often each number comes."""
    most = 5 << bits
    numbers = np.clip(draw(PrivateStream(), bits, DRAWN), -most, most)
    bell = np.exp(-((np.arange(-(12 << bits), 12 << bits) / 2.0**bits) ** 2) / 2)
    centre = 12 << bits
    inner = bell[centre - most : centre + most + 1].copy()
    inner[0], inner[-1] = bell[: centre - most + 1].sum(), bell[centre + most :].sum()
    counts = np.bincount(numbers + most, minlength=len(inner))
    return report.frequencies_check(f"numbers of 2**{bits} units", counts, inner / bell.sum(), "those of the bell")


def _spread(bits: int) -> Check:
    drawn = draw(PrivateStream(), bits, 1 << 15) / 2.0**bits
    return report.variance_check(f"deviation of 2**{bits} units", drawn, "variance 1 in units of the block")


def mechanism() -> list[Check]:
    """One release: clamped, rounded without bias, then noised; what it says it did is what it did."""
    length = 1 << 15
    share = _share(length, multiplier=1.3)
    block = share.block
    limit = block.limit
    far = QuorumMechanism(share, PrivateStream()).release(np.full(length, -1e30))
    beyond = (far.vector.view(np.int32).astype(np.float64) + limit) / 2.0**block.noise_bits
    sampling = QuorumMechanism(share, PrivateStream())
    who, again = sampling.sample(0.2, 50_000), QuorumMechanism(share, PrivateStream()).sample(0.2, 50_000)
    said = sampling.release(np.zeros(length)).events
    return [
        *report.normality_checks("noise of a sum at its limit", beyond + (PrivateStream().uniform(length) - 0.5) / 2.0**block.noise_bits),
        report.at_most("consumers of a shared sum", _deviations(len(who), 50_000, 0.2), 5.5, "Poisson, in deviations"),
        report.at_most("consumers of two sums", _deviations(len(np.intersect1d(who, again)), 50_000, 0.04), 5.5, "drawn anew"),
        report.holds("what is noted of a share", said == (_event(1.3, 0.2),), "noise, rate, honest and colluding sites as planned"),
        report.holds("what is noted of everybody", far.events == (_event(1.3, 1.0),), "a sum of all has no sampling"),
        *_honest_about_less(share),
        _unbiased(share),
    ]  # fmt: skip


def _share(length: int, multiplier: float) -> Share:
    grid = noised_grid(sites=5, length=length, sensitivity=0.3, limit=15.0, multiplier=multiplier)
    block = Block(UPDATE, length, 15.0, 0, grid.unit, grid.log2_sigma)
    return Share(block, 0.3, multiplier, COUNTED_ON, TRAIN_SIDE)


def _event(multiplier: float, rate: float) -> PrivacyEvent:
    return PrivacyEvent(multiplier, rate, 1, TRAIN_SIDE, honest=3, colluders=1)


def _deviations(seen: int, of: int, rate: float) -> float:
    return float(abs(seen - of * rate) / np.sqrt(of * rate * (1 - rate)))


def _honest_about_less(share: Share) -> list[Check]:
    """A grid that carries less noise than was planned is told by the event; its slack for rounding counts."""
    from common.errors import LocalProtocolError

    nothing = np.zeros(share.block.length)
    less = dataclasses.replace(share, multiplier=share.multiplier * 1.0005)
    (told,) = QuorumMechanism(less, PrivateStream()).release(nothing).events
    coarse = dataclasses.replace(share.block, unit=share.block.unit * 1e4, noise_bits=8)
    loose = dataclasses.replace(share, block=coarse, multiplier=1e-3)
    moved = 0.3 / coarse.unit  # units, before rounding: without a slack so much noise would be claimed
    claimed = QuorumMechanism(dataclasses.replace(loose, multiplier=256 / moved), PrivateStream())
    (rounded,) = claimed.release(nothing).events
    bare = 256 / np.sqrt(moved**2 + share.block.length / 4)
    known = QuorumMechanism(share, SeededStream(1)).release(nothing).events
    twice = QuorumMechanism(share, PrivateStream())
    twice.release(nothing)
    try:
        twice.release(nothing)
        refused = False
    except LocalProtocolError:
        refused = True
    return [
        report.holds("less noise than planned", told.noise_multiplier < less.multiplier, "is noted, and refused by the guard"),
        report.at_most("noise after rounding", rounded.noise_multiplier, bare, "less than before rounding moved neighbours apart"),
        report.holds("noise that can be known", known == (), "nothing is claimed for it"),
        report.holds("a share serves one release", refused, "the second is refused"),
    ]  # fmt: skip


def _unbiased(share: Share) -> Check:
    """Rounding keeps the mean of a value between two units."""
    values = np.full(share.block.length, share.block.unit / 3)
    ring = to_ring(values, share.grid, PrivateStream(), np.zeros(len(values), dtype=np.int64))
    seen = abs(float(np.mean(ring.view(np.int32))) - 1 / 3) * np.sqrt(len(values) / (2 / 9))
    return report.at_most("rounding of a sum", seen, 5.5, "keeps the mean, in deviations")


def whole_answer() -> list[Check]:
    """With nobody and with three hundred: what opens is the clipped sum and its noise, items that are not stocked included."""
    checks = []
    for consumers, rounds in ((0, 8), (300, 4)):
        log = people.people(consumers, seed=consumers) if consumers else None
        with people.scratch_site(log, SETTINGS, NOISE, market=MARKET) as scratch:
            exact = _without_noise(scratch)
            opened = np.stack([_opened(scratch, number) for number in range(1, rounds + 1)])
            metrics = (np.stack([_answer(scratch)[METRICS] for _ in range(60)]) - exact.metrics) / exact.of_metrics
        update = (opened[:, : len(exact.update)] - exact.update) / exact.of_update
        shown = (opened[:, len(exact.update) :] - exact.metrics) / exact.of_metrics
        who, stocked = f"{consumers} consumers", exact.stocked
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
    return checks


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
        report.at_most("one consumer in a shared sum", _deviations(seen, answers, 0.5), 5.5, "in half of the sums")
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
    """The ring lives in memory until it is masked: no file of the site holds a part of it, and nothing is left behind."""
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
    pieces = [ring[start : start + 16] for start in range(0, len(ring) - 16, 16)]
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
    scale = 2.0 ** scratch.plan.blocks(TRAIN)[0].noise_bits
    pair = [
        np.frombuffer(ring, dtype=np.int32).astype(np.float64)[: scratch.plan.parameters] / scale
        for ring in (older, newer)
    ]
    counts = (status.void, status.open, after.committed, after.open)
    return [
        report.holds("an earlier attempt's ring", refused, "never leaves after a new attempt"),
        report.holds("another round with a ring of before", not sent_again, "is not what was noted"),
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
