"""Planted bugs in what a site computes: what ran is not what was charged, so nothing leaves and the charge stays.

Where the account itself cannot see a bug (noise made smaller after it was drawn, weights or candidates taken from
data), the released numbers show it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client import answers, session
from client.guard import ChargedError
from client.site import Site
from client.tasks import series
from client.tasks.purchases import Purchases
from client.training import evaluation, trainer
from client.training.dpsgd.engine import TapeEngine
from client.training.gaussian import GaussianMechanism, Noise
from common.contribution import METRICS, UPDATE
from common.errors import LocalProtocolError
from common.model.heads import public_negatives
from common.privacy.mechanism import TRAIN_SIDE
from common.trust import randomness
from common.trust.randomness import PrivateStream, RandomStream, SeededStream
from tests.client.conftest import coordinator, site  # noqa: F401 - fixtures
from tests.client.test_session import SPEED
from tests.common.run.test_plan import make_plan
from tests.dpsgd_samples import batcher_of, model_of
from tests.scripted_coordinator import Coordinator

Plant = Callable[[pytest.MonkeyPatch], None]


def other_plan(**changes: Callable[[Any], Any]) -> Plant:
    """Training with other constants than the charged ones."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        true = trainer.local_plan

        def planted(*arguments: Any, **named: Any) -> trainer.LocalPlan:
            plan = true(*arguments, **named)
            return dataclasses.replace(plan, **{k: change(getattr(plan, k)) for k, change in changes.items()})

        patch.setattr(trainer, "local_plan", planted)

    return plant


def other_metric_noise(factor: float) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        true = evaluation.evaluate
        patch.setattr(
            evaluation,
            "evaluate",
            lambda model, holdout, asked, stream: true(
                model, holdout, dataclasses.replace(asked, multiplier=asked.multiplier * factor), stream
            ),
        )

    return plant


def seeded_streams(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(randomness, "PrivateStream", lambda: SeededStream(1))


def seeded_stream_for_metrics(patch: pytest.MonkeyPatch) -> None:
    true = evaluation.evaluate
    patch.setattr(
        evaluation,
        "evaluate",
        lambda model, holdout, noise, _stream: true(model, holdout, noise, SeededStream(1)),
    )


def one_step_without_noise(patch: pytest.MonkeyPatch) -> None:
    true = GaussianMechanism.noise

    def planted(self: GaussianMechanism, size: int) -> np.ndarray:
        return true(self, size) if self._steps else np.zeros(size)

    patch.setattr(GaussianMechanism, "noise", planted)


PLANTED: dict[str, Plant] = {
    "three times the steps": other_plan(steps=lambda n: 3 * n),
    "half the noise in training": other_plan(noise_multiplier=lambda s: s / 2),
    "no noise in training": other_plan(noise_multiplier=lambda _s: 0.0),
    "a higher sampling rate": other_plan(sampling_rate=lambda q: 2 * q),
    "half the noise on metrics": other_metric_noise(0.5),
    "no noise on metrics": other_metric_noise(0.0),
    "seeded streams": seeded_streams,
    "a seeded stream for metrics": seeded_stream_for_metrics,
    "one step without noise": one_step_without_noise,
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_not_charged_never_leaves_and_the_charge_stays(
    name: str,
    site: Site,  # noqa: F811
    coordinator: Coordinator,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PLANTED[name](monkeypatch)
    number = 80 + list(PLANTED).index(name)  # each session once: the fixture's kit is shared
    before = site.guard().status()
    with pytest.raises(ChargedError) as caught:
        session.advertise(site, coordinator.request(coordinator.query(number)), SPEED)
    assert isinstance(caught.value.cause, LocalProtocolError)
    after = site.guard().status()
    assert (after.forfeit, after.open) == (before.forfeit + 1, 0)
    assert after.epsilon > before.epsilon
    assert not [path for path in (site.kit.state / "outbox").glob("*") if path.is_file()]


def test_the_answer_of_the_true_code_costs_what_its_plan_says(site: Site, coordinator: Coordinator) -> None:  # noqa: F811
    question = session.verified_question(site, coordinator.request(coordinator.query(71)), SPEED)
    assert answers.answer(site, question).events == question.plan.events("train")


def test_the_weight_of_an_update_is_the_declared_one_whatever_the_site_holds(
    site: Site,  # noqa: F811
    coordinator: Coordinator,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ones(engine: Any, start: np.ndarray, *_: Any) -> trainer.LocalResult:
        return trainer.LocalResult(np.ones_like(start), (), trainer.LocalDiagnostics())

    monkeypatch.setattr(trainer, "train_locally", ones)
    populations = tuple((name, 4 * n if name != site.name else n) for name, n in coordinator.plan.populations)
    plan = dataclasses.replace(
        coordinator.plan, populations=populations
    )  # the others are larger: a weight below 1
    query = coordinator.query(72, plan=plan)
    question = session.verified_question(site, coordinator.request(query), SPEED)
    made = answers.answer(site, question)
    update = next(release for release in made.releases if release.name == UPDATE).vector
    declared = dict(populations)
    assert set(np.unique(update)) <= {0.0, declared[site.name] / max(declared.values())}


def test_metrics_are_noised_anew_each_time(site: Site, coordinator: Coordinator) -> None:  # noqa: F811
    question = session.verified_question(site, coordinator.request(coordinator.query(73)), SPEED)
    first, second = (
        next(r for r in answers.answer(site, question).releases if r.name == METRICS).vector for _ in range(2)
    )
    assert (first != second).all()


def noise_of(update: np.ndarray, engine: TapeEngine, start: np.ndarray, plan: trainer.LocalPlan) -> np.ndarray:
    """What one step of SGD at rate 1 over everybody added to the clipped sum."""
    engine.parameters.load(start)
    clean = engine.clipped_sum(np.arange(engine.consumers))[0].numpy()
    return -update * plan.expected_batch - clean


@pytest.mark.parametrize("micro_batch", [1, 64])
def test_noise_does_not_depend_on_the_number_of_micro_batches(micro_batch: int) -> None:
    plan = trainer.LocalPlan(12, 1.0, 1, 0.5, 3.0, "sgd", 1.0)
    engine = TapeEngine(model_of(torch.float32, 1), batcher_of([4] * 12, 1), plan.clip, micro_batch)
    start = engine.parameters.numpy()
    noise = noise_of(trainer.train_locally(engine, start, plan, PrivateStream()).update, engine, start, plan)
    assert noise.std() == pytest.approx(3.0 * 0.5, rel=5 / np.sqrt(2 * noise.size))


def test_a_batch_larger_than_expected_is_used_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomStream, "bernoulli", lambda _self, _p, n: np.ones(n, dtype=bool))
    plan = trainer.LocalPlan(12, 0.25, 1, 0.5, 1e-6, "sgd", 1.0)  # three expected, twelve come
    engine = TapeEngine(model_of(torch.float32, 1), batcher_of([4] * 12, 1), plan.clip)
    start = engine.parameters.numpy()
    result = trainer.train_locally(engine, start, plan, PrivateStream())
    assert result.diagnostics.batch_sizes == [12]
    assert np.abs(noise_of(result.update, engine, start, plan)).max() < 1e-4


@pytest.mark.parametrize("clip", [0.3, 2.5])
def test_noise_of_the_series_follows_the_clip(clip: float) -> None:
    plan = make_plan(task="sales", privacy__clip=clip, sales__start="2024-01-01", sales__periods=200)
    nothing = Purchases(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    release = series.noised_series(nothing, plan, PrivateStream())
    spread = plan.noise_multiplier * clip
    assert release.vector.std() == pytest.approx(spread, rel=5 / np.sqrt(2 * release.vector.size))
    assert release.events == plan.events("statistics")
    other = series.noised_series(nothing, plan, PrivateStream()).vector
    assert (other != release.vector).all()
    assert series.noised_series(nothing, plan, SeededStream(1)).events == ()


def test_candidates_of_a_sampled_softmax_are_public() -> None:
    """They are the same for every site and every batch, and training leaves them as they are."""
    wanted = public_negatives(15, 7, 1)
    for seed in (1, 2):
        model = model_of(torch.float32, seed, sampled_negatives=7)
        engine = TapeEngine(model, batcher_of([3, 9, 5], seed), 0.5)
        plan = trainer.LocalPlan(3, 1.0, 2, 0.5, 1.0, "sgd", 0.1)
        trainer.train_locally(engine, engine.parameters.numpy(), plan, PrivateStream())
        assert torch.equal(model.heads["next-item"].negatives, wanted)


def test_a_consumer_of_one_item_moves_the_other_candidates_too() -> None:
    """Negatives are not drawn from the batch: rows of public candidates get a gradient that no data has named."""
    model = model_of(torch.float32, 1, sampled_negatives=7, tied=False)
    engine = TapeEngine(model, batcher_of([6], 3, items=2), 10.0)  # item 1 and the unknown one only
    gradient = engine.clipped_sum(np.arange(1))[0].clone()
    offset, shape = engine.parameters.layout.entries["heads.next-item.linear.weight"]
    rows = gradient[offset : offset + int(np.prod(shape))].reshape(shape).abs().sum(dim=1)
    touched = set(torch.nonzero(rows).flatten().tolist())
    assert set(public_negatives(15, 7, 1).tolist()) <= touched


def test_a_guess_of_the_noise_is_not_an_event() -> None:
    assert GaussianMechanism(Noise(1.0, 1.0, (TRAIN_SIDE,)), SeededStream(3)).events() == ()
