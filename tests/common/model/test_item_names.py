"""Items begin where the words of their public names say: likeness without a consumer, and without epsilon."""

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from common.model.item_names import begin_with_names, name_rows
from common.model.network import ModelShape, SequenceModel, build_model
from common.run import ModelSettings

NAMES = ("RED RETROSPOT CAKE STAND", "Pink retrospot cake stand", "WOODEN FRAME", "", "frame, wooden!")


def model(**settings: float) -> SequenceModel:
    return build_model(ModelSettings(**settings), ModelShape({"item": 6, "event": 4}), seed=1)


def test_items_that_share_words_begin_close_and_others_do_not() -> None:
    rows = name_rows(NAMES, 64)
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > 0.4 > 0.3 > abs(far)
    assert rows[2] @ rows[4] == pytest.approx(1, abs=1e-5)  # order, case and marks do not matter
    assert not rows[3].any()
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 1, 2, 4]], axis=1), 1, atol=1e-6)


def test_rare_words_weigh_more_than_frequent_ones() -> None:
    rows = name_rows(["set owl", "set lamp", "set chair", "set owl big"], 256)
    assert rows[0] @ rows[3] > rows[0] @ rows[1]


def test_the_rows_follow_from_the_names_alone() -> None:
    np.testing.assert_array_equal(name_rows(NAMES, 16), name_rows(NAMES, 16))
    np.testing.assert_array_equal(name_rows(["owl"], 16), name_rows(["owl", "owl"], 16)[:1])


def test_named_items_begin_with_their_words_and_the_rest_as_without_names() -> None:
    plain, named = model(), model()
    begin_with_names(named, NAMES)
    length = named.item.weight.norm(dim=1)
    assert torch.allclose(length[[1, 2, 3, 5]], torch.full((4,), 2.0))
    assert torch.equal(named.item.weight[[0, 4]], plain.item.weight[[0, 4]])
    assert torch.equal(named.encoder.weight_hh_l0, plain.encoder.weight_hh_l0)


@pytest.mark.parametrize(("names", "scale"), [(NAMES, 0.0), ((), 2.0)])
def test_names_can_be_left_out(names: tuple[str, ...], scale: float) -> None:
    plain, same = model(), model(name_scale=scale)
    begin_with_names(same, names)
    assert torch.equal(same.item.weight, plain.item.weight)


def test_more_names_than_items_are_refused() -> None:
    with pytest.raises(ConfigError, match="6 item names for a model of 5 items"):
        begin_with_names(model(), [*NAMES, "one too many"])
