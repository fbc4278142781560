"""A personal model served live: the parts of a score, and intent by own trees, as the batch has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.anomalies.likelihood import surprise
from client.personal.behaviour import Personal
from client.personal.counts import count
from client.personal.file import PersonalFile
from client.personal.intent import TREES, PersonalIntent
from client.personal.mixture import Shares, install
from client.personal.trees import Trees
from client.scoring.model import OwnPart, open_model
from client.scoring.predict import WHAT, intent_scores, predict_next
from client.serving.live import LiveModel
from client.serving.loading import engine_of
from common.model import STEP_HEADS, asked_now
from common.model.intent_baselines import fitted_trees, intent_table
from tests.scoring_samples import market
from tests.serving_samples import KEY, make_live

pytestmark = pytest.mark.full
SHARES = Shares(0.4, 0.3, 0.2, 0.1)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A model whose step heads are mixed with own counts and whose intent is answered by own trees."""
    folder = tmp_path_factory.mktemp("model") / "m"
    make_live(folder)
    shared = open_model(folder)
    rows = shared.sequences(market().log)
    barred = torch.arange(shared.model.shape.sizes["item"]) % 7 == 3
    for head, feature in STEP_HEADS.items():
        counts = count(rows, head, shared.model.shape.sizes[feature])
        shares = SHARES if head == "next-item" else Shares(0.4, 0.6)
        install(shared.model, head, counts, shares, barred if head == "next-item" else None)
    table = intent_table(rows, asked_now(shared.plan.config, rows))
    labels = (np.arange(len(table)) % 3 == 0).astype(float)
    trees = Trees.of(*fitted_trees(table, labels), float(labels.mean()))
    nothing = np.zeros(0, dtype=np.float32)
    kept = PersonalFile("", Personal("shared", nothing, nothing > 0, nothing > 0), PersonalIntent(TREES, trees))
    shared = replace(shared, personal=OwnPart(kept, shared.model))
    live = LiveModel(shared, engine_of(shared), capacity=1_000, key=KEY)
    short = market().log.consumers[:30]
    live.warm(market().log.where(market().log.frame["consumer"].is_in(short.tolist())))
    return live, rows.take(np.isin(rows.consumers, short) & (rows.lengths < 40))


@pytest.mark.parametrize("what", list(WHAT))
def test_the_parts_of_a_mixed_score_sum_to_what_the_batch_says(mixed, what):
    live, rows = mixed
    wanted = predict_next(live.shared, rows, what, 4)
    for number, consumer in enumerate(rows.consumers.tolist()):
        found = live.next_items(consumer, 4, frozenset(), exclude_known=False) if what == "item" else (
            live.next_values(consumer, what, WHAT[what], 4)
        )  # fmt: skip
        np.testing.assert_allclose([one.share for one in found], wanted.probabilities[number], atol=1e-5)
        for one in found:
            assert sum(one.parts.values()) == pytest.approx(one.share, abs=1e-6)
        names = {"model", "transitions", "likeness", "again"} if what == "item" else {"model", "transitions"}
        assert set(found[0].parts) == names


def test_mixed_surprise_and_trees_are_those_of_the_batch(mixed):
    live, rows = mixed
    nats = np.nansum(surprise(live.shared, rows).nats, axis=1)
    asked = asked_now(live.shared.plan.config, rows, live.clock)
    wanted = intent_scores(live.shared, rows, asked)
    assert len(np.unique(wanted)) > 2
    for number, consumer in enumerate(rows.consumers.tolist()):
        part = nats[rows.offsets[number] + 1 : rows.offsets[number + 1]][-16:]
        np.testing.assert_allclose(live.known(consumer).recent, part, atol=1e-4, rtol=1e-5)
        assert live.intent(consumer) == pytest.approx(wanted[number], abs=1e-6)
