"""A share of a sum's noise: clamped, rounded, noised and wrapped in this order, and noted as it was drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import client.training.quorum as quorum_module
from client.training.quorum import QuorumMechanism, Share
from common.contribution import UPDATE, Block
from common.errors import LocalProtocolError
from common.privacy import TRAIN_SIDE, PrivacyEvent, Quorum, noised_grid, rounded_sensitivity
from common.secagg.fixedpoint import check_blocks, decode
from common.trust.randomness import PrivateStream, SeededStream

QUORUM = Quorum(sites=8, threshold=6, colluders=2, honest=4)
LENGTH, SENSITIVITY, MULTIPLIER = 20_000, 0.3, 0.72


def share_of(length: int = LENGTH, multiplier: float = MULTIPLIER) -> Share:
    grid = noised_grid(sites=8, length=length, sensitivity=SENSITIVITY, limit=15.0, multiplier=multiplier)
    block = Block(UPDATE, length, 15.0, 0, grid.unit, grid.log2_sigma)
    check_blocks((block,), 8)
    return Share(block, SENSITIVITY, multiplier, QUORUM, TRAIN_SIDE)


def released(share: Share, total: np.ndarray, stream=None):
    return QuorumMechanism(share, stream or PrivateStream()).release(total)


@pytest.fixture
def silent(monkeypatch):
    """Without noise: what is left is clamped and rounded."""
    monkeypatch.setattr(quorum_module, "draw", lambda _stream, _bits, size: np.zeros(size, dtype=np.int64))


def test_the_event_is_that_of_one_sum_with_every_number_of_the_quorum():
    mechanism = QuorumMechanism(share_of(), PrivateStream())
    mechanism.sample(0.2, 100)
    assert mechanism.release(np.zeros(LENGTH)).events == (
        PrivacyEvent(MULTIPLIER, 0.2, 1, TRAIN_SIDE, honest=4, colluders=2),
    )


def test_a_sum_of_everybody_has_no_sampling():
    (event,) = released(share_of(), np.zeros(LENGTH)).events
    assert (event.sampling_rate, event.steps, event.sub_scope) == (1.0, 1, TRAIN_SIDE)


def test_consumers_are_sampled_at_the_rate_of_the_event_each_on_its_own():
    counts = np.zeros(20_000)
    for _ in range(50):
        mechanism = QuorumMechanism(share_of(10), PrivateStream())
        rows = mechanism.sample(0.2, counts.size)
        assert len(np.unique(rows)) == len(rows)
        counts[rows] += 1
        assert mechanism.release(np.zeros(10)).events[0].sampling_rate == 0.2
    wanted = stats.binom.pmf(np.arange(51), 50, 0.2) * counts.size
    seen = np.bincount(counts.astype(int), minlength=51)
    common = wanted > 20
    assert stats.chisquare(seen[common], wanted[common] * seen[common].sum() / wanted[common].sum()).pvalue > 1e-6


def test_every_coordinate_has_noise_of_the_block_and_at_least_what_is_claimed():
    share = share_of(500)
    found = np.stack([decode(released(share, np.zeros(500)).vector, (share.block,)) for _ in range(400)])
    scaled = found / share.block.noise_scale
    squares = (scaled**2).sum(axis=0)
    assert stats.chi2.ppf(1e-9, 400) < squares.min() <= squares.max() < stats.chi2.isf(1e-9, 400)
    assert abs((scaled**2).mean() - 1) < 5.5 * math.sqrt(2 / scaled.size)
    assert share.block.noise_scale >= MULTIPLIER * SENSITIVITY  # rounding and float32 have their part beside it
    assert share.block.noise_scale <= 1.01 * MULTIPLIER * SENSITIVITY


def test_two_releases_draw_two_noises_and_no_coordinate_repeats_another():
    share = share_of()
    one, two = (
        released(share, np.zeros(LENGTH)).vector.view(np.int32) / 2.0**share.block.noise_bits for _ in range(2)
    )
    assert abs(one @ two) / math.sqrt(LENGTH) < 5.5
    for lag in (1, 2, 100, LENGTH // 2):
        assert abs(one[lag:] @ one[:-lag]) / math.sqrt(LENGTH - lag) < 5.5
    assert stats.kstest(one, "norm").pvalue > 1e-6


def test_a_coordinate_is_clamped_before_noise_and_never_after():
    share = share_of()
    block, limit = share.block, share.block.limit
    for sign in (1, -1):
        ring = released(share, np.full(LENGTH, sign * 1e30)).vector.view(np.int32).astype(np.float64)
        beyond = (ring - sign * limit) / 2.0**block.noise_bits
        assert 0.47 < (sign * beyond > 0).mean() < 0.53  # half of them lie outside of the clamp
        assert stats.kstest(beyond, "norm").pvalue > 1e-6


@pytest.mark.usefixtures("silent")
def test_a_sum_is_rounded_to_whole_units_without_bias():
    share = share_of()
    values = np.full(LENGTH, 0.3 * share.block.unit)
    ring = released(share, values).vector
    assert set(ring.tolist()) == {0, 1}
    assert abs(ring.mean() - 0.3) < 5.5 * math.sqrt(0.21 / LENGTH)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sum_that_is_not_finite_is_answered_like_any_other(bad):
    total = np.zeros(LENGTH)
    total[7] = bad
    assert not released(share_of(), total).vector.any()


@pytest.mark.parametrize("change", ["more noise wanted", "a finer unit", "less noise in the block"])
def test_less_noise_than_planned_is_noted_as_less(change):
    share = share_of()
    if change == "more noise wanted":
        share = replace(share, multiplier=1.001 * MULTIPLIER)
    elif change == "a finer unit":
        share = replace(share, block=replace(share.block, unit=share.block.unit / 1.001))
    else:
        share = replace(share, block=replace(share.block, noise_bits=share.block.noise_bits - 1))
    (event,) = released(share, np.zeros(LENGTH)).events
    moved = rounded_sensitivity(share.grid, SENSITIVITY, LENGTH)
    assert event.noise_multiplier < share.multiplier
    assert event.noise_multiplier * moved <= 2**share.block.noise_bits  # and no more than is there


def test_a_coarse_grid_pays_for_rounding():
    block = Block(UPDATE, LENGTH, 15.0, 0, unit=SENSITIVITY / 50, noise_bits=8)  # 50 units before rounding
    (event,) = released(Share(block, SENSITIVITY, 256 / 50, QUORUM, TRAIN_SIDE), np.zeros(LENGTH)).events
    assert event.noise_multiplier < 256 / math.sqrt(50**2 + LENGTH / 4)


def test_noise_that_can_be_known_is_nothing_to_claim():
    assert released(share_of(), np.zeros(LENGTH), SeededStream(4)).events == ()


def test_a_share_serves_one_release():
    mechanism = QuorumMechanism(share_of(), PrivateStream())
    mechanism.release(np.zeros(LENGTH))
    with pytest.raises(LocalProtocolError, match="one release"):
        mechanism.release(np.zeros(LENGTH))


def test_nothing_of_a_mechanism_is_printed():
    mechanism = QuorumMechanism(share_of(), PrivateStream())
    assert repr(mechanism) == "QuorumMechanism(update, 0.72)"
    assert "[" in repr(released(share_of(), np.zeros(LENGTH)))


def test_a_share_is_made_of_ring_elements_that_nobody_scales():
    release = released(share_of(), np.zeros(LENGTH))
    assert release.in_ring
    with pytest.raises(LocalProtocolError, match="not multiplied"):
        release.scaled(0.5)


def test_tails_and_low_bits_of_a_share_are_those_of_the_bell():
    share = share_of(1_000_000)
    ring = released(share, np.zeros(1_000_000)).vector.view(np.int32)
    for deviations in (3, 4):
        far = int((np.abs(ring) > deviations * 2.0**share.block.noise_bits).sum())
        assert stats.binomtest(far, ring.size, 2 * stats.norm.sf(deviations)).pvalue > 1e-6
    assert stats.chisquare(np.bincount(ring & 15, minlength=16)).pvalue > 1e-6


def test_every_one_of_many_releases_has_noise_of_its_own():
    share = share_of(8)
    many = [released(share, np.zeros(8)).vector.view(np.int32) for _ in range(1_000)]
    assert len({one.tobytes() for one in many}) == 1_000
    assert min(np.square(one / 2.0**share.block.noise_bits).sum() for one in many) > 1e-2
