"""Beginning a run with an earlier model."""

import json

import numpy as np
import pytest
import torch

from common.data.features import feature_spec
from common.errors import BadInputError
from common.model.network import ModelShape, build_model
from common.model.transfer import adopt
from simulations import oracle
from tests.guard_samples import sign_model_again
from tests.scoring_samples import config_of, market, write_model_folder

SPEC = feature_spec(market().catalogue)


def _model(seed=9, **model):
    tree = {"dim": 12, "hidden": 12, "heads": {"next-item": 1.0, "purchase-intent": 1.0}, **model}
    return build_model(config_of(model=tree).model, ModelShape(SPEC.sizes), seed)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    path = tmp_path_factory.mktemp("earlier")
    plain = config_of(task="next-behaviour", model={"dim": 12, "hidden": 12, "heads": {"next-item": 1.0}})
    write_model_folder(path, plain, market().catalogue, market().log, steps=5)
    return path


def test_everything_shared_is_adopted_and_a_new_head_begins_anew(earlier):
    model, untouched = _model(), _model()
    adopted = adopt(model, earlier, SPEC)
    assert "encoder.weight_ih_l0" in adopted
    assert "item.weight" in adopted
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, dict(untouched.named_parameters())[n])}
    assert not any("purchase-intent" in name for name in adopted)
    assert changed <= set(adopted)
    assert "encoder.weight_ih_l0" in changed


def test_a_simulation_begins_with_the_earlier_model(earlier):
    settings = config_of(model={"dim": 12, "hidden": 12, "heads": {"next-item": 1.0, "purchase-intent": 1.0}})
    fresh = oracle.initial_model(settings.public_json(), SPEC.canonical())
    begun = oracle.initial_model(settings.public_json(), SPEC.canonical(), str(earlier))
    assert len(fresh["vector"]) == len(begun["vector"])
    assert fresh["vector"] != begun["vector"]
    assert np.isfinite(np.frombuffer(begun["vector"], dtype=np.float32)).all()
    assert settings.public_json() == settings.model_copy(update={"start_from": "x"}).public_json()


def test_an_earlier_model_that_does_not_fit_is_refused(earlier, tmp_path):
    with pytest.raises(BadInputError, match="of this shape"):
        adopt(_model(dim=6, hidden=6), earlier, SPEC)
    with pytest.raises(BadInputError, match="another catalogue"):
        adopt(_model(), earlier, feature_spec(None, item_buckets=7))
    with pytest.raises(BadInputError, match="cannot read a model"):
        adopt(_model(), tmp_path, SPEC)
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).write_bytes((earlier / name).read_bytes())
    document = json.loads((tmp_path / "model.json").read_text())
    document["metadata"] = {}
    sign_model_again(tmp_path / "model.json", document)
    with pytest.raises(BadInputError, match="another version"):
        adopt(_model(), tmp_path, SPEC)
