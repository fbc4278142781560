"""``fedcart data``: what it prints, what it writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from cli.main import main
from common.data.catalogue import read_catalogue
from common.data.events import load_events

LOG = (
    "consumer,timestamp,event,item,category,price,quantity,site\n"
    "ann,2024-01-01 10:00:00,view,lamp,light,5,,north\n"
    "ann,2024-01-01 10:00:00,view,lamp,light,5,,north\n"
    "bob,2024-01-01 11:00:00,purchase,desk,wood,90,1,south\n"
    ",2024-01-01 12:00:00,view,desk,wood,90,,south\n"
)


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    path.write_text(LOG)
    return path


def test_check_names_each_rule_with_its_count(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(log_file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("warn: 2 of 4 lines usable (50.0%)")
    assert "no-consumer" in text
    assert "duplicate" in text


def test_check_prints_one_json_value(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(log_file), "--format", "fedcart", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["lines"], report["kept"], report["dropped"], report["status"]) == (4, 2, 2, "warn")


def test_describe_counts_per_site(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "describe", str(log_file), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [site["site"] for site in described["sites"]] == ["north", "south"]
    assert described["event_types"] == {"view": 1, "purchase": 1}
    assert main(["data", "describe", str(log_file)]) == 0
    printed = capsys.readouterr()
    assert "north" in printed.out
    assert "not released" in printed.err


def test_nothing_printed_or_written_holds_an_original_id(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = log_file.with_name("items.json")
    for command in (["check"], ["describe"], ["describe", "--json"], ["catalogue", "--out", str(target)]):
        assert main(["data", command[0], str(log_file), *command[1:]]) == 0
    printed = capsys.readouterr()
    assert "ann" not in (printed.out + printed.err + target.read_text()).replace("cannot", "")


def test_catalogue_is_written_with_its_warning(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = log_file.with_name("items.json")
    assert main(["data", "catalogue", str(log_file), "--out", str(target)]) == 0
    assert "warning: built from an event log" in capsys.readouterr().err
    catalogue = read_catalogue(target)
    assert set(catalogue.items) == {"lamp", "desk"}
    assert catalogue.mask("north").sum() == 1
    assert main(["data", "catalogue", str(log_file), "--out", str(target)]) == 2  # does not replace
    assert main(["data", "catalogue", str(log_file), "--out", str(target), "--force"]) == 0


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz", "m.parquet"])
def test_synth_writes_a_log_that_check_finds_clean(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    arguments = [
        "data",
        "synth",
        str(out),
        "--events",
        "6000",
        "--sites",
        "3",
        "--items",
        "60",
        "--anomalies",
        "0.1",
    ]
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    log, report = load_events(out, "fedcart", secret=b"x")
    assert report.lines == report.kept == summary["events"] == len(log)
    assert report.status == "ok"
    assert len(log.sites) == 3
    labels = pl.read_csv(tmp_path / "m.labels.csv")
    assert labels.height == summary["anomalies"] > 5
    written = (
        set(pl.read_parquet(out)["consumer"]) if name.endswith("parquet") else set(pl.read_csv(out)["consumer"])
    )
    assert set(labels["consumer"]) <= written
    assert read_catalogue(tmp_path / "m.catalogue.json").source == "synthetic (public)"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert main(arguments) == 2  # does not replace


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "nothing.csv"], "no such file"),
        (["check", "shop.csv", "--format", "onlineretail"], "online-retail"),
        (["describe", "shop.csv", "--split-by", "planet"], "planet"),
        (["synth", "out.txt"], "does not end in"),
        (["synth", "no/such/folder/out.csv"], "no such folder"),
        (["synth", "out.csv", "--events", "500", "--sites", "900"], "900 sites"),
        (["synth", "out.csv", "--sites", "0"], "0 is not in the range"),
        (["catalogue", "shop.csv", "--out", "out.txt"], ".json"),
    ],
)
def test_bad_input_is_refused_with_a_hint_and_leaves_nothing(
    arguments: list[str],
    said: str,
    log_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(log_file.parent)
    assert main(["data", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert "hint:" in printed.err
    assert [path.name for path in log_file.parent.iterdir()] == ["shop.csv"]


@pytest.mark.full
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_full_disk_ends_in_an_error_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk."""
    code = (
        "import resource, signal, sys; from cli.main import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        f"sys.exit(main(['data', 'synth', {str(tmp_path / name)!r}, '--events', '5000', '--sites', '2']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_module_imports_nothing_heavy() -> None:
    code = "import sys, cli.data; print([m for m in ('polars', 'torch', 'numpy', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
