"""Encoders and heads from outside: used where they are sound, refused by name where they are not."""

import numpy as np
import pytest
import torch

from client.training.dpsgd.engine import TapeEngine
from common import extensions
from common.errors import BadInputError, ConfigError
from common.extensions import Registered, register_encoder, register_head, registered, take_over
from common.run import build_config
from common.tasks import STEP_HEADS, metric_names
from tests.dpsgd_samples import HEADS, SIZES, batcher_of, brute_force, model_of
from tests.extensions import encoders


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(extensions, "_encoders", {})
    monkeypatch.setattr(extensions, "_heads", {})
    before = dict(STEP_HEADS)
    yield
    STEP_HEADS.clear()
    STEP_HEADS.update(before)


def model_with(build, **settings):
    register_encoder("mine", build)
    return model_of(torch.float32, 1, encoder="mine", **settings)


def test_a_registered_encoder_is_clipped_exactly_as_one_consumer_at_a_time():
    model, batcher = model_with(encoders.Deep, layers=2), batcher_of([3, 9, 5, 2], 1)
    engine = TapeEngine(model, batcher, 0.05)
    total = engine.clipped_sum(np.arange(4))[0].clone()
    norms = [float(engine.clipped_sum(np.array([row]))[0].norm()) for row in range(4)]
    assert max(norms) <= 0.05 * (1 + 1e-5)
    torch.testing.assert_close(
        total.float(), brute_force(model, batcher, np.arange(4), 0.05), atol=1e-6, rtol=1e-3
    )


def test_stepping_with_the_carried_state_is_reading_the_whole_row():
    model = model_with(encoders.Deep, layers=2).eval()
    batch = batcher_of([6], 3).packed(np.array([0]))
    state = model.first_state(1)
    with torch.no_grad():
        whole, behind = model.carried(batch)
        for step in range(batch.steps):
            hidden, state = model.step(
                {name: value[step : step + 1] for name, value in batch.inputs.items()}, state
            )
            torch.testing.assert_close(hidden[0], whole[step])
    torch.testing.assert_close(state, behind)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (encoders.Mixing, "mixes consumers"),
        (encoders.Backwards, "looks at later events"),
        (encoders.Narrow, r"gives \(9, 3\)"),
        (encoders.Odd, "cannot be called like nn.GRU"),
        (encoders.no_module, "no torch module"),
    ],
)
def test_an_encoder_that_clipping_or_scoring_cannot_rely_on_is_refused(build, words):
    with pytest.raises(ConfigError, match=words):
        model_with(build)


def test_an_encoder_with_a_parameter_outside_the_layers_cannot_be_trained_privately():
    with pytest.raises(BadInputError, match="without a clipping rule"):
        TapeEngine(model_with(encoders.Loose), batcher_of([3], 1), 1.0)


@pytest.mark.parametrize("name", ["lstm", "Mine", "a b", "../x", ""])
def test_names_that_are_taken_or_no_words_are_refused(name):
    with pytest.raises(ConfigError):
        register_encoder(name, encoders.Deep)
    with pytest.raises(ConfigError):
        register_head("next-item" if name == "lstm" else name, "price")


def test_what_workers_could_not_import_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="cannot be imported") as caught:
        register_encoder("mine", lambda dim, hidden, layers: encoders.Deep(dim, hidden, layers))
    assert "module of its own" in caught.value.hint
    own = type("Own", (encoders.Deep,), {"__module__": "__main__", "__qualname__": "Own"})
    with pytest.raises(ConfigError, match="cannot be imported"):
        register_encoder("mine", own)
    impostor = type("Impostor", (encoders.Deep,), {"__module__": encoders.__name__, "__qualname__": "Deep"})
    with pytest.raises(ConfigError, match="not what was registered"):
        register_encoder("mine", impostor)


@pytest.mark.parametrize("name", ["other", "os:system", "tests.extensions.encoders:Deep"])
def test_settings_name_no_code(name):
    """A run's settings come from the coordinator: a name that nobody registered here loads nothing."""
    with pytest.raises(ConfigError, match="no encoder named"):
        build_config({"model": {"encoder": name}})
    with pytest.raises(ConfigError, match="no head named"):
        build_config({"model": {"heads": {name: 1.0}}})


def test_a_registered_head_predicts_its_feature(monkeypatch):
    register_head("next-price", "price")
    monkeypatch.setitem(SIZES, "price", 4)
    monkeypatch.setitem(HEADS, "next-price", 0.5)
    model, batcher = model_with(encoders.Deep), batcher_of([4, 6], 1)
    assert model.heads["next-price"].linear.out_features == 4
    gradient = TapeEngine(model, batcher, 0.5).clipped_sum(np.arange(2))[0]
    torch.testing.assert_close(
        gradient.float(), brute_force(model, batcher, np.arange(2), 0.5), atol=1e-6, rtol=1e-3
    )
    assert metric_names(["next-price"])[-1] == "next_price_accuracy"
    with pytest.raises(ConfigError, match="predicts price already"):
        register_head("next-price", "hour")


def test_another_process_takes_over_what_was_registered(monkeypatch):
    register_encoder("mine", encoders.Deep)
    register_head("next-price", "price")
    known = registered()
    monkeypatch.setattr(extensions, "_encoders", {})
    monkeypatch.setattr(extensions, "_heads", {})
    del STEP_HEADS["next-price"]
    assert registered() == Registered()
    take_over(known)
    assert registered() == known
    assert extensions.custom_encoder("mine") is encoders.Deep
