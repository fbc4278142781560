"""A simulation shows what each site makes of the model with its own data; the server sees none of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cli.report.page import render_report
from common.run import RunFolder, RunPlan, build_config
from simulations.own_data import MOST_SITES, remarks_on, spread_over_sizes
from tests.tiny_federation import run_tiny


def plan_of(sizes: list[int]) -> RunPlan:
    populations = tuple((f"site-{n}", size) for n, size in enumerate(sizes))
    return RunPlan("run", build_config({}).public_json(), populations, "{}", 4, 1.0, 1.0)


def test_of_many_sites_the_smallest_the_largest_and_some_between_are_compared():
    assert spread_over_sizes(plan_of([300, 100, 200])) == ["site-1", "site-2", "site-0"]
    many = spread_over_sizes(plan_of(list(range(1, 101))))
    assert len(many) == len(set(many)) == MOST_SITES
    assert (many[0], many[-1]) == ("site-0", "site-99")


def test_a_site_about_which_nothing_can_be_said_is_named_with_the_reason():
    [line] = remarks_on([{"site": "north", "consumers": 40, "verdicts": [], "why": "40 consumers are too few"}])
    assert "oracle" in line
    assert "north (40 consumers): 40 consumers are too few" in line


@pytest.mark.full
def test_baselines_bring_a_table_by_site_that_only_the_oracle_has(tmp_path):
    out = tmp_path / "run"
    summary, _ = run_tiny(out, "data.consumers=900", "training.rounds=1", "baselines=true")
    rows = RunFolder(out).own_data()
    assert [row["consumers"] for row in rows] == sorted(row["consumers"] for row in rows)
    assert len(rows) == 3
    told = [row for row in rows if row["verdicts"]]
    assert told, rows
    assert set(told[0]["verdicts"][0]["figures"]) == {"alone", "shared", "personal"}
    assert sum("own data on top (oracle)" in note for note in summary.notes) == 3
    assert "What joining brings each site" in render_report(out)
    records = [json.dumps(dataclasses.asdict(r)) for r in RunFolder(out).metrics()]
    assert not any("personal" in record for record in records)
