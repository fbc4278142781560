from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from common.contribution import Block
from common.errors import BadInputError, ConfigError, LocalProtocolError
from common.secagg import fixedpoint

LAYOUT = (Block("update", 4, 1.0, 20), Block("count", 1, 500.0, 0))


def test_numbers_on_the_grid_come_back_exactly() -> None:
    vector = np.array([1.0, -1.0, 0.5, -(2.0**-20), 499.0])
    quantized = fixedpoint.quantize(vector, LAYOUT)
    assert quantized.saturated == 0
    np.testing.assert_array_equal(fixedpoint.decode(quantized.ring, LAYOUT), vector)


def test_zero_is_never_rounded_away() -> None:
    block = (Block("rows", 100_000, 1.0, 20),)
    assert not fixedpoint.quantize(np.zeros(100_000), block).ring.any()


def test_rounding_is_without_bias_and_within_one_step() -> None:
    value, draws = 0.3, 200_000
    block = (Block("x", draws, 1.0, 0),)
    ring = fixedpoint.quantize(np.full(draws, value), block).ring
    assert set(np.unique(ring)) == {0, 1}
    assert abs(ring.mean() - value) < 6 * math.sqrt(value * (1 - value) / draws)
    negative = fixedpoint.quantize(np.full(draws, -value), block).ring.view(np.int32)
    assert set(np.unique(negative)) == {-1, 0}
    assert abs(negative.mean() + value) < 6 * math.sqrt(value * (1 - value) / draws)


def test_saturated_coordinates_are_cut_and_counted() -> None:
    quantized = fixedpoint.quantize(np.array([1.5, -1e300, 1.0, 0.0, 501.0]), LAYOUT)
    assert quantized.saturated == 3
    np.testing.assert_array_equal(fixedpoint.decode(quantized.ring, LAYOUT), [1.0, -1.0, 1.0, 0.0, 500.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(BadInputError, match="finite"):
        fixedpoint.quantize(np.array([0.0, 0.0, 0.0, bad, 0.0]), LAYOUT)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(BadInputError):
        fixedpoint.quantize(np.zeros(4), LAYOUT)


@pytest.mark.parametrize(
    "block",
    [
        Block("b", 1, 1.0, 31),
        Block("b", 1, 1.0, -1),
        Block("b", 0, 1.0, 8),
        Block("b", 1, 0.0, 8),
        Block("b", 1, -1.0, 8),
        Block("b", 1, math.inf, 8),
        Block("b", 1, math.nan, 8),
        Block("b", 1, 1, 8),
        Block("b", 1, 128.0, 21),
        Block("b", (1 << 28) + 1, 1.0, 8),
    ],
)
def test_blocks_that_could_wrap_or_make_no_sense_are_refused(block: Block) -> None:
    with pytest.raises(ConfigError):
        fixedpoint.check_blocks((block,), 10)


def test_two_blocks_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError):
        fixedpoint.check_blocks((Block("b", 1, 1.0, 8), Block("b", 1, 1.0, 8)), 10)


def test_the_precision_proposed_in_the_hint_fits() -> None:
    for sites in (3, 10, 100):
        for clip in (0.01, 1.0, 3.7, 1000.0):
            with pytest.raises(ConfigError) as caught:
                fixedpoint.check_blocks((Block("b", 1, clip * 2**20, 30),), sites)
            assert "fractional bits" in caught.value.hint


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.integers(3, 100),
    st.floats(1e-6, 1e6),
    st.integers(0, 30),
    st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=5),
    st.sampled_from([-1.0, 1.0]),
)
def test_no_input_whatever_makes_a_sum_wrap(sites: int, clip: float, bits: int, values, sign: float) -> None:
    layout = (Block("b", len(values) + 1, clip, bits),)
    try:
        fixedpoint.check_blocks(layout, sites)
    except ConfigError:
        return
    vector = np.array([*values, sign * 1e308])  # the last coordinate is at the limit at every site
    ring = fixedpoint.quantize(vector, layout).ring
    fixedpoint.check_ring(ring, layout)
    total = np.zeros_like(ring)
    exact = np.zeros(ring.size, dtype=object)
    for _ in range(sites):
        total += ring
        exact += ring.view(np.int32).astype(object)
    assert [int(x) for x in total.view(np.int32)] == list(exact)
    assert abs(int(exact[-1])) == sites * layout[0].limit or clip * 2**bits % 1


def test_a_ring_vector_outside_its_blocks_is_refused() -> None:
    good = fixedpoint.quantize(np.zeros(5), LAYOUT).ring
    fixedpoint.check_ring(good, LAYOUT)
    for position, value in ((0, (1 << 20) + 1), (4, 501)):
        for signed in (value, -value):
            bad = good.copy()
            bad[position] = np.uint32(signed & 0xFFFFFFFF)
            with pytest.raises(LocalProtocolError):
                fixedpoint.check_ring(bad, LAYOUT)
    with pytest.raises(LocalProtocolError):
        fixedpoint.check_ring(good[:-1], LAYOUT)
    with pytest.raises(LocalProtocolError):
        fixedpoint.check_ring(good.astype(np.int32), LAYOUT)


def test_the_words_given_decide_the_rounding() -> None:
    vector = np.array([0.5, 0.5, 0.5, 0.5, 0.5]) * 2.0**-20
    low = fixedpoint.quantize(vector, LAYOUT, lambda n: np.zeros(n, dtype=np.uint32))
    high = fixedpoint.quantize(vector, LAYOUT, lambda n: np.full(n, 2**32 - 1, dtype=np.uint32))
    assert list(low.ring) == [1, 1, 1, 1, 1]
    assert list(high.ring) == [0, 0, 0, 0, 0]


def test_what_is_quantized_shows_no_number() -> None:
    assert "1048576" not in repr(fixedpoint.quantize(np.ones(5), LAYOUT))
