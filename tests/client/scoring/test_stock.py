"""Item forecasts: known answers, a hierarchy that adds up, reorder points that hold as often as asked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import client.scoring.demand as demand
from client.scoring.forecast import SharedSalesModel, open_sales_model
from client.scoring.stock import NAMELESS, Stock, StockQuestion, plan_stock, stock_table
from common.data.events import EventLog, load_events
from common.errors import BadInputError
from tests.sales_samples import START, write_log, write_model


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> SharedSalesModel:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return open_sales_model(folder)


def sale(day: int, item: str, pieces: float, category: str = "tea", event: str = "purchase") -> tuple:
    return (f"c{day}", str(START + timedelta(days=day, hours=9)), event, item, category, 2.0, pieces)


def log_of(folder: Path, rows: list[tuple]) -> EventLog:
    return load_events(write_log(folder / "log.csv", rows), secret=bytes(32))[0]


def market(days: int = 200, items: int = 12, seed: int = 3) -> list[tuple]:
    rng, rows = np.random.default_rng(seed), []
    for item in range(items):
        sold = rng.poisson(0.02 * 2**item, days)  # from once in fifty days to forty a day
        kind = ("tea", "cups")[item % 2]
        rows += [sale(day, f"i{item}", int(n), kind) for day, n in enumerate(sold) if n]
    return [*rows, *(sale(day, "every", 1) for day in range(days))]


def test_croston_and_its_unbiased_kin_give_the_known_answer_and_change_at_sales_only():
    series = np.array([[0, 4, 0, 0, 4, 0, 0, 4, 0, 0]], dtype=float)
    at = np.array([1, 4, 7, 9])
    pauses = [2.0, 2.0 + 0.1 * 1.0, 2.1 + 0.1 * 0.9]
    expected = [4 / pauses[0], 4 / pauses[1], 4 / pauses[2], 4 / pauses[2]]
    assert demand.croston(series, at)[0] == pytest.approx(expected)
    assert demand.croston(series, at, unbiased=True)[0] == pytest.approx(0.95 * np.array(expected))


def test_what_is_sold_no_more_fades_out_with_tsb_and_never_with_croston():
    series = np.zeros((1, 200))
    series[0, :60:2] = 3.0
    early, late = demand.tsb(series, np.array([59, 199]))[0]
    assert early == pytest.approx(1.5, rel=0.1)
    assert late < 1e-5
    assert demand.croston(series, np.array([199]))[0, 0] > 1.4


def test_nothing_is_known_of_an_item_before_its_first_sale():
    series = np.array([[0, 0, 0, 5.0, 5.0], [0, 0, 0, 0, 0]])
    origins = np.array([2, 3])
    assert demand.tsb(series, origins)[:, 0].tolist() == [0.0, 0.0]
    assert demand.known_at(series, origins).tolist() == [[False, True], [False, False]]


def test_items_and_categories_add_up_exactly_and_the_better_forecast_is_trusted():
    rng = np.random.default_rng(1)
    levels, parent = rng.gamma(1.0, 3.0, (30, 5)), rng.integers(0, 4, 30)
    own = rng.gamma(2.0, 8.0, (4, 5, 7))
    for trust in (np.zeros(4), np.ones(4), np.array([0.1, 0.5, 0.9, 0.3])):
        shares, met = demand.reconciled(levels, parent, own, trust)
        items = shares[..., None] * met[parent]
        sums = np.zeros_like(met)
        np.add.at(sums, parent, items)
        np.testing.assert_allclose(sums, met, rtol=1e-12)
        assert (items >= 0).all()
    top_down, bottom_up = (demand.reconciled(levels, parent, own, np.full(4, t))[1] for t in (0.0, 1.0))
    np.testing.assert_allclose(top_down, own)
    np.testing.assert_allclose(bottom_up.mean(axis=-1), demand.summed(levels, parent, 4))
    truth = np.ones((2, 8))
    assert demand.trust_in_items(truth + 1, truth + np.array([[0], [2]]), truth) == pytest.approx([0.0, 0.8])


def test_a_plan_adds_up_to_the_last_digit_and_orders_by_what_is_on_hand(shared, tmp_path):
    log = log_of(tmp_path, market())
    found = plan_stock(shared, log, StockQuestion(lead_days=5, cover_days=10))
    sums = np.zeros_like(found.categories)
    np.add.at(sums, found.sales.parent, found.values)
    np.testing.assert_allclose(sums, found.categories, rtol=1e-12)
    assert found.values.shape == (13, 15)
    assert (
        (found.low <= found.lead).all()
        and (found.lead <= found.high).all()
        and (found.reorder >= found.lead).all()
    )
    place = found.sales.items.index("i11")
    assert found.lead[place] == pytest.approx(5 * 0.02 * 2**11, rel=0.15)
    on_hand = {"i11": found.reorder[place] + 1, "i9": 0.0, "i10": -7.0, "unknown": 3.0}
    with_stock = plan_stock(shared, log, StockQuestion(5, 10, 0.95, on_hand))
    orders = dict(zip(with_stock.sales.items, with_stock.order, strict=True))
    points = dict(zip(with_stock.sales.items, with_stock.reorder, strict=True))
    assert orders["i11"] == 0  # above its reorder point
    assert orders["i9"] > points["i9"]  # up to the reorder point and what the cover needs
    assert orders["i10"] >= points["i10"] + 7  # what is promised already comes on top
    assert orders["unknown"] == points["unknown"] == 0
    assert "10 items are not in the stock file" in " ".join(with_stock.notes)
    line = stock_table(with_stock)
    assert [c for i, c in zip(line["item"], line["category"], strict=True) if i == "unknown"] == [""]


@pytest.mark.full
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_reorder_points_hold_about_as_often_as_asked_for_in_what_comes_after(shared, tmp_path, level):
    held: list[np.ndarray] = []
    for seed in range(6):
        log = log_of(tmp_path, market(days=220, seed=seed))
        found: Stock = plan_stock(shared, log, StockQuestion(7, 7, level), (START + timedelta(days=189)).date())
        truth = plan_stock(shared, log, StockQuestion(7, 7, level), (START + timedelta(days=196)).date())
        sold = dict(zip(truth.sales.items, truth.sales.series[:, 190:197].sum(axis=1), strict=True))
        often = [i for i, n in enumerate(found.lead) if n > 1]
        held.append(np.array([sold[found.sales.items[i]] <= found.reorder[i] for i in often]))
    assert level - 0.12 <= np.concatenate(held).mean() <= 1.0


def test_returns_items_without_a_name_and_items_that_are_only_looked_at_are_told(shared, tmp_path):
    rows = market()
    rows += [sale(60, "i5", 4, "cups", "cancel"), sale(61, "i5", 2, "cups", "cancel")]
    rows += [sale(70, "shown", 1, "tea", "view"), sale(80, "", 5), sale(90, "bike", 1, "bikes")]
    found = plan_stock(shared, log_of(tmp_path, rows), StockQuestion())
    place = {name: row for row, name in enumerate(found.sales.items)}
    assert found.sales.returned[place["i5"]] == 6
    assert found.lead[place["shown"]] == found.reorder[place["shown"]] == found.order[place["shown"]] == 0
    assert "bike" not in place
    told = " ".join(found.notes)
    assert "1 item was never sold" in told and "2 returns of 6 pieces" in told and "1 purchases are in no" in told
    if NAMELESS in place:  # an event without an item may be dropped by the cleaning
        assert found.order[place[NAMELESS]] == 0


def test_an_item_in_two_categories_counts_in_the_one_that_most_of_its_sales_name(shared, tmp_path):
    rows = [*market(), sale(33, "every", 1, "cups"), sale(34, "every", 1, "cups")]
    found = plan_stock(shared, log_of(tmp_path, rows), StockQuestion())
    place = found.sales.items.index("every")
    assert found.names[found.sales.parent[place]] == "tea"
    assert found.sales.series[place].sum() == 202


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"lead_days": 0}, "a lead time of 0 days"),
        ({"cover_days": 400}, "a cover of 400 days"),
        ({"level": 0.3}, "a service level of 0.3"),
        ({"level": 1.0}, "a service level of 1"),
    ],
)
def test_a_question_that_cannot_be_planned_for_is_refused(asked, words):
    with pytest.raises(BadInputError, match=words):
        StockQuestion(**asked)


def test_a_log_too_short_for_the_lead_time_is_refused(shared, tmp_path):
    with pytest.raises(BadInputError, match="too few for a lead time and cover of 90"):
        plan_stock(shared, log_of(tmp_path, market(days=110)), StockQuestion(lead_days=60, cover_days=30))
