"""``import fedcart``: light, typed, complete; and what it gives without a run."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fedcart
from client.anomalies.detection import Thresholding
from common.data.features import INTEGER_NAMES
from common.errors import BadInputError, ConfigError, WorkFailedError
from common.extensions import FEATURES
from common.house import require_own_packages
from common.run import StrategySettings
from common.run.files import RunFolder
from fedcart.events import as_frame, file_of
from fedcart.places import path_of
from server.state import ServerState
from server.strategy import apply
from simulations.run import simulate
from tests.cli.fake_run import make_run
from tests.tiny_federation import tiny

ROOT = Path(__file__).resolve().parents[2]


def test_importing_it_loads_nothing_heavy():
    heavy = ("torch", "flwr", "polars", "opacus", "sklearn", "scipy", "dp_accounting", "pydantic", "numpy")
    code = f"import sys, fedcart; dir(fedcart); sys.exit(str([m for m in {heavy!r} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("name", fedcart.__all__)
def test_every_promised_name_is_there_and_documented(name):
    value = getattr(fedcart, name)
    assert name == "__version__" or (value.__doc__ and value.__doc__.strip())


def test_the_stub_for_type_checkers_names_the_same():
    stub = (ROOT / "fedcart" / "__init__.pyi").read_text()
    assert set(re.findall(r"(\w+) as \1\b", stub)) | {"__version__"} == set(fedcart.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'simulatte'"):
        _ = fedcart.simulatte


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"settings": {"model.hiden": 3}}, "unknown setting: model.hiden"),
        ({"trust": "blind"}, "privacy.trust"),
        ({"trust": "quorum", "settings": {"training.local_steps": 3}}, "a second step would follow a share"),
        ({"sites": 3, "split_by": "country"}, "contradict"),
        ({"events": "no-such-file.csv"}, "no such file"),
        ({"events": 17}, "cannot read events from int"),
        ({"epsilon": [3, -1]}, "epsilon"),
        ({"epsilon": []}, "epsilon is an empty list"),
        ({"sites": ()}, "sites is an empty list"),
        ({"out": 3.5}, "out is a float"),
        ({"out": b"first"}, "out is a bytes"),
        ({"epsilon": True}, "epsilon is True"),
        ({"rounds": [2, 3, 2]}, "rounds is 2 twice"),
        ({"settings": "model.hidden=3"}, "settings is a str"),
        ({"settings": {3: 4}}, "3 is not the key"),
        ({"settings": {"training": {4: 5}}}, "4 is not the key"),
        ({"progress": "loud"}, "progress is 'loud'"),
        ({"format": "fedcart"}, "format='fedcart' is of events"),
        ({"split_by": "planet"}, "no column 'planet'"),
        ({"out": __file__ + "/x"}, "cannot write to"),
    ],
)
def test_bad_input_is_named_before_anything_runs(options, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=match):
        fedcart.simulate(**options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda: fedcart.verify(None),
        lambda: fedcart.verify("a\0b"),
        lambda: fedcart.open_run(None),
        lambda: fedcart.open_run({}),
        lambda: fedcart.open_model(None),
        lambda: fedcart.open_model(b"x"),
        lambda: fedcart.resume(None),
        lambda: fedcart.compare("a", None),
        lambda: fedcart.verify_path(None),
        lambda: fedcart.load_config(b"x"),
        lambda: fedcart.load_config("nowhere.toml"),
        lambda: fedcart.build_config("x"),
        lambda: fedcart.build_config({}, [3]),
        lambda: fedcart.load_events(None),
        lambda: fedcart.register_dataset(3, lambda: None),
        lambda: fedcart.register_dataset("frame", {"consumer": []}),
        lambda: fedcart.register_strategy(3, lambda s, _: s),
        lambda: fedcart.register_strategy("name", None),
        lambda: fedcart.register_encoder("name", "module:attribute"),
        lambda: fedcart.register_encoder(3, dict),
        lambda: fedcart.register_head("name", "weather"),
        lambda: fedcart.register_head(None, "price"),
        lambda: fedcart.calibrate_noise(-1, 1e-5, 0.1, 100),
        lambda: fedcart.PrivacyEvent(1.0, 2.0, 3),
    ],
)
def test_what_is_no_argument_is_an_error_of_ours_with_a_hint(call):
    with pytest.raises(fedcart.FedcartError) as error:
        call()
    assert error.value.hint


@pytest.mark.parametrize("place", [7, np.int64(7)])
def test_a_number_is_the_name_of_a_folder(place):
    assert path_of(place) == Path("7")
    with pytest.raises(BadInputError):
        path_of(True)


@pytest.mark.parametrize(
    "words", [{"kind": "weather"}, {"at": -1.0}, {"at": "x"}, {"at": math.nan}, {"rate": 2.0}, {"days": -3.0}]
)
def test_an_impossible_threshold_is_refused(words):
    with pytest.raises(ConfigError, match="threshold"):
        Thresholding(**words)


def test_a_head_can_be_of_every_feature_of_an_event():
    assert set(FEATURES) == set(INTEGER_NAMES)


def test_a_sweep_whose_last_folder_is_taken_runs_nothing(tmp_path):
    (tmp_path / "epsilon-1").mkdir()
    (tmp_path / "epsilon-1" / "mine.txt").write_text("")
    with pytest.raises(BadInputError, match="not empty"):
        fedcart.simulate(epsilon=[8, 1], out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["epsilon-1"]


@pytest.mark.parametrize(
    ("strategy", "error", "words"),
    [
        (lambda s, _: replace(s, parameters=s.parameters * np.nan), ConfigError, "no numbers"),
        (lambda s, _: 1 / 0, WorkFailedError, "ZeroDivisionError"),
    ],
)
def test_a_strategy_that_breaks_is_named_before_a_site_is_asked_again(strategy, error, words):
    word = fedcart.register_strategy("test-broken", strategy)
    with pytest.raises(error, match=words):
        apply(state(), np.ones(3, dtype=np.float32), StrategySettings(name=word), 1)


def test_frames_of_either_library_and_columns_are_read():
    wanted = {"consumer": ["a", "b"], "price": [1.5, None]}
    assert as_frame(pl.DataFrame(wanted)).to_dict(as_series=False) == wanted
    assert as_frame(pl.LazyFrame(wanted)).to_dict(as_series=False) == wanted
    assert as_frame(wanted).to_dict(as_series=False) == wanted


def test_missing_values_of_pandas_are_missing():
    class Column(list):
        def tolist(self):
            return list(self)

    frame = type(
        "Frame",
        (),
        {"columns": ["price"], "to_dict": None, "__getitem__": lambda _s, _n: Column([1.5, float("nan")])},
    )
    assert as_frame(frame())["price"].to_list() == [1.5, None]


def test_a_registered_dataset_is_taken_by_name_and_its_file_is_gone_afterwards():
    fedcart.register_dataset("test-frame", lambda: {"consumer": ["a"], "timestamp": [1], "event": ["view"]})
    with file_of("test-frame") as path:
        assert pl.read_parquet(path).height == 1
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
    assert not path.exists()
    with pytest.raises(BadInputError, match="not a name"):
        fedcart.register_dataset("a/b.csv", lambda: None)


def state() -> ServerState:
    return ServerState.initial(np.zeros(3, dtype=np.float32), b"")


def test_a_registered_strategy_moves_the_parameters_and_the_average_follows():
    word = fedcart.register_strategy("test-half", lambda s, u: replace(s, parameters=s.parameters + u / 2))
    after = apply(state(), np.ones(3, dtype=np.float32), StrategySettings(name=word, ema=0.0), 1)
    assert after.parameters.tolist() == after.average.tolist() == [0.5, 0.5, 0.5]
    assert after.round == 1


def test_an_unregistered_or_wrong_strategy_is_an_error_with_a_hint():
    with pytest.raises(ConfigError, match="no strategy 'unknown'"):
        apply(state(), np.ones(3, dtype=np.float32), StrategySettings(name="custom:unknown"), 1)
    word = fedcart.register_strategy("test-wrong", lambda s, u: replace(s, parameters=u[:2]))
    with pytest.raises(ConfigError, match=r"shape \(2,\)"):
        apply(state(), np.ones(3, dtype=np.float32), StrategySettings(name=word), 1)


def test_a_sweep_that_nobody_has_named_has_a_folder_for_each_run(tmp_path, monkeypatch):
    made = []

    def stand_in(config, out, _watcher, *, resume=False):
        made.append((config.privacy.epsilon, out))
        RunFolder.create(out).write_settings(config)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "simulations.run", types.SimpleNamespace(simulate=stand_in))
    sweep = fedcart.simulate(epsilon=[8, 3, 1])
    assert [epsilon for epsilon, _ in made] == [8, 3, 1]
    assert [run.path.name for run in sweep] == ["epsilon-8", "epsilon-3", "epsilon-1"]
    assert len({run.path.parent for run in sweep}) == 1
    for several in (np.array([8, 3]), range(1, 3), pl.Series([2.0, 1.0]), (value for value in (4, 5))):
        assert len(fedcart.simulate(epsilon=several)) == 2
    assert fedcart.simulate(epsilon="12.5").settings["privacy.epsilon"] == 12.5  # one number, not four characters
    assert fedcart.simulate(rounds=np.int64(3), epsilon=np.float32(2.5), out=17).path == Path("17")
    single = fedcart.simulate(epsilon=8)
    assert Path("runs/latest").resolve() == single.path.resolve()


def test_an_unregistered_strategy_is_refused_before_anything_is_charged(tmp_path):
    with pytest.raises(ConfigError, match="no strategy 'unknown'"):
        simulate(tiny("strategy.name=custom:unknown"), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").metrics()
    ledgers = list((tmp_path / "run" / "ledgers").glob("*.jsonl"))
    assert not any("reserve" in ledger.read_text() for ledger in ledgers)


def test_foreign_packages_of_our_names_are_refused(tmp_path):
    for name in ("client", "server", "simulations", "fedcart"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        code = f"import sys; import cli.main as m; sys.path.insert(0, {str(tmp_path)!r}); sys.exit(m.main(['--version']))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert f"error: the package `{name}` comes from" in done.stderr
        assert "own environment" in done.stderr
        (tmp_path / name / "__init__.py").unlink()
        (tmp_path / name).rmdir()


def test_our_own_packages_are_accepted():
    require_own_packages()
    with pytest.raises(BadInputError, match="not installed"):
        require_own_packages(("no_such_package_of_ours",))


@pytest.fixture
def two(tmp_path):
    return make_run(tmp_path / "a" / "run", rounds=3), make_run(tmp_path / "b" / "run", rounds=4, private=False)


def test_a_run_gives_tables(two):
    run = fedcart.open_run(str(two[0]))
    assert run.status == "completed"
    assert run.metrics["round"].to_list() == [1, 2, 3, 4]
    assert {"released_loss", "oracle_recall@20", "epsilon_worst", "seconds"} <= set(run.metrics.columns)
    assert run.epsilon.columns[:2] == ["round", "merchant-1"]
    assert run.settings["training.rounds"] == 3
    assert "<svg" in run.plot().svg
    assert run.plot("epsilon").title.startswith("epsilon")
    with pytest.raises(BadInputError, match="has not measured 'beauty'"):
        run.plot("beauty")


def test_comparison_shows_what_differs_and_nothing_else(two):
    comparison = fedcart.compare(*two)
    assert comparison.names == ("a/run", "b/run")
    assert comparison.settings == {"training.rounds": (3, 4), "privacy.enabled": (True, False)}
    assert comparison.table.height == 2
    assert comparison.epsilon[1] is None
    assert "<td>training.rounds</td>" in comparison.to_html()
    with pytest.raises(BadInputError, match="nothing to compare"):
        fedcart.compare(two[0])


def test_a_run_that_has_not_ended_is_compared_by_what_it_has_cost(two, tmp_path):
    shutil.copytree(two[0], tmp_path / "broken-off")
    (tmp_path / "broken-off" / "summary.json").unlink()
    ended, broken = (fedcart.compare(two[1], run) for run in (two[0], tmp_path / "broken-off"))
    assert broken.status[1] == "interrupted"
    assert broken.epsilon[1] == pytest.approx(ended.epsilon[1], abs=1e-5)
    assert broken.seconds[1] > 0


def test_compare_on_the_command_line(two, tmp_path, capsys):
    import json

    from cli.main import main

    assert main(["compare", *map(str, two), "--html", str(tmp_path / "c.html")]) == 0
    out = capsys.readouterr().out
    assert "training.rounds (setting)" in out
    assert "recall@20 (oracle)" in out
    assert main(["compare", *map(str, two), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [run["settings"]["training.rounds"] for run in plain["runs"]] == [3, 4]
    assert main(["compare", str(two[0])]) == 2
    assert main(["compare", str(tmp_path), str(two[0])]) == 2


@pytest.mark.parametrize("name", ["common", "client", "server", "simulations", "cli"])
@pytest.mark.parametrize("form", ["package", "module"])
def test_a_script_beside_foreign_packages_of_our_names_is_told_which(tmp_path, name, form):
    """A script's own folder comes first on the path: a shop's ``server.py`` lies there more often than not."""
    if form == "package":
        (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py" if form == "package" else tmp_path / f"{name}.py").write_text("X = 1\n")
    (tmp_path / "script.py").write_text("import fedcart\nfedcart.simulate\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    there = tmp_path / (name if form == "package" else f"{name}.py")
    assert f"the package `{name}` comes from {there}" in done.stderr
    assert done.stderr.count("its own environment") == 1, "a traceback shows the hint as well"
