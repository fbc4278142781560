"""``fedcart forecast --what price``: prices whose future is known, beside the last price."""

from __future__ import annotations

import json
import xml.dom.minidom
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import client.scoring.price as price
from cli import main as front
from client.scoring.forecast import open_sales_model, own_series
from common.data.events import load_events
from tests.sales_samples import START, lines, write_log, write_model


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return str(folder)


def priced(prices: np.ndarray, category: str = "tea", item: str = "t1") -> list[tuple]:
    return [
        (f"c{day}", str(START + timedelta(days=day, hours=10)), "purchase", item, category, float(price), 4)
        for day, price in enumerate(prices)
    ]


def test_a_price_that_never_changes_is_told_exactly(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", lines())
    assert front.main(["forecast", model, log, "--what", "price", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    tea, cups, total = said["forecast"]
    for name in ("last_price", "mean_price", "low80", "high95"):
        assert tea[name] == total[name] == pytest.approx(2.5)
    assert tea["error"] == pytest.approx(0.0, abs=1e-9) and said["inside_80"] == 1.0
    assert cups["category"] == "cups" and cups["mean_price"] is None and cups["last_price"] is None


def test_a_purchase_without_a_price_is_no_gift_and_what_is_cut_is_said(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row if number % 2 else (*row[:5], "", row[6]) for number, row in enumerate(priced(np.full(260, 8.0)))]
    rows[-1] = (*rows[-1][:5], 50_000, rows[-1][6])
    log = write_log(tmp_path / "shop.csv", rows[:-1])
    assert front.main(["forecast", model, log, "--what", "price", "--json"]) == 0
    shown = capsys.readouterr()
    tea = json.loads(shown.out)["forecast"][0]
    assert tea["last_price"] == tea["mean_price"] == pytest.approx(8.0)
    assert "130 of 259 purchases have no price" in shown.err
    log = write_log(tmp_path / "dear.csv", rows)
    assert front.main(["forecast", model, log]) == 0
    assert "1 of 260 purchases have a price above 1,000" in capsys.readouterr().err
    log = write_log(tmp_path / "none.csv", [(*row[:5], "", row[6]) for row in rows])
    assert front.main(["forecast", model, log, "--what", "price"]) == 2
    assert "error: no purchase has a price" in capsys.readouterr().err


def test_a_price_that_wavers_is_better_told_by_a_mean_and_the_intervals_hold(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wavering = 10 + np.random.default_rng(2).normal(0, 1.5, 260)
    rising = 5 * 1.01 ** np.arange(260)
    log = write_log(tmp_path / "shop.csv", [*priced(wavering), *priced(rising, "cups", "c1")])
    assert front.main(["forecast", model, log, "--what", "price", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    tea, cups, _ = said["forecast"]
    assert tea["forecast_by"].startswith("mean of about") and tea["error"] < 0.6 * tea["error_of_last_price"]
    assert tea["mean_price"] == pytest.approx(10, abs=0.8) and tea["low80"] < 10 < tea["high80"]
    assert cups["forecast_by"] == "last price"
    assert 0.65 < said["inside_80"] < 0.95


def test_table_file_and_picture_of_one_category(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", priced(np.linspace(3, 6, 200)))
    out, plot = tmp_path / "price.csv", tmp_path / "price.svg"
    words = [
        "forecast",
        model,
        log,
        "--what",
        "price",
        "--category",
        "tea",
        "--out",
        str(out),
        "--plot",
        str(plot),
    ]
    assert front.main(words) == 0
    said = capsys.readouterr().out
    assert "mean price of the next 7 days" in said and "6.00" in said and "last price's" in said
    assert pl.read_csv(out)["category"].to_list() == ["tea"]
    assert "mean price" in xml.dom.minidom.parse(str(plot)).toxml()


def test_a_log_too_short_to_measure_a_price_on_is_refused(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", lines(52))
    assert front.main(["forecast", model, log, "--what", "price"]) == 2
    said = capsys.readouterr().err
    assert "too few to choose and measure a price on" in said and "days more" in said


def test_every_way_forgets_old_prices(model: str, tmp_path: Path) -> None:
    log = load_events(write_log(tmp_path / "shop.csv", priced(np.repeat([40, 10], [20, 240]))), secret=bytes(32))[
        0
    ]
    shared = open_sales_model(Path(model))
    series, spec = own_series(shared, log)
    money = price._with_total(series * np.array(spec.bounds)[:, None, None])
    found = price._candidates(shared, series, money, spec, np.array([spec.periods - 1]))
    assert len(found) == 5
    assert all(values[0, 0] == pytest.approx(10, abs=0.3) for values in found.values()), found
