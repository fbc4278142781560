"""``fedcart simulate``: from options to settings, and what the screen says. The simulation itself is a stand-in."""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from cli.main import main
from cli.screen import columns, fitting, header
from common.atomic import write_atomic
from common.run import RunConfig, load_config
from common.run.files import RunFolder
from common.run.records import RoundRecord, SiteRound
from simulations.jobs import scenario_names
from tests.cli.fake_run import make_facts, make_record, make_summary


class StandIn:
    """Plays a simulation with made-up numbers, and remembers what it was asked."""

    def __init__(self):
        self.config = RunConfig()
        self.out = Path()
        self.resume = False
        self.stop_after = None
        self.status = "completed"
        self.site_status = "ok"

    def __call__(self, config, out, observer, *, resume=False):
        self.config, self.out, self.resume = config, out, resume
        if not resume:
            folder = RunFolder.create(out)
            write_atomic(out / "run.toml", config.to_toml().encode())
        folder = RunFolder.open(out)
        facts = make_facts(out, config, config.data.sites)
        observer.progress(0, "events", 0, 1)
        observer.prepared(facts)
        records = []
        for number in range(1, min(config.training.rounds, 3) + 1):
            record = make_record(number, facts, config)
            if self.site_status != "ok":
                record = replace(record, sites={"merchant-1": SiteRound(self.site_status, "budget")})
            folder.append_round(record)
            observer.round_done(record)
            records.append(record)
            if number == self.stop_after:
                raise KeyboardInterrupt
        summary = replace(make_summary(out, records, config), status=self.status)
        folder.write_summary(summary)
        observer.finished(summary)
        return summary


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    played = StandIn()
    monkeypatch.setitem(sys.modules, "simulations.run", types.SimpleNamespace(simulate=played))
    monkeypatch.chdir(tmp_path)
    return played


def test_without_arguments_the_marketplace_runs_into_a_dated_folder_and_latest_points_to_it(stand_in, capsys):
    assert main(["simulate"]) == 0
    assert stand_in.config == load_config(Path(scenario_file("marketplace")))
    assert stand_in.out.parent == Path("runs")
    assert stand_in.out.name.startswith("marketplace-2")
    assert Path("runs/latest").resolve() == stand_in.out.resolve()
    assert (stand_in.out / "report.html").is_file()
    assert "completed: " in capsys.readouterr().out


def scenario_file(name):
    from simulations.jobs import scenario_path

    return str(scenario_path(name))


@pytest.mark.parametrize("name", scenario_names())
def test_every_shipped_scenario_is_valid(name):
    assert load_config(Path(scenario_file(name))).name == name


@pytest.mark.parametrize(
    ("options", "where", "value"),
    [
        (["--rounds", "3"], ("training", "rounds"), 3),
        (["--epsilon", "2.5"], ("privacy", "epsilon"), 2.5),
        (["--no-privacy"], ("privacy", "enabled"), False),
        (["--aggregation", "plain"], ("aggregation", "mode"), "plain"),
        (["--drop", "0.2"], ("drop",), 0.2),
        (["--engine", "ray"], ("performance", "engine"), "ray"),
        (["--workers", "2"], ("performance", "workers"), 2),
        (["--trainer", "opacus"], ("performance", "trainer"), "opacus"),
        (["--sites", "4"], ("data", "sites"), 4),
        (["--split-by", "items"], ("data", "split_by"), "items"),
        (["--seed", "9"], ("seed",), 9),
        (["--baselines"], ("baselines",), True),
        (["--set", "model.encoder=gru"], ("model", "encoder"), "gru"),
        (["--set", "model.heads={next-item=1.0}"], ("model", "heads"), {"next-item": 1.0}),
        (["--rounds", "3", "--set", "training.rounds=4"], ("training", "rounds"), 4),
    ],
)
def test_an_option_sets_what_it_says(stand_in, options, where, value):
    assert main(["simulate", *options, "--out", "run"]) == 0
    found = stand_in.config
    for key in where:
        found = getattr(found, key)
    assert found == value
    assert stand_in.out == Path("run")
    assert not Path("runs").exists()


def test_an_own_log_needs_no_scenario_and_names_the_run(stand_in):
    Path("my log.csv.gz").write_bytes(b"x")
    assert (
        main(["simulate", "--events", "my log.csv.gz", "--format", "online-retail", "--split-by", "country"]) == 0
    )
    assert stand_in.config.name == "my-log"
    assert Path(stand_in.config.data.events) == Path("my log.csv.gz").resolve()
    assert stand_in.config.data.split_by == "country"


def test_a_number_of_sites_for_an_own_log_deals_by_consumer(stand_in):
    Path("log.csv").write_bytes(b"x")
    assert main(["simulate", "--events", "log.csv", "--sites", "5"]) == 0
    assert (stand_in.config.data.sites, stand_in.config.data.split_by) == (5, "consumers")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epsilon", "3", "--no-privacy"], "contradict"),
        (["--sites", "3", "--split-by", "country"], "contradict"),
        (["--epsilon", "-1"], "privacy.epsilon"),
        (["--sites", "0"], "data.sites"),
        (["--set", "training.speed=3"], "unknown setting: training.speed"),
        (["--set", "rounds"], "KEY=VALUE"),
        (["nonsense"], "no such scenario"),
        (["missing.toml"], "no such file"),
        (["--events", "missing.csv"], "no such file: missing.csv"),
        (["--resume", "missing"], "not a run folder"),
        (["--resume", ".", "--out", "x"], "--resume goes without"),
        (["--drop", "1.0"], "drop"),
    ],
)
def test_bad_input_is_refused_before_the_work_with_a_hint(stand_in, capsys, options, words):
    assert main(["simulate", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert words in err
    assert "\nhint: " in err
    assert not list(Path().iterdir())


def test_ctrl_c_keeps_the_rounds_writes_the_report_and_says_how_to_go_on(stand_in, capsys):
    stand_in.stop_after = 2
    assert main(["simulate", "--out", "run"]) == 130
    assert "To go on:\n  fedcart simulate --resume run\n" in capsys.readouterr().out
    assert "2 of 6 rounds are on disk" in Path("run/report.html").read_text()


def test_resume_takes_the_settings_of_the_folder_and_only_speed_from_the_options(stand_in, capsys):
    stand_in.stop_after = 2
    main(["simulate", "--out", "run", "--rounds", "5", "--seed", "3"])
    stand_in.stop_after = None
    capsys.readouterr()
    assert main(["simulate", "--resume", "run", "--workers", "1"]) == 0
    assert stand_in.resume
    assert (stand_in.config.training.rounds, stand_in.config.seed, stand_in.config.performance.workers) == (
        5,
        3,
        1,
    )
    assert "resuming" in capsys.readouterr().out
    assert main(["simulate", "--resume", "run", "--rounds", "9"]) == 2
    assert "fixed before its first round" in capsys.readouterr().err
    assert main(["simulate", "--resume", "run", "--set", "privacy.epsilon=9"]) == 2


def test_json_puts_the_summary_and_nothing_else_on_stdout(stand_in, capsys):
    assert main(["simulate", "--out", "run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "completed"
    assert json.loads(out)["metrics"]["oracle"]["recall@20"] > 0
    assert "simulating" in err


@pytest.mark.parametrize(("site_status", "code"), [("stopped", 3), ("refused", 3), ("lost", 1)])
def test_a_run_that_stops_early_tells_by_its_exit_code_who_stopped_it(stand_in, site_status, code):
    stand_in.status, stand_in.site_status = "stopped", site_status
    assert main(["simulate", "--out", "run"]) == code


def test_every_number_of_the_table_stands_under_its_label(stand_in, capsys):
    main(["simulate", "--out", "run"])
    out = capsys.readouterr().out
    groups = next(line for line in out.splitlines() if "released" in line)
    titles = out.splitlines()[out.splitlines().index(groups) + 1]
    assert groups.index("released") < groups.index("oracle") < groups.index("public")
    assert titles.split() == (
        [
            "round",
            "loss",
            "R@20",
            "MRR@20",
            "loss",
            "R@20",
            "MRR@20",
            "clipped",
            "signal/noise",
            "ε",
            "worst",
            "sites",
            "bytes",
            "time",
        ]
    )


def test_a_run_without_privacy_says_so_and_shows_no_epsilon(stand_in, capsys):
    main(["simulate", "--out", "run", "--no-privacy"])
    out = capsys.readouterr().out
    assert "NOT PRIVATE" in out
    assert "ε worst" not in out


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_a_narrow_terminal_gets_fewer_columns_never_broken_lines(width):
    config = RunConfig()
    facts = make_facts(Path(), config, 8)
    shown = fitting(columns(make_record(1, facts, config), config), width)
    assert all(len(line) <= width for line in header(shown))
    assert "round" in header(shown)[1]
    assert "ε worst" in header(shown)[1]


def test_a_round_without_a_sum_and_the_closing_evaluation_are_told_apart(monkeypatch, capsys, tmp_path):
    from cli.screen import Screen

    screen = Screen(RunConfig(), tmp_path, to_stderr=False)
    screen.round_done(RoundRecord(1, aborted="too-few", sites={"a": SiteRound("lost"), "b": SiteRound("ok")}))
    screen.round_done(RoundRecord(2, kind="evaluate", oracle={"loss": 1.0}, sites={"a": SiteRound("ok")}))
    out = capsys.readouterr().out
    assert "no sum: too-few, 1/2 sites answered" in out
    assert "final" in out
