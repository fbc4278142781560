"""Every place that shows an epsilon, for one uneven run: none shows less than the ledgers say, and each says what it is.

The truth is computed here from the raw lines of the ledgers, with dp-accounting.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

import fedcart
from cli.main import main
from common.audit.history import accounts_in, make_history
from common.audit.records import find_records
from common.run import RunFolder
from simulations.run import simulate
from tests.tiny_federation import Recorder, tiny

DELTA = 1e-5
SLACK = 2e-3  # two accountants, one grid
pytestmark = pytest.mark.full
RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE


class Uneven(Recorder):
    """One site fails in round 2 and pauses; another one is lost on the way."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def round_done(self, record: Any) -> None:
        super().round_done(record)
        if record.round == 1:
            outbox = self._out / "sites" / "merchant-2" / "state" / "outbox"
            shutil.rmtree(outbox, ignore_errors=True)
            outbox.write_bytes(b"no folder")


@pytest.fixture(scope="module", params=["simulated", "deployed-like"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    out = tmp_path_factory.mktemp("uneven") / "run"
    settings = ("data.sites=4", "training.rounds=3", "aggregation.min_sites=2", "drop=0.2", "seed=3")
    simulate(tiny(*settings), out, Uneven(out))
    truth = {file.stem: spent(file) for file in sorted((out / "ledgers").glob("*.jsonl"))}
    if request.param == "deployed-like":  # the ledgers stay at the sites: attestations are all that there is
        copy = out.parent / "handed-over"
        shutil.copytree(out, copy, ignore=shutil.ignore_patterns("ledgers", "sites"))
        return copy, truth
    return out, truth


def spent(ledger: Path) -> float:
    """Epsilon of the worse side, from the lines themselves."""
    bodies = {one["sequence"]: one["body"] for one in map(json.loads, ledger.read_text().splitlines())}
    void = {body["reserve"] for body in bodies.values() if body["kind"] == "void"}
    sides: dict[str, Counter[tuple[float, float]]] = {}
    for number, body in bodies.items():
        for event in body.get("events", ()) if number not in void else ():
            setting = (event["sampling_rate"], event["noise_multiplier"])
            sides.setdefault(event["sub_scope"], Counter())[setting] += event["steps"]
    return max((least(steps) for steps in sides.values()), default=0.0)


def least(steps: Counter[tuple[float, float]]) -> float:
    accountants = PLDAccountant(RELATION), RdpAccountant(neighboring_relation=RELATION)
    for (rate, sigma), many in steps.items():
        gaussian = dp_accounting.GaussianDpEvent(sigma)
        one = dp_accounting.PoissonSampledDpEvent(rate, gaussian) if rate < 1 else gaussian
        for accountant in accountants:
            accountant.compose(dp_accounting.SelfComposedDpEvent(one, many))
    return min(accountant.get_epsilon(DELTA) for accountant in accountants)


def per_site(out: Path) -> Iterator[tuple[str, dict[str, float | None]]]:
    """(place, epsilon of each site) of every place that shows them."""
    folder = RunFolder.open(out)
    yield "metrics.jsonl", folder.metrics()[-1].epsilon
    summary = folder.summary()
    assert summary is not None
    yield "summary.json", summary.epsilon
    table = fedcart.open_run(out).epsilon
    yield "run.epsilon", {site: table[site][-1] for site in table.columns if site != "round"}
    first = fedcart.open_run(out)
    assert first.metrics["epsilon_worst"].drop_nulls()[-1] == max(
        v for v in summary.epsilon.values() if v is not None
    )
    history = make_history(accounts_in(find_records(out)))
    yield "history", {site: total.epsilon for total in history.scopes for site in total.sites}


def printed(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in command]) in (0, None, 1)
    return capsys.readouterr().out


def test_no_site_is_shown_with_less_than_its_ledger_says(run: tuple[Path, dict[str, float]]) -> None:
    out, truth = run
    assert len({round(epsilon, 3) for epsilon in truth.values()}) > 1  # uneven, or nothing is tested
    for place, shown in per_site(out):
        assert set(shown) == set(truth), place
        for site, epsilon in truth.items():
            assert shown[site] is not None, (place, site)
            assert shown[site] >= epsilon - SLACK, (place, site)


def test_no_figure_of_the_worst_site_is_less_than_the_worst_ledger(
    run: tuple[Path, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, truth = run
    worst = max(truth.values()) - SLACK
    audit = json.loads(printed(capsys, "audit", "show", out, "--json"))
    assert {
        site["site"]: site["epsilon"] >= truth[site["site"]] - SLACK for site in audit["sites"]
    } == dict.fromkeys(truth, True)
    adversaries = [row["epsilon"] for row in audit["statement"]["adversaries"] if row["epsilon"] is not None]
    assert len(adversaries) == 4
    assert min(adversaries) >= worst
    assert audit["statement"]["cross_site"]["disjoint"] >= worst
    assert audit["statement"]["cross_site"]["everywhere"] >= worst
    compared = json.loads(printed(capsys, "compare", out, out, "--json"))["runs"]
    assert all(one["epsilon"] >= worst for one in compared)
    assert all(row >= worst for row in fedcart.compare(out, out).table["epsilon_worst"])
    assert max(fedcart.open_run(out).metrics["round"]) >= 3


def test_pages_and_tables_show_them_and_say_that_they_are_public(
    run: tuple[Path, dict[str, float]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, truth = run
    worst = max(truth.values()) - SLACK
    printed(capsys, "report", out)
    report = (out / "report.html").read_text()
    tile = re.search(r"ε spent.*?(\d+\.\d+)", report, flags=re.S)
    assert tile and float(tile[1]) >= worst
    for site, epsilon in truth.items():
        row = re.search(rf"<tr[^>]*>(?:(?!</tr>).)*{site}(?:(?!</tr>).)*</tr>", report, flags=re.S)
        assert row, site
        shown = [float(number) for number in re.findall(r">\s*(\d+\.\d{3,})\s*<", row[0])]
        assert any(number >= epsilon - SLACK for number in shown), (site, shown)
    said = printed(
        capsys, "audit", "show", out, "--html", tmp_path / "audit.html", "--csv", tmp_path / "audit.csv"
    )
    totals = said[said.index("Totals per site") : said.index("Against whom")]
    for site, epsilon in truth.items():
        [line] = [line for line in totals.splitlines() if line.startswith(site)]
        assert float(line.split()[2]) >= epsilon - SLACK
    assert "ε so far" in (tmp_path / "audit.html").read_text()
    by_site: dict[str, float] = {}
    for line in (tmp_path / "audit.csv").read_text().splitlines()[1:]:
        site, so_far = line.split(",")[0], line.split(",")[-4]
        by_site[site] = max(by_site.get(site, 0.0), float(so_far))
    assert all(by_site[site] >= epsilon - SLACK for site, epsilon in truth.items())
    compared = printed(capsys, "compare", out, out)
    [line] = [line for line in compared.splitlines() if line.startswith("ε at the worst site")]
    assert all(float(number) >= worst for number in re.findall(r"\d+\.\d+", line))
    assert "public" in compared


def test_a_model_never_claims_less_than_its_run_has_spent(run: tuple[Path, dict[str, float]]) -> None:
    """Its header names the plan, whose total is what any site may have been charged."""
    out, truth = run
    header = json.loads((out / "model.json").read_text())["metadata"]
    assert header["private"] is True
    assert RunFolder.open(out).plan().config.privacy.epsilon >= max(truth.values()) - SLACK
