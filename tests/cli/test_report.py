"""The report: complete, self-contained, honest about what is missing. Run folders here are made-up test data."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli.main import main
from cli.report import render_report, write_report
from cli.report.page import epsilon_lines
from common.pages.charts import Axis, Series, line_chart, participation
from common.pages.drawing import ticks
from common.run.files import RunFolder
from common.run.paths import METRICS_FILE
from common.run.records import RoundRecord
from common.tasks import metric_named
from tests.cli.fake_run import make_run

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Outline(HTMLParser):
    """Checks that every tag is closed, and collects what a browser would fetch."""

    def __init__(self, html):
        super().__init__()
        self.open, self.fetched, self.words = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for key, value in attrs if key in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.fetched += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return render_report(make_run(tmp_path_factory.mktemp("run") / "r"))


def test_the_page_is_well_formed_and_fetches_nothing(page):
    assert Outline(page).fetched == []
    assert not re.search(r"https?://|url\(|@import|\bfetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


def test_every_figure_of_the_head_and_every_chart_has_a_label(page):
    tiles = re.findall(r'<div class="tile">.*?<div class="value">', page, re.S)
    charts = re.findall(r"<figcaption>.*?</figcaption>", page, re.S)
    assert len(tiles) >= 5
    assert len(charts) >= 7
    for part in tiles + charts:
        assert re.search(r'class="badge (released|public|oracle)"', part)


def test_settings_assumptions_sites_and_baselines_are_all_there(page):
    words = " ".join(Outline(page).words)
    for expected in (
        "privacy.noise_multiplier",
        "declared populations are true counts",
        "merchant-8",
        "repeat-last",
    ):
        assert expected in words
    assert "stopped: budget" in words


def test_banners_name_what_nobody_may_overlook(tmp_path):
    plain = render_report(make_run(tmp_path / "a", private=False, rounds=3))
    assert ">NOT PRIVATE<" in plain
    assert ">aggregation: plain<" in plain
    assert "What it cost in privacy" not in plain
    safe = render_report(make_run(tmp_path / "b", secure=True, rounds=3))
    assert ">NOT PRIVATE<" not in safe
    assert ">aggregation: plain<" not in safe
    assert ">simulated<" in safe


def test_one_plain_round_makes_the_run_plain(tmp_path):
    run = RunFolder(make_run(tmp_path / "r", secure=True, rounds=3, done=2))
    run.append_round(replace(run.metrics()[0], round=3, aggregation="plain"))
    assert ">aggregation: plain<" in render_report(run.path)


def test_an_interrupted_run_gives_a_page_of_what_there_is(tmp_path):
    page = render_report(make_run(tmp_path / "r", rounds=10, done=4))
    assert "4 of 10 rounds are on disk" in page
    assert ">interrupted<" in page
    Outline(page)


@pytest.mark.parametrize("missing", ["sites.json", "metrics.jsonl", "summary.json"])
def test_missing_parts_are_left_out(tmp_path, missing):
    run = make_run(tmp_path / "r", rounds=3)
    (run / missing).unlink()
    Outline(render_report(run))


def test_an_empty_run_gives_a_page(tmp_path):
    run = make_run(tmp_path / "r", rounds=3)
    for name in ("sites.json", "metrics.jsonl", "summary.json"):
        (run / name).unlink()
    assert "0 of 3 rounds" in render_report(run)


def test_names_are_text_never_markup(tmp_path):
    run = make_run(tmp_path / "r", rounds=2)
    for name in ("sites.json", "metrics.jsonl", "run.toml"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("merchant-1", "<script>x</script>").replace("TEST-DATA", "<b>T</b>"))
    page = render_report(run)
    assert "<script>x" not in page
    assert "<b>T</b>" not in page
    Outline(page)


def test_a_damaged_folder_is_named(tmp_path, capsys):
    run = make_run(tmp_path / "r", rounds=3)
    (run / "metrics.jsonl").write_text("{}\n")
    assert main(["report", str(run)]) == 2
    assert "metrics.jsonl, line 1" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2


def test_writing_twice_gives_the_same_bytes(tmp_path, capsys):
    run = make_run(tmp_path / "r", rounds=3)
    first = write_report(run).read_bytes()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_bytes() == first


def test_released_values_stand_one_round_before_oracle_values(tmp_path):
    page = render_report(make_run(tmp_path / "r", rounds=4))
    recall = page[page.index("Recall@20 over rounds") :]
    tips = re.findall(r"<title>(.*?)</title>", recall[: recall.index("</svg>")], re.S)
    assert tips[0].startswith("rounds finished: 0\nreleased")
    assert "oracle" not in tips[0]
    assert "rounds finished: 4\noracle" in tips[-1]


def test_noise_beyond_what_a_metric_can_be_does_not_stretch_the_axis():
    wild = Series("released", "released", [(0, -3.0), (1, 0.4), (2, 9.0), (3, math.nan), (4, math.inf)])
    drawing = str(line_chart([wild], Axis(floor=0.0, ceiling=1.0)))
    assert "9.000" in drawing
    assert ">9<" not in drawing
    assert "nan" not in drawing
    assert "inf" not in drawing


@pytest.mark.parametrize(
    "points", [[], [(1, math.nan)], [(1, 0.5)], [(1, 0.0), (2, 0.0)], [(1, 1e-12), (2, 1e12)]]
)
def test_a_chart_of_any_points_is_finite_or_absent(points):
    drawing = str(line_chart([Series("a", "oracle", points)], Axis()))
    assert drawing == "" if not [p for p in points if math.isfinite(p[1])] else "<svg" in drawing
    assert "nan" not in drawing


def test_ticks_are_round_and_cover_the_interval():
    assert ticks(0.11, 0.53) == [0.0, 0.2, 0.4, 0.6]
    assert ticks(0, 8) == [0, 2, 4, 6, 8]
    for low, high in ((0.001, 0.0013), (3, 97), (-2, 5), (1e6, 3e6)):
        marks = ticks(low, high)
        assert marks[0] <= low
        assert marks[-1] >= high
        assert 3 <= len(marks) <= 8


def test_sites_with_equal_epsilon_are_one_line_and_many_sites_are_two():
    alike = [RoundRecord(r, epsilon={"a": r / 2, "b": r / 2}) for r in (1, 2)]
    assert [line.name for line in epsilon_lines(alike)] == ["each of 2 sites"]
    many = [RoundRecord(1, epsilon={f"s{i}": float(i) for i in range(30)})]
    assert [line.name for line in epsilon_lines(many)] == ["most (s29)", "least (s0)"]


def test_a_participation_mark_tells_site_round_and_reason():
    drawing = str(participation([("a & b", [(1, "ok", "in the sum"), (2, "lost", "lost: timeout")])], 2))
    assert "a &amp; b, round 2: lost: timeout" in drawing
    assert drawing.count("<rect") == 2


def attested(run: Path, *simulated: bool) -> Path:
    """The run with attestations of its last round that say of each site's ledger whether it is a simulation's."""
    signed = {f"merchant-{i + 1}": {"attestation": {"simulated": one}} for i, one in enumerate(simulated)}
    folder = RunFolder(run)
    folder.append_round(replace(folder.metrics()[-1], oracle={}, attestations=signed))
    return run


@pytest.mark.parametrize(
    ("ledgers", "simulated", "real"),
    [
        ((True, True), True, None),
        ((False, False), False, "deployed"),
        ((True, False), True, "some budgets are real"),
    ],
)
def test_whether_budgets_are_real_is_what_the_attestations_say(tmp_path, ledgers, simulated, real):
    page = render_report(attested(make_run(tmp_path / "r", rounds=3, done=2), *ledgers))  # it has sites.json
    assert (">simulated<" in page) == simulated
    assert ("no budget carries over" in page) == simulated
    assert (f">{real}<" in page) == (real is not None)


def test_the_page_of_a_deployed_run_speaks_of_no_simulation_and_no_oracle(tmp_path):
    run = RunFolder(make_run(tmp_path / "r", rounds=3, done=2))
    records = [replace(record, oracle={}) for record in run.metrics()]
    run.write_facts(replace(run.facts(), data={}))
    (run.path / METRICS_FILE).write_bytes(b"")
    for record in records:
        run.append_round(record)
    page = re.sub(r"<style.*?</style>", "", render_report(attested(run.path, False, False)), flags=re.DOTALL)
    assert ">deployed<" in page
    settings = page.count("<dt>oracle_every</dt>")
    assert len(re.findall("(?i)simulat|oracle|one machine", page)) == settings == 1  # it repeats the settings


def test_values_above_one_are_drawn_apart_where_the_metric_can_be_above_one(tmp_path):
    def page(name: str, mase: float) -> str:
        run = RunFolder(make_run(tmp_path / name, rounds=2, done=1))
        run.append_round(replace(run.metrics()[0], round=2, oracle={"mase": mase}, released={}))
        return render_report(run.path)

    drawn = [
        set(re.findall(r"cy=\"([0-9.]+)\"|y=\"([0-9.]+)\"", page(f"m{i}", m))) for i, m in enumerate((1.6, 1.3))
    ]
    assert metric_named("mase").ceiling > 1.6
    assert drawn[0] != drawn[1]
    two = line_chart([Series("a", "oracle", [(1.0, 1.6), (2.0, 1.3)])], Axis(ceiling=metric_named("mase").ceiling))
    heights = re.findall(r"<circle[^>]*cy=\"([0-9.]+)\"", str(two))
    assert len(set(heights)) == 2


def test_the_verdict_stands_at_the_top_with_the_kind_of_its_numbers(page):
    top = page[: page.index('class="tiles"')]
    sentence = re.search(r'<p class="verdict top (\w+)">(.*?)</p>', top, re.S)
    assert sentence is not None
    assert "The shared model has Recall@20" in sentence[2]
    assert 'class="badge oracle"' in sentence[2]


def test_a_model_below_counting_is_told_so_at_the_top(tmp_path):
    run = RunFolder(make_run(tmp_path / "r"))
    summary = run.summary()
    better = {"markov": {"recall@20": 0.999}}
    run.write_summary(replace(summary, baselines=better))
    page = render_report(run.path)
    top = page[: page.index('class="tiles"')]
    assert '<p class="verdict top warn">' in top
    assert "no better than counting: markov has 0.999" in top


def test_a_released_curve_carries_the_bars_of_its_noise():
    line = Series("released", "released", [(0, 0.4), (1, 0.5)], [0.05, math.nan])
    drawn = str(line_chart([line], Axis()))
    assert drawn.count('class="bar released"') == 1
    assert "released: 0.400 ± 0.050" in drawn
    assert "released: 0.500\n" in drawn or "released: 0.500<" in drawn
