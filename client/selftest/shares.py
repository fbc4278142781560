"""A share of a sum's noise by itself: the discrete Gaussian that is drawn, and the mechanism that adds it to a sum."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

import client.selftest.report as report
from client.selftest.report import Check
from client.training.discrete_gaussian import bell_height, table_of
from client.training.quorum import QuorumMechanism, Share
from common.contribution import UPDATE, Block
from common.privacy import (
    TRAIN_SIDE,
    NoisedGrid,
    PrivacyEvent,
    Quorum,
    carried_multiplier,
    noised_grid,
    to_ring,
)
from common.trust.randomness import PrivateStream, SeededStream

COUNTED_ON = Quorum(sites=5, threshold=4, colluders=1, honest=3)
DRAWN, FAR = 1 << 18, 1 << 22
ALL_BITS = range(8, 21)
CONSUMERS = 1 << 20
RELEASES = 500
CARRIED = (NoisedGrid(1.0, 8, 1_000), 100.0, 10_000, 2.1912306)
"""Grid, sensitivity, length -> what the noise is worth: sqrt(4**8 - 16) over the root of 100.1**2 + 2500 + 7.5 * 150.1."""


def draws() -> list[Check]:
    """The table's probabilities one by one, the low bits, the whole distribution to its tails, and independence."""
    checks = [_table(8), _exact(8), *(_spread(bits) for bits in ALL_BITS)]
    for bits in (8, 20):
        numbers = drawn(bits, DRAWN)
        smooth = (numbers + PrivateStream().uniform(DRAWN) - 0.5) / 2**bits
        checks += report.normality_checks(f"a share of 2**{bits} units", smooth)
        low = np.bincount(numbers & 15, minlength=16)
        checks.append(
            report.frequencies_check(f"low bits of 2**{bits} units", low, np.full(16, 1 / 16), "uniform")
        )
    two = [drawn(16, DRAWN) / 2.0**16 for _ in range(2)]
    far = drawn(14, FAR) / 2.0**14
    return [
        *checks,
        report.far_tails_check("a share", far),
        report.variance_check("the end of a long share", far[-DRAWN:], "variance 1 there too"),
        report.correlation_check("two shares", *two),
        report.lags_check("a share at any distance", np.stack(two)),
        *_every_one(),
    ]


def drawn(bits: int, size: int) -> NDArray[np.int64]:
    """What the mechanism adds to nothing, in units of the ring."""
    block = Block(UPDATE, size, 15.0, 0, 1e-6, bits)
    release = QuorumMechanism(Share(block, 0.3, 1e-3, COUNTED_ON, TRAIN_SIDE), PrivateStream()).release(
        np.zeros(size)
    )
    return release.vector.view(np.int32).astype(np.int64)


def _table(bits: int) -> Check:
    """Relative error of the probability of every number: from the columns as they are drawn from, not as they are named."""
    table, reach = table_of(bits), 12 << bits
    weights = np.zeros(len(table.threshold))
    np.add.at(weights, np.arange(len(weights)), table.threshold.astype(np.float64))
    np.add.at(weights, table.alias, 2.0**52 - table.threshold.astype(np.float64))
    numbers = np.arange(-reach, reach)
    step = (numbers >> (bits - 7)) + (12 << 7)
    near = np.abs(numbers) < reach // 2  # a sum of doubles has too few digits for weights further out
    chance = (weights[step] * bell_height(table, numbers, step))[near]
    bell = np.exp(-((numbers[near] / 2.0**bits) ** 2) / 2)
    ratio = chance / bell
    return report.at_most(
        "probabilities of a share", float(np.ptp(ratio) / ratio.mean()), 1e-9, "those of the bell, each"
    )


def _exact(bits: int) -> Check:
    """How often each number comes."""
    most = 5 << bits
    numbers = np.clip(drawn(bits, DRAWN), -most, most)
    bell = np.exp(-((np.arange(-(12 << bits), 12 << bits) / 2.0**bits) ** 2) / 2)
    centre = 12 << bits
    inner = bell[centre - most : centre + most + 1].copy()
    inner[0], inner[-1] = bell[: centre - most + 1].sum(), bell[centre + most :].sum()
    counts = np.bincount(numbers + most, minlength=len(inner))
    return report.frequencies_check(f"numbers of 2**{bits} units", counts, inner / bell.sum(), "those of the bell")


def _spread(bits: int) -> Check:
    share = drawn(bits, 1 << 15) / 2.0**bits
    return report.variance_check(f"deviation of 2**{bits} units", share, "variance 1 in units of the block")


def _every_one() -> list[Check]:
    """Many short releases: none goes without, nor repeats one before; and every sum of coordinates has its noise."""
    many = np.stack([drawn(20, 8) for _ in range(RELEASES)]) / 2.0**20
    least = float(np.square(many).sum(axis=1).min())
    repeated = RELEASES - len({one.tobytes() for one in many})
    ways = {"all together": np.ones(8), "one half against the other": np.repeat([1.0, -1.0], 4)}
    return [
        Check("every release", least > 1e-2 and not repeated, least, 1e-2, "has noise of its own, at least this"),
        *(
            report.variance_check(f"releases, {words}", many @ way / np.sqrt(8), "variance 1 in this direction")
            for words, way in ways.items()
        ),
    ]


def mechanism() -> list[Check]:
    """One release: clamped, rounded without bias, then noised; what it says it did is what it did."""
    length = 1 << 15
    share = _share(length, multiplier=1.3)
    block = share.block
    limit = block.limit
    far = QuorumMechanism(share, PrivateStream()).release(np.full(length, -1e30))
    beyond = (far.vector.view(np.int32).astype(np.float64) + limit) / 2.0**block.noise_bits
    sampling = QuorumMechanism(share, PrivateStream())
    who, again = sampling.sample(0.2, CONSUMERS), QuorumMechanism(share, PrivateStream()).sample(0.2, CONSUMERS)
    said = sampling.release(np.zeros(length)).events
    return [
        *report.normality_checks("noise of a sum at its limit", beyond + (PrivateStream().uniform(length) - 0.5) / 2.0**block.noise_bits),
        report.at_most("consumers of a shared sum", deviations(len(who), CONSUMERS, 0.2), 5.5, "Poisson, in deviations"),
        report.at_most("consumers of two sums", deviations(len(np.intersect1d(who, again)), CONSUMERS, 0.04), 5.5, "drawn anew"),
        report.holds("what is noted of a share", said == (_event(1.3, 0.2),), "noise, rate, honest and colluding sites as planned"),
        report.holds("what is noted of everybody", far.events == (_event(1.3, 1.0),), "a sum of all has no sampling"),
        *_honest_about_less(share),
        _unbiased(share),
    ]  # fmt: skip


def _share(length: int, multiplier: float) -> Share:
    grid = noised_grid(sites=5, length=length, sensitivity=0.3, limit=15.0, multiplier=multiplier)
    block = Block(UPDATE, length, 15.0, 0, grid.unit, grid.log2_sigma)
    return Share(block, 0.3, multiplier, COUNTED_ON, TRAIN_SIDE)


def _event(multiplier: float, rate: float) -> PrivacyEvent:
    return PrivacyEvent(multiplier, rate, 1, TRAIN_SIDE, honest=3, colluders=1)


def deviations(seen: int, of: int, rate: float) -> float:
    """How far a binomial number lies from its mean, in deviations."""
    return float(abs(seen - of * rate) / np.sqrt(of * rate * (1 - rate)))


def _honest_about_less(share: Share) -> list[Check]:
    """A grid that carries less noise than was planned is told by the event; its slack for rounding counts."""
    from common.errors import LocalProtocolError

    nothing = np.zeros(share.block.length)
    less = dataclasses.replace(share, multiplier=share.multiplier * 1.0005)
    (told,) = QuorumMechanism(less, PrivateStream()).release(nothing).events
    coarse = dataclasses.replace(share.block, unit=share.block.unit * 1e4, noise_bits=8)
    loose = dataclasses.replace(share, block=coarse, multiplier=1e-3)
    moved = 0.3 / coarse.unit  # units, before rounding: without a slack so much noise would be claimed
    claimed = QuorumMechanism(dataclasses.replace(loose, multiplier=256 / moved), PrivateStream())
    (rounded,) = claimed.release(nothing).events
    bare = 256 / np.sqrt(moved**2 + share.block.length / 4)
    known = QuorumMechanism(share, SeededStream(1)).release(nothing).events
    twice = QuorumMechanism(share, PrivateStream())
    twice.release(nothing)
    try:
        twice.release(nothing)
        refused = False
    except LocalProtocolError:
        refused = True
    grid, sensitivity, length, carried = CARRIED
    worth = carried_multiplier(grid, sensitivity, length)
    return [
        Check("what noise is worth", abs(worth - carried) < 1e-6, worth, carried, "known answer, after rounding"),
        report.holds("less noise than planned", told.noise_multiplier < less.multiplier, "is noted, and refused by the guard"),
        report.at_most("noise after rounding", rounded.noise_multiplier, bare, "less than before rounding moved neighbours apart"),
        report.holds("noise that can be known", known == (), "nothing is claimed for it"),
        report.holds("a share serves one release", refused, "the second is refused"),
    ]  # fmt: skip


def _unbiased(share: Share) -> Check:
    """Rounding keeps the mean of a value between two units."""
    values = np.full(share.block.length, share.block.unit / 3)
    ring = to_ring(values, share.grid, PrivateStream(), np.zeros(len(values), dtype=np.int64))
    seen = abs(float(np.mean(ring.view(np.int32))) - 1 / 3) * np.sqrt(len(values) / (2 / 9))
    return report.at_most("rounding of a sum", seen, 5.5, "keeps the mean, in deviations")
