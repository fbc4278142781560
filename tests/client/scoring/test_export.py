"""Exported models: the step agrees with the model, int8 loses little, files are checked."""

import json

import numpy as np
import pytest
import torch

from cli import main as front
from client.scoring import export as exporting
from client.scoring.model import open_model
from client.scoring.step import step_facts, step_model
from common.data.events import EventLog
from common.errors import BadInputError, ConfigError
from common.model.batch import Batcher
from common.model.targets import whole_rows
from tests.scoring_samples import config_of, market, write_events, write_model_folder

GRU = {"encoder": "gru", "dim": 10, "hidden": 6, "layers": 2, "pooling": "attention"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return path


@pytest.fixture(scope="module")
def shared(folder):
    return open_model(folder)


@pytest.mark.parametrize("settings", [{}, GRU, {"history": False}])
def test_stepping_through_a_row_gives_the_models_logits(folder, tmp_path, settings):
    if settings:
        heads = {"next-item": 1.0, "next-event": 1.0, "purchase-intent": 1.0}
        write_model_folder(tmp_path / "m", config_of(model={**settings, "heads": heads}), market().catalogue)
    shared = open_model(tmp_path / "m" if settings else folder)
    sequences = shared.sequences(market().log)
    step, facts, state = step_model(shared), step_facts(shared), shared.model.first_state(1)
    batch = Batcher(sequences, (), whole_rows(sequences)).packed(np.array([4]))
    with torch.no_grad():
        hidden = shared.model.hidden_states(batch)
        expected = [shared.model.heads[name].linear(hidden) for name in facts.heads]
        for t in range(batch.steps):
            features = torch.tensor([[int(batch.inputs[name][t]) for name in facts.inputs]])
            *answers, state = step(features, state)
            for answer, whole in zip(answers, expected, strict=True):
                torch.testing.assert_close(answer[0], whole[t], atol=1e-5, rtol=1e-4)
    # attention and counts read the whole row: their head cannot be answered step by step
    assert ("purchase-intent" in facts.heads) is ("history" in settings)


def test_int8_weights_survive_the_file_and_lose_little(shared, tmp_path):
    step = step_model(shared)
    exporting.write_int8(step, tmp_path / "s", {"note": 1})
    again = exporting.read_int8(shared, tmp_path / "s")
    for name, value in step.state_dict().items():
        limit = value.abs().max().item() / 127 if value.dim() > 1 else 1e-9
        assert (again.state_dict()[name] - value).abs().max().item() <= limit
    plain = sum(4 * value.numel() for value in step.state_dict().values())
    assert (tmp_path / "s").stat().st_size < plain
    steps = {
        "float32": (exporting.torch_step(step), plain),
        "int8": (exporting.torch_step(again), 1),
    }
    first, small = exporting.compare(shared, steps, shared.sequences(market().log), repeats=3)
    assert (first.worst, small.size_bytes) == (0.0, 1)
    assert 0 < small.worst < 1
    assert abs(small.nats - first.nats) < 0.05
    assert abs(small.recall - first.recall) < 0.05


def test_the_compared_loss_is_the_models_own_loss(shared):
    sequences = shared.sequences(EventLog(market().log.frame.head(300)))
    short = sequences.take(np.flatnonzero((sequences.lengths >= 2) & (sequences.lengths <= 40)))
    found = exporting.compare(shared, {"a": (exporting.torch_step(step_model(shared)), 1)}, short, repeats=1)[0]
    from client.anomalies.likelihood import surprise

    nats = surprise(shared, short)
    column = nats.nats[:, nats.heads.index("next-item")]
    assert found.nats == pytest.approx(float(np.nanmean(column)), rel=1e-3)


def test_a_damaged_or_foreign_int8_file_is_refused(shared, tmp_path):
    (tmp_path / "bad").write_bytes(b"x" * 40)
    with pytest.raises(BadInputError, match="does not fit"):
        exporting.read_int8(shared, tmp_path / "bad")
    other = config_of(model={"dim": 6, "hidden": 6, "heads": {"next-item": 1.0, "purchase-intent": 1.0}})
    write_model_folder(tmp_path / "other", other, market().catalogue)
    exporting.write_int8(step_model(open_model(tmp_path / "other")), tmp_path / "foreign", {})
    with pytest.raises(BadInputError, match="does not fit"):
        exporting.read_int8(shared, tmp_path / "foreign")


def test_without_the_extra_onnx_is_refused_with_the_way_to_get_it(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "onnx_available", lambda: False)
    with pytest.raises(ConfigError, match="not installed") as caught:
        exporting.export(shared, tmp_path / "out", None, onnx=True)
    assert "fedcart[onnx]" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_export_writes_its_files_and_a_report(folder, tmp_path, capsys):
    events = write_events(EventLog(market().log.frame.head(800)), tmp_path / "shop.csv")
    out = tmp_path / "small"
    assert front.main(["export", str(folder), str(out), "--events", str(events), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [v["name"] for v in shown["variants"]] == ["torch float32", exporting.INT8_WEIGHTS]
    assert {path.name for path in out.iterdir()} == set(shown["files"])
    report = json.loads((out / "export.json").read_text())
    assert report["step"]["copy_bonus"] == 3.0
    assert front.main(["export", str(folder), str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert front.main(["export", str(tmp_path / "none"), str(tmp_path / "x")]) == 2


@pytest.mark.full
def test_onnx_agrees_with_torch_for_every_number_of_consumers(shared, tmp_path):
    if not exporting.onnx_available():
        with pytest.raises(ConfigError, match="not installed"):
            exporting.onnx_step(tmp_path / "none")
        return
    exporting.export(shared, tmp_path, shared.sequences(market().log), onnx=True)
    step = exporting.torch_step(step_model(shared))
    rng = np.random.default_rng(0)
    for file, limit in ((exporting.ONNX_FILE, 1e-4), (exporting.ONNX_INT8_FILE, 1.0)):
        run = exporting.onnx_step(tmp_path / file)
        for consumers in (1, 5):
            features = rng.integers(1, 5, (consumers, len(step_facts(shared).inputs)))
            state = rng.normal(size=tuple(shared.model.first_state(consumers).shape)).astype(np.float32)
            for a, b in zip(run(features, state), step(features, state), strict=True):
                assert np.abs(a - b).max() < limit
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match="not a usable ONNX file"):
        exporting.onnx_step(tmp_path / "bad.onnx")
