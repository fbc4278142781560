"""A site's own data on top: the better of alone and joined serves, measured on consumers that chose nothing."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import client.personal.tuning as tuning
from client.personal.behaviour import TUNED, Personal, Workshop, mixed_model, personalize
from client.personal.counts import count
from client.personal.mixture import MixedHead, Shares, best_shares, install
from client.personal.start import OwnConsumers, SharedStart
from client.personal.verdict import ALONE, PERSONAL, SHARED, clearly_better, figure_of
from client.site import load_site
from client.training.evaluation import metric_sums
from common.contribution import EVALUATE
from common.data import Sides
from common.errors import BadInputError
from common.model import Batcher, load_model
from common.model.rows import recent_items
from common.run import RunFolder
from tests.tiny_federation import run_tiny

pytestmark = pytest.mark.full


def quiet(*_: object) -> None:
    """Progress that nobody sees."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A run without noise and with it, and a site's own rows; trained long enough to know something."""
    out = tmp_path_factory.mktemp("own") / "run"
    run_tiny(out, "data.consumers=1500", "data.items=60", "privacy.enabled=false", "training.rounds=6", "training.local_steps=10",
             'model.heads={"next-item"=1.0,"next-event"=0.5,"next-category"=0.5}')  # fmt: skip
    folder = RunFolder.open(out)
    plan, vector = folder.plan(), load_model(out)[0]
    site = load_site(next(iter(sorted((out / "sites").iterdir()))), simulated=True)
    known = site.prepared(plan)
    start = SharedStart(plan, vector, known.mask)
    return start, OwnConsumers.of(known.sides, site.secret()), site, known


@pytest.fixture(scope="module")
def done(made):
    return personalize(made[0], made[1], quiet)


def test_the_personal_model_is_one_of_the_two_and_its_verdict_compares_the_same_consumers(done):
    assert done.personal.base in (ALONE, SHARED, TUNED)
    for verdict in done.verdicts:
        assert set(verdict.figures) == {ALONE, SHARED, PERSONAL}
        gain = verdict.figures[PERSONAL].value - verdict.figures[ALONE].value
        assert verdict.gain.value == pytest.approx(gain)
        assert verdict.gain.error < 2 * verdict.figures[ALONE].error + 1e-9


def test_shared_is_measured_as_the_run_measures_it(made, done):
    start, _own, site, known = made
    from client.models import measured_of

    sums = metric_sums(*measured_of(site, start.plan, start.vector, EVALUATE))
    stocked = known.sides.holdout.column("item")
    outside = (stocked > 0) & ~known.mask[stocked]
    recall = start.plan.summarise(sums)["recall@20"]
    shared = next(v for v in done.verdicts if v.metric == "recall@20").figures[SHARED].value
    if not outside.any():
        assert shared == pytest.approx(recall)
    else:
        assert shared <= recall + 0.02, "items that the model never learnt cannot be hit"


def test_where_the_shared_model_is_noise_the_site_keeps_its_own(made):
    start, own, _, _ = made
    rng = np.random.default_rng(0)
    noise = dataclasses.replace(start, vector=rng.normal(0, 3, start.vector.size).astype(np.float32))
    found = personalize(noise, own, quiet)
    first = found.verdicts[0]
    assert found.personal.base == ALONE
    assert first.figures[PERSONAL] == first.figures[ALONE]
    assert "joining brings you nothing" in first.words


def test_the_hold_out_decides_nothing(made, done):
    start, own, _, _ = made
    reversed_rows = own.holdout.take(np.arange(len(own.holdout))[: len(own.holdout) // 2])
    other = personalize(start, dataclasses.replace(own, holdout=reversed_rows), quiet)
    assert other.personal.base == done.personal.base
    assert other.personal.shares == done.personal.shares
    assert np.array_equal(other.personal.network, done.personal.network)


def test_slice_fit_and_hold_out_share_no_consumer(made):
    _, own, _, known = made
    parts = [set(part.consumers.tolist()) for part in (own.fit, own.choose, own.holdout)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert len(parts[0] | parts[1]) == len(known.sides.train)


def test_too_few_consumers_are_said_before_any_work(made):
    _, own, _, _ = made
    with pytest.raises(BadInputError, match="too few"):
        OwnConsumers.of(Sides(own.fit.take(np.arange(30)), own.choose, own.holdout), b"key")


def test_training_never_ends_below_where_it_began(made):
    start, own, _, _ = made
    done = personalize(start, own, quiet)
    shop = done.workshop
    model = shop.with_network(done.joined.network)

    def score(table):
        return float(shop.score(table).mean())

    before = score(tuning.measured(model, shop.batcher(shop.choose)))
    wild = tuning.Schedule(rate=10.0, epochs=2, patience=2)
    tuning.tuned(model, (shop.every_step(shop.fit), shop.batcher(shop.choose)), score, wild, quiet)
    assert score(tuning.measured(model, shop.batcher(shop.choose))) >= before


def test_a_mixture_is_the_weighted_mean_of_what_its_parts_say(made):
    start, own, _, _ = made
    mask = start.rows_with(own.fit)
    rows, model = start.network(mask, start.vector)
    from client.models import localize

    fit = localize(own.fit, rows)
    counts = count(fit, "next-item", len(rows.rows))
    batch = Batcher(fit, ["next-item"]).packed(np.arange(8))
    with torch.no_grad():
        hidden = model.hidden_states(batch)
        plain = torch.softmax(model.heads["next-item"].logits(hidden, batch), 1).numpy()
        install(model, "next-item", counts, Shares(0.5, 0.2, 0.2, 0.1))
        mixed = torch.softmax(model.heads["next-item"].logits(hidden, batch), 1).numpy()
        pieces = np.concatenate(
            [p.numpy().copy() for _, p in model.heads["next-item"].logits_in_pieces(hidden, batch)]
        )
    latest = batch.recent.numpy()
    again = np.tile(1e-3 * counts.popularity, (len(latest), 1))
    for row, item in zip(batch.seen_rows.tolist(), batch.seen_items.tolist(), strict=True):
        again[row, item] += counts.again[item]
    again /= again.sum(1, keepdims=True)
    expected = 0.5 * plain + 0.2 * counts.after(latest[:, 0]) + 0.2 * counts.alike(latest) + 0.1 * again
    assert np.allclose(mixed, expected / expected.sum(1, keepdims=True), atol=1e-5)
    assert np.allclose(torch.softmax(torch.from_numpy(pieces), 1).numpy(), mixed, atol=1e-5)
    assert isinstance(model.heads["next-item"], MixedHead)


def test_recent_items_are_those_of_the_row_newest_first():
    items = np.array([5, 0, 7, 5, 3, 0, 9, 0])
    assert recent_items(items, np.array([0, 4, 6, 8])).tolist() == [
        [5, 0, 0], [5, 0, 0], [7, 5, 0], [5, 7, 5], [3, 0, 0], [3, 0, 0], [9, 0, 0], [9, 0, 0],
    ]  # fmt: skip


def test_transitions_are_counted_within_a_row_only(made):
    _, own, _, _ = made
    few = own.fit.take(np.arange(5))
    counts = count(few, "next-event", 20)
    pairs = np.zeros((20, 20))
    events = few.column("event")
    for row in range(5):
        part = events[few.offsets[row] : few.offsets[row + 1]]
        for a, b in itertools.pairwise(part):
            pairs[a, b] += 1
    assert np.array_equal(counts.transitions.toarray(), pairs)
    assert np.allclose(counts.after(np.arange(20)).sum(1), 1.0)


def test_items_come_again_as_often_as_they_did_few_consumers_drawn_to_the_mean(made):
    _, own, _, _ = made
    few = own.fit.take(np.arange(40))
    counts, items = count(few, "next-item", 70), few.column("item")
    had, more = np.zeros(70), np.zeros(70)
    for row in range(40):
        part = items[few.offsets[row] : few.offsets[row + 1]]
        for item in set(part[part > 0].tolist()):
            had[item] += 1
            more[item] += (part == item).sum() - 1
    usual = more.sum() / had.sum()
    assert np.allclose(counts.again, (more + 5 * usual) / (had + 5), atol=1e-6)


def test_where_items_come_again_that_is_found():
    def measure(shares: Shares) -> np.ndarray:
        return np.full(4, -abs(shares.network - 0.4) - abs(shares.again - 0.42))

    found, _ = best_shares(measure, True)
    assert (found.network, round(found.again, 2)) == (0.4, 0.42)
    assert round(found.transitions + found.likeness, 2) == 0.18


def test_the_best_shares_are_those_with_the_highest_mean():
    def measure(shares: Shares) -> np.ndarray:
        return np.full(4, -abs(shares.network - 0.6) - abs(shares.likeness - 0.28))

    found, scores = best_shares(measure, True)
    assert (found.network, round(found.likeness, 2)) == (0.6, 0.28)
    assert scores.mean() == pytest.approx(0.0)


def test_a_small_gain_of_few_consumers_is_not_clear():
    rng = np.random.default_rng(1)
    base = rng.normal(size=400)
    assert not clearly_better(base, base)
    assert clearly_better(base + 0.2, base)
    assert not clearly_better(base - 0.01 + rng.normal(0, 1e-6, 400), base)
    assert np.isnan(figure_of(np.zeros(0)).value)


def test_a_personal_model_answers_as_it_was_measured(made, done):
    shop, personal = done.workshop, done.personal
    _rows, model = made[0].network(personal.mask, None)
    from common.model import FlatParameters

    FlatParameters(model).load(personal.network)
    again = tuning.measured(mixed_model(model, personal), shop.batcher(shop.holdout))
    assert np.allclose(again, shop.holdout_table(shop.served(personal)))
    assert isinstance(personal, Personal)


def test_more_hits_win_over_better_ranks_of_fewer(made):
    shop = Workshop(made[0], made[1], quiet)
    hits, ranks = shop.names.index("recall@20"), shop.names.index("mrr@20")
    many, few = (np.zeros((10, len(shop.names))) for _ in range(2))
    many[:, 0] = few[:, 0] = 1.0
    many[:4, hits], many[:4, ranks] = 1.0, 0.1  # four hits at rank ten
    few[:3, hits], few[:3, ranks] = 1.0, 1.0  # three at rank one
    assert shop.score(many, "next-item").mean() > shop.score(few, "next-item").mean()
    few[:4, hits] = 1.0
    assert shop.score(many, "next-item").mean() < shop.score(few, "next-item").mean()


def test_choices_are_made_by_the_consumers_by_whom_the_run_chose_where_they_are_enough(made):
    _, _, site, known = made
    sides = known.sides
    few = OwnConsumers.of(sides, site.secret())
    assert not few.validation and len(few.fit) < len(sides.train)  # a slice of the training rows
    many = Sides(sides.train, sides.train.take(np.arange(len(sides.train) // 3)), sides.holdout)
    own = OwnConsumers.of(many, site.secret())
    assert own.validation and len(own.fit) == len(sides.train)
    assert own.choose.consumers.tolist() == many.validation.consumers.tolist()
    for one in (few, own):
        chosen_by = {*one.fit.consumers.tolist(), *one.choose.consumers.tolist()}
        assert not chosen_by & set(sides.holdout.consumers.tolist())
        assert one.holdout.consumers.tolist() == sides.holdout.consumers.tolist()
