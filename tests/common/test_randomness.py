"""The cryptographic stream: distributions (alarm level 1e-6 each, fixed by a seed), forks, copies."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
from scipy import stats

from common.trust.randomness import PrivateStream, RandomStream, SeededStream

N = 200_000


class Fixed(SeededStream):
    """A stream whose words are all the same."""

    def __init__(self, word: int) -> None:
        super().__init__(0)
        self._word = word

    def _words(self, kind: type, count: int) -> np.ndarray:
        return np.full(count, self._word, dtype=np.uint64).view(kind)[:count]


def test_only_the_private_stream_calls_itself_private() -> None:
    assert PrivateStream().private and not SeededStream(1).private
    assert "private=False" in repr(SeededStream(1))


def test_seeded_streams_repeat_and_private_streams_do_not() -> None:
    assert SeededStream(7).bytes(64) == SeededStream(7).bytes(64) != SeededStream(7 + 2**32).bytes(64)
    assert PrivateStream().bytes(64) != PrivateStream().bytes(64)


def test_a_stream_does_not_depend_on_how_it_is_read() -> None:
    whole, parts = SeededStream(3), SeededStream(3)
    assert whole.bytes(100_000) == b"".join(parts.bytes(n) for n in (1, 15, 16, 17, 99_951))


def test_neither_seeds_of_numpy_nor_of_torch_reach_it() -> None:
    draws = []
    for _ in range(2):
        np.random.seed(0)
        draws.append(PrivateStream().gaussian(4))
    assert not np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize("make", [PrivateStream, lambda: SeededStream(5)])
def test_a_forked_process_draws_other_noise(make) -> None:
    stream: RandomStream = make()
    stream.bytes(16)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, stream.bytes(32))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 32) != stream.bytes(32)
    os.close(read)
    os.close(write)


def test_a_stream_can_be_neither_copied_nor_serialized() -> None:
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="repeat its noise"):
            attempt(PrivateStream())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("hardened", [False, True])
def test_normals_are_normal(kind: type, hardened: bool) -> None:
    out = np.empty(N, dtype=kind)
    SeededStream(11).fill_gaussian(out, hardened=hardened)
    assert stats.kstest(out.astype(np.float64), "norm").pvalue > 1e-6
    assert abs(out.mean()) < 5 / np.sqrt(N) and abs(out.astype(np.float64).var() - 1) < 5 * np.sqrt(2 / N)
    assert np.abs(out).max() > 3.9


def test_the_two_halves_of_box_muller_are_independent() -> None:
    out = SeededStream(13).gaussian(2 * 8_192).reshape(2, -1)
    assert abs(np.corrcoef(out)[0, 1]) < 5 / np.sqrt(8_192)
    assert abs(np.corrcoef(out**2)[0, 1]) < 5 / np.sqrt(8_192)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 32_767, 32_768, 32_769, 100_001])
def test_every_size_is_filled_completely(size: int) -> None:
    out = np.full(size, np.nan, dtype=np.float32)
    SeededStream(1).fill_gaussian(out, scale=2.0)
    assert np.isfinite(out).all() and (out != 0).all()


def test_a_matrix_is_filled_in_place_with_the_scale() -> None:
    out = np.zeros((300, 300), dtype=np.float32)
    SeededStream(2).fill_gaussian(out, scale=3.0)
    assert out.std() == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(
    "out", [np.zeros((4, 4))[:, ::2], np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.float16)]
)
def test_what_cannot_be_filled_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="contiguous float32 or float64"):
        SeededStream(1).fill_gaussian(out)


@pytest.mark.parametrize("word", [0, 2**64 - 1, 2**63])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_extreme_words_give_finite_noise(word: int, kind: type) -> None:
    out = np.empty(8, dtype=kind)
    Fixed(word).fill_gaussian(out)
    assert np.isfinite(out).all() and np.abs(out).max() < 10


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.04, 0.5, 0.999, 1.0])
def test_coins_have_their_probability(p: float) -> None:
    hits = int(SeededStream(17).bernoulli(p, N).sum())
    assert stats.binomtest(hits, N, p).pvalue > 1e-6 if 0 < p < 1 else hits == p * N


def test_coins_are_exact_at_the_threshold_word() -> None:
    threshold = int(0.3 * 2**64)
    assert Fixed(threshold - 1).bernoulli(0.3, 1)[0] and not Fixed(threshold).bernoulli(0.3, 1)[0]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        SeededStream(1).bernoulli(p, 3)


def test_words_are_the_keystream_and_may_be_overwritten() -> None:
    words = SeededStream(3).words(1_000)
    assert words.dtype == np.uint64 and words.tobytes() == SeededStream(3).bytes(8_000)
    words &= np.uint64(1)
    assert not np.array_equal(words, SeededStream(3).words(1_000))
    ones = sum(int(w).bit_count() for w in PrivateStream().words(10_000))
    assert stats.binomtest(ones, 640_000).pvalue > 1e-6


def test_uniform_numbers_stay_below_one() -> None:
    assert Fixed(0).uniform(1)[0] >= 0 and Fixed(2**64 - 1).uniform(1)[0] < 1
    assert stats.kstest(SeededStream(19).uniform(N), "uniform").pvalue > 1e-6


def test_stochastic_rounding_keeps_the_mean_and_moves_less_than_one() -> None:
    values = np.full(N, -2.3)
    rounded = SeededStream(23).stochastic_round(values)
    assert set(np.unique(rounded)) == {-3, -2}
    assert abs(rounded.mean() + 2.3) < 5 * np.sqrt(0.21 / N)
    assert (SeededStream(1).stochastic_round(np.array([[1.0, -4.0]])) == [[1, -4]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**62])
def test_values_that_cannot_be_rounded_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        SeededStream(1).stochastic_round(np.array([0.5, bad]))
