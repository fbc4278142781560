"""A scoring host: pruned weights, and answers without torch that are those of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import client.scoring.edge as edge
from client.scoring.edge_files import edge_facts, write_edge
from client.scoring.export import PRUNED_FILE, export, onnx_available, torch_step
from client.scoring.model import open_model
from client.scoring.predict import class_name, predict_next
from client.scoring.prune import prune, read_pruned, write_pruned
from client.scoring.step import step_model
from client.scoring.stream import StreamScorer
from common.data.events import EventLog
from common.errors import BadInputError, ConfigError
from tests.scoring_samples import config_of, market, write_model_folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue)
    return open_model(path)


class TorchSession:
    """What ONNX Runtime does, by torch: the tests of the host's own part need no runtime."""

    def __init__(self, shared) -> None:
        self._step = torch_step(step_model(shared))

    def run(self, _outputs, inputs):
        return list(self._step(inputs["features"], inputs["state"]))


@pytest.fixture
def scorer(shared, tmp_path, monkeypatch):
    write_edge(shared, tmp_path)
    (tmp_path / "step.onnx").write_bytes(b"stands for the file")
    session = TorchSession(shared)
    fake = type(sys)("onnxruntime")
    fake.SessionOptions = type("SessionOptions", (), {})
    fake.InferenceSession = lambda *_, **__: session
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return edge.EdgeScorer(tmp_path)


def lines(log: EventLog) -> list[dict]:
    frame = log.frame.with_columns(pl.col("event").cast(pl.String), pl.col("consumer").cast(pl.String))
    rows = frame.sort("timestamp", maintain_order=True).to_dicts()
    return [{**row, "timestamp": row["timestamp"].replace(tzinfo=UTC).isoformat()} for row in rows]


def few(count: int = 12) -> EventLog:
    log = market().log
    short = np.flatnonzero((np.diff(log.offsets) >= 3) & (np.diff(log.offsets) <= 35))[:count]
    return log.where(pl.col("consumer").is_in(log.consumers[short]))


def test_the_host_answers_as_the_model_does(shared, scorer):
    log = few()
    for line in lines(log):
        scorer.push(line)
    for what in ("item", "category", "event"):
        expected = predict_next(shared, shared.sequences(log), what, 5)
        for who, choices, shares in zip(log.consumers, expected.choices, expected.probabilities, strict=True):
            said = scorer.next(str(who), what, 5)
            assert [share for _, share in said] == pytest.approx(shares.tolist(), abs=1e-5)
            assert said[0][0] == class_name(shared, what, int(choices[0]))
    known = predict_next(shared, shared.sequences(log), "item", 3, exclude_known=True)
    said = scorer.next(str(log.consumers[0]), "item", 3, exclude_known=True)
    assert [share for _, share in said] == pytest.approx(known.probabilities[0].tolist(), abs=1e-5)


def test_the_host_reads_an_event_as_the_stream_does(shared, scorer):
    stream = StreamScorer(shared)
    for line in [
        *lines(few(3)),
        {"consumer": "x", "timestamp": 1_700_000_000, "event": "view", "item": "new", "price": "?"},
    ]:
        moment = edge._moment(line["timestamp"])
        mine = scorer._features(line, moment, None)
        line = line | ({"price": None} if line.get("price") == "?" else {})
        assert mine == stream.parse(line | {"timestamp": moment.isoformat()}).features


def test_hashed_items_are_read_like_the_models_own(tmp_path):
    from common.data.features import hashed_bucket

    write_model_folder(
        tmp_path,
        config_of(
            task="next-behaviour",
            model={"dim": 8, "hidden": 8, "heads": {"next-item": 1.0, "next-event": 1.0}},
            features={"item_buckets": 7, "max_events": 40},
        ),
        None,
    )
    facts = edge_facts(open_model(tmp_path))
    assert facts["items"] == [] and len(facts["bucket_rows"]) == 7
    for name in ("a", "tea", "ü" * 40):
        assert edge._bucket(name, 7) == hashed_bucket(name, 0, 7)


def test_a_line_that_cannot_be_used_is_answered_and_the_stream_goes_on(scorer):
    good = json.dumps({"consumer": "c", "timestamp": "2024-05-01T10:00:00", "event": "view"})
    bad = [
        "no json",
        "[1]",
        json.dumps({"consumer": "c"}),
        good.replace("view", "dance"),
        good.replace('"c"', '""'),
    ]
    said = list(edge.answers([*bad, good, good.replace("2024", "1024"), ""], scorer, 2))
    assert [one.get("line") for one in said] == [1, 2, 3, 4, 5, None, 7]
    assert len(said[5]["item"]) == 2
    with pytest.raises(edge.EdgeError, match="nothing is known of 'nobody'"):
        scorer.next("nobody")


def test_memory_is_bounded_and_a_folder_that_is_none_is_refused(scorer, tmp_path):
    scorer._capacity = 2
    for who in "abc":
        scorer.push({"consumer": who, "timestamp": 1_700_000_000, "event": "view"})
    assert set(scorer._kept) == {"b", "c"}
    (tmp_path / "names.json").write_text("{}")
    with pytest.raises(edge.EdgeError, match="another version"):
        edge.EdgeScorer(tmp_path)


def test_the_smallest_weights_are_pruned_and_the_file_keeps_the_rest(shared, tmp_path):
    whole, step = step_model(shared), prune(step_model(shared), 0.6)
    for name, value in step.state_dict().items():
        before = whole.state_dict()[name]
        if value.dim() < 2:
            assert value.equal(before)
            continue
        gone = value == 0
        assert gone.float().mean().item() == pytest.approx(0.6, abs=0.6 / gone.shape[0] + 0.02)
        assert before[gone].abs().max() <= before[~gone].abs().min() and value[~gone].equal(before[~gone])
    write_pruned(step, tmp_path / "p", {})
    again = read_pruned(step_model(shared), tmp_path / "p")
    for name, value in step.state_dict().items():
        limit = value.abs().max().item() / 127 if value.dim() > 1 else 1e-9
        assert (again.state_dict()[name] - value).abs().max().item() <= limit
    (tmp_path / "bad").write_bytes(b"x" * 40)
    with pytest.raises(BadInputError, match="does not fit"):
        read_pruned(step_model(shared), tmp_path / "bad")
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="cannot be pruned"):
            prune(step_model(shared), share)


def test_an_export_with_pruning_tells_size_and_quality_of_both(shared, tmp_path):
    variants, names = export(shared, tmp_path / "out", shared.sequences(few()), onnx=False, prune=0.7)
    sizes = {one.name: one.size_bytes for one in variants}
    assert list(sizes) == ["torch float32", "torch, int8 file", "pruned 70%, int8 file"]
    assert sizes["pruned 70%, int8 file"] < sizes["torch float32"]
    assert PRUNED_FILE in names and (tmp_path / "out" / PRUNED_FILE).is_file()
    assert json.loads((tmp_path / "out" / "export.json").read_text())["pruned"] == 0.7


WITHOUT = """
import sys
for name in ("torch", "polars", "flwr", "common", "client", "sklearn", "scipy"):
    sys.modules[name] = None  # importing it raises
import runpy
sys.argv = ["score.py", "--k", "3"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.full
def test_a_host_without_torch_and_without_fedcart_scores_with_the_exported_files(shared, tmp_path):
    if not onnx_available():
        with pytest.raises(ConfigError, match="not installed"):
            export(shared, tmp_path, None, onnx=True)
        return
    export(shared, tmp_path, None, onnx=True, prune=0.5)
    log = few(4)
    text = "".join(json.dumps(line, default=str) + "\n" for line in lines(log))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        input=text,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    last = {answer["consumer"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    expected = predict_next(shared, shared.sequences(log), "item", 3)
    for who, shares in zip(log.consumers, expected.probabilities, strict=True):
        assert [share for _, share in last[str(who)]["item"]] == pytest.approx(shares.tolist(), abs=1e-4)
    assert Path(tmp_path / "step.pruned.int8.onnx").is_file()


def test_the_program_of_a_host_imports_nothing_but_numpy_and_the_runtime():
    import ast

    tree = ast.parse(Path(edge.__file__).read_text())
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert {m.split(".")[0] for m in modules} - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    assert datetime(2024, 5, 1, tzinfo=UTC) == edge._moment("2024-05-01T02:00:00+02:00").replace(hour=0)
