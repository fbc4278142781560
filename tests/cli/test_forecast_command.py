"""``fedcart forecast``: what it says about a log whose future is known, and about logs it cannot use."""

from __future__ import annotations

import json
import xml.dom.minidom
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cli import main as front
from client.scoring.forecast import TOTAL, forecast, open_sales_model, own_series
from common.data.events import load_events
from tests.sales_samples import DAYS, START, WEEK, lines, write_log, write_model


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released model that has learnt nothing: its forecast is the mean of the last four same weekdays."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, task="sales")
    return folder


def test_a_steady_week_is_forecast_exactly_with_price_and_narrow_intervals(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", lines())
    assert front.main(["forecast", str(model), log, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["begins"] == "2024-04-22"  # the Monday after 16 weeks
    tea = [row for row in said["forecast"] if row["category"] == "tea"]
    assert [round(row["quantity"], 6) for row in tea] == WEEK.tolist()
    assert [round(row["revenue"], 4) for row in tea] == (2.5 * WEEK).tolist()
    assert {round(row["mean_price"], 6) for row in tea} == {2.5}
    assert all(abs(row["quantity_high95"] - row["quantity_low95"]) < 1e-6 for row in tea)
    assert said["accuracy"]["this model"]["tea"] == pytest.approx(
        {"wape": 0, "rmse": 0, "mase": None}, abs=1e-9, nan_ok=True
    )
    assert said["trend"]["tea"] == pytest.approx(0.0)
    cups = [row for row in said["forecast"] if row["category"] == "cups"]
    assert all(row["quantity"] == 0 and row["mean_price"] is None for row in cups)


@pytest.mark.full
def test_intervals_hold_about_their_share_of_what_comes_after(model: Path, tmp_path: Path) -> None:
    rng, inside = np.random.default_rng(5), []
    for trial in range(12):
        rows = [(*line[:6], int(rng.poisson(3.0 * line[6]))) for line in lines(DAYS + 7)]
        log, _ = load_events(write_log(tmp_path / f"{trial}.csv", [r for r in rows if r[6]]), secret=bytes(32))
        shared = open_sales_model(model)
        series, spec = own_series(shared, log, (START + timedelta(days=DAYS - 1)).date())
        found = forecast(shared, series, spec)
        truth = np.array([row[6] for row in rows[DAYS:]], dtype=float)
        low, high = found.bands[:, :, 0, found.categories.index("tea")].transpose(1, 0, 2)
        inside.append(((truth >= low) & (truth <= high)).mean(axis=1))
    narrow, wide = np.mean(inside, axis=0)
    assert 0.65 < narrow < 0.93
    assert 0.85 < wide <= 1.0


def test_table_file_and_picture_tell_the_same(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", lines())
    out, picture = tmp_path / "next.csv", tmp_path / "next.svg"
    assert front.main(["forecast", str(model), log, "--out", str(out), "--plot", str(picture)]) == 0
    said = capsys.readouterr()
    assert f"{WEEK.sum()}" in said.out
    assert {"this model", "mean-of-four", "seasonal-naive"} <= set(said.out.replace("  ", "\n").split("\n"))
    table = pl.read_csv(out)
    assert table.height == 3 * 7
    assert table.filter(pl.col("category") == TOTAL)["quantity"].sum() == pytest.approx(WEEK.sum())
    document = xml.dom.minidom.parse(str(picture))
    assert len(document.getElementsByTagName("polygon")) == 3 * 2
    assert not document.getElementsByTagName("script")
    assert front.main(["forecast", str(model), log, "--plot", str(picture)]) == 2  # there already
    days = tmp_path / "days.txt"
    days.write_text("none this year\n")
    assert front.main(["forecast", str(model), log, "--category", "tea", "--holidays", str(days)]) == 2
    assert "holds no date" in capsys.readouterr().err
    days.write_text("2024-04-25\n2024-05-01\n")
    assert front.main(["forecast", str(model), log, "--category", "tea", "--holidays", str(days)]) == 0
    assert "Thu 2024-04-25" in capsys.readouterr().out


def test_until_leaves_out_what_came_later(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "shop.csv", lines())
    assert front.main(["forecast", str(model), log, "--until", "2024-04-14", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["begins"] == "2024-04-15"


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (lines(20), (), "20 days of sales are too few: the model needs 49"),
        ([(*line[:2], "view", *line[3:]) for line in lines()], (), "the log has no purchase"),
        (
            lines(category="bikes"),
            (),
            "0 % of these 112 purchases are in categories that the model knows: tea, cups",
        ),
        (lines(), ("--until", "soon"), "'soon' is not a date"),
        (lines(), ("--category", "bikes"), "the model knows no category 'bikes'"),
        (lines(), ("--holidays", "nowhere.txt"), "cannot read nowhere.txt"),
        (lines(), ("--plot", "x.png"), "x.png"),
    ],
)
def test_what_cannot_be_forecast_is_said_plainly(
    rows: list[tuple[str, str, str, str, str, float, int]],
    options: tuple[str, ...],
    words: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = write_log(tmp_path / "shop.csv", rows)
    assert front.main(["forecast", str(model), log, *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "hint:" in said
    assert "Traceback" not in said


def test_models_of_other_tasks_and_sales_models_elsewhere_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", lines())
    write_model(tmp_path / "other", task="next-behaviour")
    assert front.main(["forecast", str(tmp_path / "other"), log]) == 2
    assert "trained for next-behaviour, it does not forecast sales" in capsys.readouterr().err
    (tmp_path / "empty.csv").write_text("consumer,timestamp,event\n")
    assert front.main(["forecast", str(model), str(tmp_path / "empty.csv")]) == 2
    assert front.main(["forecast", str(tmp_path / "nowhere"), log]) == 2
    assert "no such model" in capsys.readouterr().err
    for command in ("predict", "detect"):
        assert front.main([command, str(model), log]) == 2
        assert "this model" in capsys.readouterr().err
