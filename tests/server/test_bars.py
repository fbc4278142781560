"""Released figures carry the bars that follow from the public noise; figures without such a bar carry none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import fedcart
from cli.screen import columns, header
from common.run import RoundRecord, RunFolder, RunPlan, SiteRound, Summary, build_config
from server.bars import LABEL, Bars, Z
from server.best import noise_bar

SITES = (("a", 5_000), ("b", 5_000), ("c", 5_000))
RELEASED = {"recall@20": 0.5, "loss": 5.0, "mrr@20": 0.1, "intent_auc": 0.7}


def bars_of(*settings: str, noise: float = 2.0) -> Bars:
    config = build_config({}, ["model.heads={'next-item'=1.0}", *settings])
    return Bars(RunPlan("run", config.public_json(), SITES, "{}", 4, 1.0, noise))


def record(held: float = 3_000.0) -> RoundRecord:
    return RoundRecord(
        2, "train", RELEASED, {"held_out": held}, sites={name: SiteRound("ok") for name, _ in SITES}
    )


def test_a_bar_is_the_95_percent_of_the_noise():
    bars = bars_of()
    assert bars.plan is not None
    width = Z * noise_bar(bars.plan, record(), "recall@20")
    assert width > 0.001
    assert bars.cell(record(), "recall@20") == f"0.500 ± {width:.3f}"


def test_a_metric_that_is_no_mean_a_run_without_noise_and_one_without_plan_have_none():
    assert bars_of().cell(record(), "intent_auc") == "0.700"
    assert bars_of(noise=0.0).cell(record(), "recall@20") == "0.500"
    assert Bars().cell(record(), "recall@20") == "0.500"
    assert not bars_of(noise=0.0).any_in(record())


def test_noise_that_hides_how_many_are_held_out_is_said():
    assert bars_of().cell(record(held=1.0), "recall@20") == "0.500 ± ?"


def test_the_table_of_rounds_shows_them_and_says_what_they_are():
    bars = bars_of()
    assert bars.plan is not None
    shown = columns(record(), bars.plan.config, bars)
    assert LABEL in header(shown)[0]
    line = "  ".join(column.cell(record()) for column in shown)
    assert bars.cell(record(), "loss") in line
    assert line.count("±") == 2  # the third is the area under a curve


def test_a_figure_that_was_not_released_has_no_bar():
    nothing = replace(record(), released={})
    assert math.isnan(bars_of().at(nothing, "recall@20"))
    assert bars_of().cell(nothing, "recall@20") == "–"


@pytest.mark.parametrize("metric", ["recall@20", "mrr@20", "loss"])
def test_the_mean_of_many_noised_sums_stays_within_its_bar(metric):
    assert 0 < bars_of().at(record(), metric) < 1


def test_runs_side_by_side_show_the_bars_of_what_was_released(tmp_path):
    folders = []
    for name, noise in (("loud", 4.0), ("quiet", 1.0)):
        bars = bars_of(noise=noise)
        assert bars.plan is not None
        folder = RunFolder.create(tmp_path / name)
        folder.write_settings(bars.plan.config)
        folder.write_plan(bars.plan)
        folder.append_round(record())
        folder.write_summary(
            Summary("completed", metrics={"released": RELEASED, "public": {}, "oracle": RELEASED})
        )
        folders.append(folder)
    comparison = fedcart.compare(*(folder.path for folder in folders))
    rows = {(kind, name): cells for kind, name, cells in comparison.rows()}
    expected = [Bars.of(folder).cell(record(), "recall@20") for folder in folders]
    assert rows["released", "recall@20"] == expected
    assert expected[0] != expected[1]
    assert rows["oracle", "recall@20"] == ["0.500", "0.500"]
    assert rows["released", "intent_auc"] == ["0.700", "0.700"]
    assert (
        comparison.to_json()["runs"][0]["bars"]["recall@20"] > comparison.to_json()["runs"][1]["bars"]["recall@20"]
    )
