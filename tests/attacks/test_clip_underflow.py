"""A hostile model cannot make a consumer's norm vanish in float32 while its gradient does not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from client.training.dpsgd.clipping import clip_factors
from client.training.dpsgd.norms import squared_norms
from client.training.dpsgd.records import Outer
from client.training.dpsgd.rows import RowMap
from client.training.dpsgd.sums import add_weighted


def _record(gradient: float, size: float, steps: int = 50, *, outputs: int = 8, inputs: int = 16) -> Outer:
    """Every row the same: tiny output gradients beside huge layer inputs. Norm = steps * |g| * |a|."""
    weight = Parameter(torch.zeros(outputs, inputs))
    rows = RowMap(torch.zeros(steps, dtype=torch.int64), 1)
    return Outer(rows, torch.full((steps, outputs), gradient), (weight,), torch.full((steps, inputs), size))


@pytest.mark.parametrize(("gradient", "size"), [(1e-23, 1e18), (1e-30, 1e19), (1e-20, 1e10), (3e-24, 1.8e19)])
@pytest.mark.parametrize("clip", [1e-3, 1e-9])
def test_the_clipped_part_of_a_hostile_consumer_is_at_most_the_clip(
    gradient: float, size: float, clip: float
) -> None:
    record = _record(gradient, size)
    factors = clip_factors(squared_norms([record], 1), clip)
    total = {id(record.weights[0]): torch.zeros_like(record.weights[0])}
    add_weighted([record], factors, total, fresh=True)
    assert float(total[id(record.weights[0])].double().norm()) <= clip * (1 + 1e-5)


def test_an_ordinary_norm_is_what_it_was() -> None:
    record = _record(0.01, 0.5)
    truth = 50 * (0.01 * 8**0.5) * (0.5 * 16**0.5)
    assert float(squared_norms([record], 1).sqrt()) == pytest.approx(truth, rel=1e-5)
