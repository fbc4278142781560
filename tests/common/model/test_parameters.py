from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from common.errors import BadInputError
from common.model.batch import Batcher
from common.model.parameters import (
    METADATA_FILE,
    WEIGHTS_FILE,
    FlatParameters,
    check_layout,
    item_rows,
    layout_of,
    load_model,
    save_model,
)
from tests.common.model.tiny_market import random_sequences, small_model
from tests.guard_samples import COORDINATOR, sign_model_again


def saved(folder, **settings):
    model = small_model(**settings)
    flat = FlatParameters(model)
    save_model(folder, flat.numpy(), flat.layout, {"round": 3}, COORDINATOR)
    return flat


def test_a_model_moves_with_its_flat_vector_and_fills_the_flat_gradient():
    model = small_model()
    flat = FlatParameters(model)
    flat.vector.add_(1.0)
    offset, shape = flat.layout.entries["context.event.weight"]
    part = flat.vector[offset : offset + int(np.prod(shape))].view(shape)
    assert torch.equal(model.context["event"].weight, part)
    model.losses(Batcher(random_sequences(9)).packed(np.arange(9))).sum().backward()
    assert flat.gradient.abs().sum() > 0
    assert model.item.weight.grad.data_ptr() == flat.gradient.data_ptr()


def test_the_layout_covers_the_vector_without_gaps_and_a_tied_matrix_once():
    layout = layout_of(small_model())
    place = 0
    for offset, shape in layout.entries.values():
        assert offset == place
        place += int(np.prod(shape))
    assert place == layout.size == sum(p.numel() for p in small_model().parameters())


def test_a_saved_model_comes_back_bit_for_bit(tmp_path):
    flat = saved(tmp_path)
    vector, layout, metadata = load_model(tmp_path)
    assert vector.tobytes() == flat.numpy().tobytes()
    assert layout == flat.layout
    assert metadata == {"round": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == [METADATA_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("name", [WEIGHTS_FILE, METADATA_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbage", "flipped"])
def test_a_damaged_model_is_bad_input(tmp_path, name, damage):
    saved(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        place = content.index(b'"0') + 2 if name == METADATA_FILE and b'"0' in content else len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": b"\x00\xff" * 90}[damage])
    with pytest.raises(BadInputError) as caught:
        load_model(tmp_path)
    assert caught.value.hint


def test_weights_that_do_not_match_their_metadata_are_refused(tmp_path):
    saved(tmp_path)
    document = json.loads((tmp_path / METADATA_FILE).read_bytes())
    document["layout"][0][1] = [14, 8]
    (tmp_path / METADATA_FILE).write_text(json.dumps(document))
    with pytest.raises(BadInputError, match="not signed"):
        load_model(tmp_path)
    sign_model_again(tmp_path / METADATA_FILE, document)
    with pytest.raises(BadInputError, match="damaged"):
        load_model(tmp_path)


def test_a_vector_of_another_model_is_refused_with_the_first_difference():
    with pytest.raises(BadInputError, match="shape"):
        FlatParameters(small_model()).load(np.zeros(5, dtype=np.float32))
    with pytest.raises(BadInputError, match=r"encoder\.bias_hh_l0"):
        check_layout(layout_of(small_model(encoder="gru")), layout_of(small_model()))
    check_layout(layout_of(small_model()), layout_of(small_model(seed=2)))


def test_restricting_and_expanding_keep_the_stocked_rows_and_everything_else():
    model = small_model(tied=False)
    layout, vector = layout_of(model), FlatParameters(model).numpy()
    mask = np.zeros(13, dtype=bool)
    mask[[4, 7]] = True
    rows = item_rows(layout, model.item_tensors(), mask)
    back = layout.split(rows.expand(rows.restrict(vector)))
    whole = layout.split(vector)
    for name in layout.entries:
        if name in model.item_tensors():
            assert np.array_equal(back[name][[4, 7]], whole[name][[4, 7]])
            assert np.count_nonzero(np.delete(back[name], [4, 7], axis=0)) == 0
        else:
            assert np.array_equal(back[name], whole[name])
    assert rows.translate(np.array([0, 4, 5, 7])).tolist() == [0, 1, 0, 2]


def test_a_mask_of_another_catalogue_is_refused():
    model = small_model()
    with pytest.raises(BadInputError, match="12 entries"):
        item_rows(layout_of(model), model.item_tensors(), np.ones(12, dtype=bool))
