"""Discrete Gaussian noise: the probabilities of the table number by number, and what a stream makes of them."""

from __future__ import annotations

import decimal
import hashlib
import math
import os
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from scipy import stats

from client.training import discrete_gaussian
from client.training.discrete_gaussian import bell_height, draw, table_of
from common.errors import ConfigError
from common.trust.randomness import PrivateStream, SeededStream

ALARM = 1e-6  # of each statistical test
DEVIATIONS = -stats.norm.ppf(ALARM / 2)
BITS = 320  # of the exact computations


def weights_of(log2_sigma: int) -> np.ndarray:
    """Weights of the steps as the columns of the table have them, not as it says: object[3072], out of 2**64."""
    table, column = table_of(log2_sigma), 1 << 52
    weights = [0] * len(table.threshold)
    for i, (threshold, alias) in enumerate(zip(table.threshold.tolist(), table.alias.tolist(), strict=True)):
        weights[i] += threshold
        weights[alias] += column - threshold
    assert sum(weights) == 1 << 64
    assert not any(table.bell[3072:]) and not any(table.sure[3072:])  # never kept
    return np.array(weights[:3072], dtype=object)


def probabilities(log2_sigma: int, numbers: np.ndarray) -> list[int]:
    """What numbers get before rejection is divided out, times a constant, as integers."""
    step = (numbers >> (log2_sigma - 7)) + 1536
    heights = bell_height(table_of(log2_sigma), numbers, step)
    assert heights.max() <= 2.0**51  # else a step would be too low
    exact = [int(math.ldexp(h, 53)) for h in heights.tolist()]
    assert [math.ldexp(e, -53) for e in exact] == heights.tolist()  # the second comparison has all of its bits
    return [int(w) * e for w, e in zip(weights_of(log2_sigma)[step], exact, strict=True)]


def bell_of_all(log2_sigma: int) -> Iterator[int]:
    """exp(-k**2 / (2 sigma**2)) * 2**320 for k = 0, 1, 2, ... by recurrence."""
    with decimal.localcontext(prec=110):
        ratio = int((-1 / decimal.Decimal(2 * 4**log2_sigma)).exp() * 2**BITS)
    value, factor, square = 1 << BITS, ratio, ratio * ratio >> BITS
    while True:
        yield value
        value, factor = value * factor >> BITS, factor * square >> BITS


def log_ratio(a: int, b: int) -> float:
    return float((a - b) / decimal.Decimal(b))


@pytest.mark.parametrize("log2_sigma", [8, 12])
def test_every_probability_is_that_of_the_discrete_gaussian(log2_sigma):
    reach = 12 << log2_sigma
    found = probabilities(log2_sigma, np.arange(-reach, reach))
    one_side = [value for _, value in zip(range(reach + 1), bell_of_all(log2_sigma), strict=False)]
    exact = [*one_side[:0:-1], *one_side[:reach]]
    beyond = 2 * one_side[reach]  # the terms fall faster than a geometric series of ratio 1/2 per deviation
    whole, all_found = sum(exact) + beyond * 2**log2_sigma, sum(found)
    with decimal.localcontext(prec=60):
        worst = max(abs(log_ratio(f * whole, e * all_found)) for f, e in zip(found, exact, strict=True))
    assert worst <= 2.0**-49
    assert worst > 2.0**-56  # the comparison is not of a thing with itself


def exactly(log2_sigma: int, numbers: Iterable[int]) -> list[decimal.Decimal]:
    return [(decimal.Decimal(-k * k) / (2 * 4**log2_sigma)).exp() for k in numbers]


@pytest.mark.parametrize("log2_sigma", [8, 13, 17, 20])
def test_sampled_probabilities_are_too(log2_sigma):
    """Half of 2**-49, up to a constant: then their normalized ratio is within 2**-49, whatever was not sampled."""
    width, reach = 1 << (log2_sigma - 7), 12 << log2_sigma
    rng = np.random.default_rng(log2_sigma)
    edges = np.arange(-reach, reach, width)[::3]
    numbers = np.unique(np.concatenate([rng.integers(-reach, reach, 6_000), edges, edges + width - 1, [-1, 0, 1]]))
    found = probabilities(log2_sigma, numbers)
    with decimal.localcontext(prec=50):
        ratios = [
            decimal.Decimal(f) / e for f, e in zip(found, exactly(log2_sigma, numbers.tolist()), strict=True)
        ]
        # the constant of the table: its rounding is common to all numbers
        spread = float(max(ratios) / min(ratios) - 1)
    assert spread <= 2.0**-49


@pytest.mark.parametrize("log2_sigma", range(8, 21))
def test_the_shortcut_keeps_nothing_that_the_bell_would_not(log2_sigma):
    table, width = table_of(log2_sigma), 1 << (log2_sigma - 7)
    step = np.arange(3072)
    for place in (0, width - 1):
        heights = bell_height(table, (step - 1536) * width + place, step)
        assert (table.sure[:3072] <= np.floor(heights)).all()
    assert weights_of(log2_sigma).tolist() == list(table.weights)


class Words:
    """A stream that gives chosen words."""

    def __init__(self, *batches: list[int]) -> None:
        self.batches = list(batches)

    def words(self, n: int) -> np.ndarray:
        batch = self.batches.pop(0)
        return np.array(batch[:n], dtype=np.uint64)


def column_of(log2_sigma: int, step: int) -> int:
    """A first word that lands on the step."""
    assert table_of(log2_sigma).threshold[step] > 0
    return step << 52


@pytest.mark.parametrize(("log2_sigma", "step", "place"), [(8, 0, 1), (8, 1, 0), (13, 0, 40), (20, 3071, 8_100)])
def test_a_tie_of_the_first_comparison_is_decided_by_a_second(log2_sigma, step, place):
    number = np.array([((step - 1536) << (log2_sigma - 7)) + place])
    height = float(bell_height(table_of(log2_sigma), number, np.array([step]))[0])
    whole, rest = math.floor(height), height - math.floor(height)
    assert 0 < rest < 1
    limit = int(rest * 2**53)
    for first, second, kept in (
        (whole - 1, 2**53 - 1, True),
        (whole, limit - 1, True),
        (whole, limit, False),
        (whole + 1, 0, False),
    ):
        stream = Words([column_of(log2_sigma, step)], [first << 13 | place], [second << 11])
        if not kept:  # another try lands at zero
            stream.batches += [[column_of(log2_sigma, 1536)], [0], []]
        assert draw(stream, log2_sigma, 1).tolist() == [int(number[0]) if kept else 0]  # type: ignore[arg-type]
        assert not stream.batches


def test_a_column_is_itself_below_its_threshold_and_its_alias_from_there():
    table = table_of(8)
    column = int(np.flatnonzero((table.threshold[:3072] > 2**40) & (table.threshold[:3072] < 2**51))[0])
    threshold, alias = int(table.threshold[column]), int(table.alias[column])
    for rest, step in ((0, column), (threshold - 1, column), (threshold, alias), (2**52 - 1, alias)):
        stream = Words([column << 52 | rest], [1], [])
        assert draw(stream, 8, 1).tolist() == [(step - 1536) * 2 + 1]  # type: ignore[arg-type]


def test_what_was_rejected_is_drawn_anew_until_it_is_kept():
    full, zero = [(2**51 - 1) << 13], [1536 << 52]
    above = [1400 << 52], full, [0]  # the last place of a step is never wholly under the bell
    below = [1700 << 52], [1], []
    first = [[*zero, *above[0], *zero], [0, *full, 1], [0, 0, 0]]
    stream = Words(*first, *above, *above, *above, *below)
    found = draw(stream, 8, 3).tolist()  # type: ignore[arg-type]
    assert found == [0, (1700 - 1536) * 2 + 1, 1]
    assert not stream.batches


@pytest.fixture(scope="module", params=[8, 14, 20])
def drawn(request):
    numbers = draw(PrivateStream(), request.param, 1_000_000)
    assert numbers.dtype == np.int64
    return request.param, numbers


def test_mean_and_variance_are_those_of_the_bell(drawn):
    log2_sigma, numbers = drawn
    z = numbers / 2**log2_sigma
    assert abs(z.mean()) * math.sqrt(z.size) < DEVIATIONS
    assert abs((z**2).mean() - 1) * math.sqrt(z.size / 2) < DEVIATIONS
    assert abs((z**4).mean() - 3) * math.sqrt(z.size / 96) < DEVIATIONS


def test_tails_are_those_of_the_bell(drawn):
    log2_sigma, numbers = drawn
    for deviations in (2, 4):
        far = int((np.abs(numbers) > deviations << log2_sigma).sum())
        expected = 2 * stats.norm.sf(deviations + 2.0 ** -(log2_sigma + 1))
        assert stats.binomtest(far, numbers.size, expected).pvalue > ALARM


def test_the_distribution_is_that_of_the_bell(drawn):
    log2_sigma, numbers = drawn
    spread = (numbers + PrivateStream().uniform(numbers.size) - 0.5) / 2**log2_sigma
    assert stats.kstest(spread, "norm").pvalue > ALARM


def test_low_bits_are_uniform_and_neighbours_independent(drawn):
    log2_sigma, numbers = drawn
    bits = min(log2_sigma - 6, 10)  # across the border of two steps
    assert stats.chisquare(np.bincount(numbers & ((1 << bits) - 1), minlength=1 << bits)).pvalue > ALARM
    z = numbers / 2**log2_sigma
    for lag in (1, 2, 1 << 15):
        assert abs((z[lag:] * z[:-lag]).mean()) * math.sqrt(z.size - lag) < DEVIATIONS


def test_streams_are_independent():
    a, b = (draw(PrivateStream(), 16, 400_000) / 2**16 for _ in range(2))
    assert abs((a * b).mean()) * math.sqrt(a.size) < DEVIATIONS
    assert (a == b).mean() < 1e-4


def digest(stream: PrivateStream) -> bytes:
    return hashlib.sha256(draw(stream, 12, 1_000).tobytes()).digest()


def test_a_child_draws_other_noise_than_its_parent():
    stream = PrivateStream()
    draw(stream, 12, 10)
    receive, send = os.pipe()
    if not (child := os.fork()):
        os.write(send, digest(stream))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(receive, 32) != digest(stream)


def test_only_noise_of_a_private_stream_cannot_be_repeated():
    assert draw(SeededStream(4), 12, 100).tolist() == draw(SeededStream(4), 12, 100).tolist()
    assert not SeededStream(4).private  # so nothing may be claimed for it
    assert PrivateStream().private
    assert draw(PrivateStream(), 12, 100).tolist() != draw(PrivateStream(), 12, 100).tolist()


@pytest.mark.parametrize("size", [0, 1, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 100_003])
def test_any_number_of_numbers_can_be_drawn(size):
    numbers = draw(PrivateStream(), 10, size)
    assert numbers.shape == (size,)
    if size > 10_000:  # each block is filled to its end
        assert all(np.count_nonzero(part) > 0 for part in np.array_split(numbers, size // 1_000))


@pytest.mark.parametrize("log2_sigma", [-1, 0, 7, 21, 64])
def test_another_sigma_is_refused(log2_sigma):
    with pytest.raises(ConfigError, match="outside"):
        draw(PrivateStream(), log2_sigma, 1)


def test_the_table_is_built_once():
    assert table_of(9) is table_of(9)
    assert discrete_gaussian.table_of.cache_info().maxsize == 13
