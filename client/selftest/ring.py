"""The whole way of an answer: a scratch site is asked, and what waits in its outbox is what was promised.

The signed query goes through reservation, training, metrics, weight, fixed point and outbox, with nobody at the site and
with three hundred consumers. What lies there, minus what it would be without noise, in units of the promised deviation, is
standard normal.
"""

from __future__ import annotations

import numpy as np

import client.selftest.people as people
import client.selftest.report as report
import client.session as session
from client.models import engine_of, holdout_of
from client.selftest.report import Check, Vector
from client.site import Question
from common.atomic import write_atomic
from common.contribution import DIGEST_BYTES, METRICS, TRAIN, UPDATE, Query
from common.privacy import HOLDOUT_SIDE, TRAIN_SIDE

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
    return [*checks, *_parts(), *_series()]


def _residuals(scratch: people.Scratch, number: int) -> tuple[Vector, Vector]:
    """What waits in the outbox minus what no noise would have made of it, in promised deviations: update, metrics."""
    from client.training.evaluation import metric_sums
    from client.training.trainer import local_plan, rounding_slack
    from common.plan import model_digest
    from common.secagg import fixedpoint
    from common.secagg.messages import PlainParams, Session

    site, plan = scratch.site, scratch.plan
    rng = np.random.default_rng(number)
    model = (0.3 * rng.normal(size=plan.parameters)).astype(np.float32)
    question = Question(Query(TRAIN, plan.run, number, plan.to_json(), model_digest(model)), plan, model)
    about = Session(plan.run, number, 1)
    alone = PlainParams(about, (site.name,), question.query.digest(), site.roster.digest, bytes(32))
    _, memory = session._prepare(site, question, {}, alone)
    blocks = plan.blocks(TRAIN)
    waiting = np.frombuffer(session._waiting(site, memory).ring, dtype=np.uint32)
    vector = fixedpoint.decode(waiting, blocks)
    parts = {block.name: vector[part] for block, part in fixedpoint.slices(blocks)}
    rows, engine = engine_of(site, plan, question.speed)
    engine.parameters.load(rows.restrict(model))
    total, _ = engine.clipped_sum(np.arange(engine.consumers))
    constants = local_plan(
        plan.config, plan.population(site.name), len(plan.sites), plan.noise_multiplier, plan.signal
    )
    divisor = plan.population(site.name) * 0.8 * 1.0  # declared, public: never how many there are
    local = rows.expand((-total / divisor).float().numpy()).astype(np.float64) * plan.weight(site.name)
    deviation = NOISE[0] * people.CLIP * (1 + rounding_slack(constants.expected_batch)) / divisor
    there = rows.expand(np.ones(len(total), dtype=np.float32)) > 0
    exact = metric_sums(*holdout_of(site, plan, model))
    from common.tasks.metric_sums import metric_sensitivity

    scale = NOISE[1] * metric_sensitivity(list(plan.config.model.heads))
    return ((parts[UPDATE] - local) / deviation)[there], (parts[METRICS] - exact) / scale


def _parts() -> list[Check]:
    """Who is held out follows from the key and the consumer, is not trained on, and is charged where it is read."""
    from common.data import holdout_mask

    log = people.people(300, seed=300)
    with people.scratch_site(log, SETTINGS, NOISE) as scratch:
        site, plan = scratch.site, scratch.plan
        both = site.prepared(plan)
        held = holdout_mask(np.sort(np.append(both.train.consumers, both.holdout.consumers)), site.secret(), 0.2)
        _, engine = engine_of(site, plan, Question(_any(plan), plan, np.zeros(0, dtype=np.float32)).speed)
        events = {kind: {e.sub_scope for e in plan.events(kind)} for kind in ("train", "evaluate")}
        secret = site.secret()
        trained, looked = (
            engine.consumers,
            len(holdout_of(site, plan, np.zeros(plan.parameters, dtype=np.float32))[1]),
        )
    with people.scratch_site(people.without(log, 7), SETTINGS, NOISE) as scratch:
        write_atomic(scratch.site.kit.consumers_key, secret, mode=0o600)
        fewer = scratch.site.prepared(scratch.plan)
    sides = set(both.holdout.consumers.tolist()) - {7} == set(fewer.holdout.consumers.tolist())
    return [
        report.holds(
            "held out by key",
            set(both.holdout.consumers.tolist()) == _held(both, held),
            "keyed hash of the consumer",
        ),
        report.holds("nobody changes sides", sides, "when somebody else leaves"),
        report.holds("trained on", trained == len(held) - held.sum(), "the training part, nobody else"),
        report.holds("evaluated on", looked == held.sum(), "the hold-out, nobody else"),
        report.holds(
            "charged where it is read",
            events == {"train": {TRAIN_SIDE, HOLDOUT_SIDE}, "evaluate": {HOLDOUT_SIDE}},
            "training, and the hold-out for metrics",
        ),
    ]


def _held(both: object, mask: np.ndarray) -> set[int]:
    everybody = np.sort(np.append(both.train.consumers, both.holdout.consumers))  # type: ignore[attr-defined]
    return set(everybody[mask].tolist())


def _any(plan: people.RunPlan) -> Query:
    return Query(TRAIN, plan.run, 1, plan.to_json(), bytes(DIGEST_BYTES))


def _series() -> list[Check]:
    """A sales series with nobody in it is noise of the promised size in every cell."""
    from client.tasks.series import noised_series
    from common.trust.randomness import PrivateStream

    config = people.build_config(
        {
            "task": "sales",
            "sales": {"start": "1970-01-01", "periods": 120, "categories": ["all"]},
            "privacy": {"clip": 2.0},
        }
    )
    plan = people.RunPlan("self-test", config.public_json(), (("self", 512),), "{}", 10, 1.5, 0.0)
    from client.tasks.purchases import Purchases

    nothing = Purchases(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    drawn = np.concatenate([noised_series(nothing, plan, PrivateStream()).vector for _ in range(20)]) / (1.5 * 2.0)
    return [report.variance_check("noise of a sales series", drawn, "variance 1 in promised units")]
