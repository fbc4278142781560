"""The whole way of an answer: a scratch site is asked, and what waits in its outbox is what was promised.

The signed query goes through reservation, training, metrics, weight, fixed point and outbox, with nobody at the site and
with three hundred consumers. What lies there, minus what it would be without noise, in units of the promised deviation, is
standard normal.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import client.selftest.people as people
import client.selftest.report as report
import client.session as session
import common.secagg.fixedpoint as fixedpoint
from client.models import engine_of, measured_of
from client.selftest.report import Check, Vector
from client.site import Question
from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE, Query
from common.privacy import HOLDOUT_SIDE, TRAIN_SIDE, VALIDATION_SIDE
from common.run import PerformanceSettings, model_digest
from common.secagg.messages import PlainParams, Session

if TYPE_CHECKING:
    from common.data import ConsumerSequences

NOISE = (0.02, 1.0)  # of training, so small that a wrong consumer would show; of metrics
SETTINGS = {
    "model": {"heads": {"next-item": 1.0, "next-event": 0.3}},
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "rounds": 50},
    "privacy": {"sampling_rate": 1.0, "epsilon": 1000.0},
}
ROUNDS = 2


def ring() -> list[Check]:
    """Two rounds with nobody, two with three hundred: residuals, their independence, and the parts of the consumers."""
    checks = []
    for consumers in (0, 300):
        log = people.people(consumers, seed=consumers) if consumers else None
        with people.scratch_site(log, SETTINGS, NOISE) as scratch:
            found = [_residuals(scratch, number) for number in range(1, ROUNDS + 1)]
        who = f"{consumers} consumers"
        update = np.concatenate([one for one, _ in found])
        metrics = np.concatenate([two for _, two in found])
        checks.append(
            report.variance_check(f"update of {who}", update, "variance 1 in promised units, in the ring")
        )
        checks.append(
            report.variance_check(f"metrics of {who}", metrics, "variance 1 in promised units, in the ring")
        )
        checks.append(report.correlation_check(f"rounds of {who}", found[0][0], found[1][0]))
        checks.append(_steadfast(log, who))
    return [*checks, *_parts()]


def _steadfast(log: people.EventLog | None, who: str) -> Check:
    """A model that nobody can train answers like any other: what kind of answer it is tells nothing of who is there."""
    with people.scratch_site(log, SETTINGS, NOISE) as scratch:
        try:
            _vector(scratch, 1, np.full(scratch.plan.parameters, 3e38, dtype=np.float32))
            kind = ""
        except Exception as error:  # whatever it is, it would be seen
            kind = type(error).__name__
    return report.holds(f"a model out of bounds, {who}", not kind, "is answered with noise")


def _vector(scratch: people.Scratch, number: int, model: NDArray[np.float32]) -> Vector:
    """What waits in the outbox for a question about a model, decoded."""
    site, plan = scratch.site, scratch.plan
    question = Question(Query(TRAIN, plan.run, number, plan.to_json(), model_digest(model)), plan, model)
    alone = PlainParams(
        Session(plan.run, number, 1), (site.name,), question.query.digest(), site.roster.digest, bytes(32)
    )
    _, memory = session._prepare(site, question, {}, alone)
    waiting = np.frombuffer(session._waiting(site, memory).ring, dtype=np.uint32)
    decoded: Vector = fixedpoint.decode(waiting, plan.blocks(TRAIN))
    return decoded


def _residuals(scratch: people.Scratch, number: int) -> tuple[Vector, Vector]:
    """What waits in the outbox minus what no noise would have made of it, in promised deviations: update, metrics."""
    from client.training.evaluation import metric_sums
    from client.training.trainer import local_plan, rounding_slack

    site, plan = scratch.site, scratch.plan
    rng = np.random.default_rng(number)
    model = (0.3 * rng.normal(size=plan.parameters)).astype(np.float32)
    vector = _vector(scratch, number, model)
    parts = {block.name: vector[part] for block, part in fixedpoint.slices(plan.blocks(TRAIN))}
    rows, engine = engine_of(site, plan, PerformanceSettings())
    engine.parameters.load(rows.restrict(model))
    total, _ = engine.clipped_sum(np.arange(engine.consumers))
    constants = local_plan(
        plan.config, plan.population(site.name), plan.cohort, plan.noise_multiplier, plan.signal
    )
    divisor = plan.population(site.name) * 0.8 * 1.0  # declared, public: never how many there are
    local = rows.expand((-total / divisor).float().numpy()).astype(np.float64) * plan.weight(site.name)
    deviation = NOISE[0] * people.CLIP * (1 + rounding_slack(constants.expected_batch)) / divisor
    there = rows.expand(np.ones(len(total), dtype=np.float32)) > 0
    exact = metric_sums(*measured_of(site, plan, model, TRAIN))
    from common.tasks import metric_sensitivity

    scale = NOISE[1] * metric_sensitivity(list(plan.config.model.heads))
    return ((parts[UPDATE] - local) / deviation)[there], (parts[METRICS] - exact) / scale


def _parts() -> list[Check]:
    """Who is in which part follows from the key and the consumer; each is read for its purpose, and charged for that."""
    from common.data import holdout_mask, parts_of

    log = people.people(300, seed=300)
    secret = _key_of_unlike_parts(np.sort(people.encoded(log).consumers))
    with people.scratch_site(log, SETTINGS, NOISE, secret) as scratch:
        site, plan = scratch.site, scratch.plan
        parts = parts_of(site.prepared(plan).sides)
        trained, nothing = engine_of(site, plan, PerformanceSettings())[1].consumers, np.zeros(plan.parameters)
        looked = {
            kind: len(measured_of(site, plan, nothing.astype(np.float32), kind)[1]) for kind in (TRAIN, EVALUATE)
        }
        events = {kind: {e.sub_scope for e in plan.events(kind)} for kind in (TRAIN, EVALUATE)}
    everybody = np.sort(np.concatenate([part.consumers for part in parts]))
    held, chooses = (holdout_mask(everybody, secret, share) for share in (0.2, 0.1))
    with people.scratch_site(people.without(log, 7), SETTINGS, NOISE, secret) as scratch:
        fewer = parts_of(scratch.site.prepared(scratch.plan).sides)
    reported = set(everybody[held & ~chooses].tolist())
    charged = {TRAIN: {TRAIN_SIDE, VALIDATION_SIDE}, EVALUATE: {HOLDOUT_SIDE}}
    rows, alone = people.encoded(log), len(everybody) == len(set(everybody.tolist())) == 300
    by_key = all(_split_follows(rows, bytes([one]) * 32) for one in range(1, 17))
    return [
        _unmoved(people.one_buyer(people.people())),
        report.holds("a row each", alone, "nobody is stored twice"),
        report.holds("held out whatever they did", by_key, "by the key alone, under sixteen keys"),
        *_key(everybody, held, secret),
        report.holds("held out by key", _ids(parts[2]) == reported, "keyed hash of the consumer"),
        report.holds(
            "nobody changes sides",
            all(_ids(before) - {7} == _ids(after) for before, after in zip(parts, fewer, strict=True)),
            "when somebody else leaves",
        ),
        report.holds("trained on", trained == len(held) - held.sum(), "the training part, nobody else"),
        report.holds("chosen by", looked[TRAIN] == chooses.sum(), "the validation part, nobody else"),
        report.holds(
            "reported on", looked[EVALUATE] == len(reported), "the other held-out consumers, nobody else"
        ),
        report.holds("charged where it is read", events == charged, "each part for what reads it"),
    ]


def _key_of_unlike_parts(everybody: NDArray[np.uint64]) -> bytes:
    """A key under which the two held-out parts have different sizes: by their size they are told apart below."""
    from common.data import holdout_mask

    while True:
        key = secrets.token_bytes(32)
        held, chooses = (holdout_mask(everybody, key, share).sum() for share in (0.2, 0.1))
        if 2 * chooses != held:
            return key


def _unmoved(log: people.EventLog) -> Check:
    """What is read of a consumer follows from their own events and public settings, whatever is the same in all others'."""
    whole, rest = people.encoded(log), people.encoded(people.without(log, people.ALONE))
    others = whole.take(np.flatnonzero(whole.consumers != people.ALONE))
    same = np.array_equal(others.integers, rest.integers) and np.array_equal(others.numeric, rest.numeric)
    return report.holds("rows of everybody else", same, "stay as they are when somebody leaves")


def _split_follows(rows: people.ConsumerSequences, key: bytes) -> bool:
    from common.data import Split, holdout_mask, parts_of

    found = [_ids(part) for part in parts_of(Split(key, 0.5, 0.5).of(rows))]
    held, chooses = (holdout_mask(rows.consumers, key, share) for share in (0.5, 0.25))
    wanted = (~held, chooses, held & ~chooses)
    return found == [set(rows.consumers[mask].tolist()) for mask in wanted]


def _key(everybody: NDArray[np.uint64], held: NDArray[np.bool_], secret: bytes) -> list[Check]:
    """How many are held out, and that another key holds out others."""
    from common.data import holdout_mask

    many = holdout_mask(np.arange(10_000, dtype=np.uint64), secret, 0.2).sum()
    share = abs(many - 2_000) / np.sqrt(10_000 * 0.2 * 0.8)
    other = holdout_mask(everybody, bytes(32), 0.2)
    return [
        report.at_most("share held out", share, 5.0, "a fifth, in deviations"),
        report.holds("a secret choice", bool((other != held).any()), "another key holds out others"),
    ]


def _ids(part: ConsumerSequences) -> set[int]:
    return set(part.consumers.tolist())
