"""The detector: dense references do not hide bots, and few rows are scored as many are."""

import numpy as np
import pytest

from client.anomalies.detectors import Detector, _Flat

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(3)


def ordinary(rng, count, width=12):
    return rng.normal(size=(count, width)) * np.linspace(0.2, 2, width)


@pytest.mark.parametrize("jitter", [0.0, 1e-9, 1e-4])
def test_a_bot_is_found_although_the_reference_is_full_of_identical_ordinary_consumers(rng, jitter):
    usual = ordinary(rng, 300)
    bot = np.full((1, 12), 9.0) * np.linspace(0.2, 2, 12)
    alone = Detector(usual)
    copies = np.repeat(usual[:3], 400, axis=0)
    dense = Detector(np.concatenate([usual, copies + jitter * rng.normal(size=copies.shape)]))
    before, after = alone.parts(bot)[1][0], dense.parts(bot)[1][0]
    assert after > 1
    assert after > before / 2  # the outlier factor is not divided away
    assert np.median(dense.score(usual)) < 0.5


def test_a_few_rows_are_scored_as_many_are(rng):
    usual = ordinary(rng, 500)
    detector = Detector(usual)
    asked = ordinary(rng, 40) * 2
    scaled = detector.deviation(asked)
    np.testing.assert_allclose(
        _Flat(detector._forest).score_samples(scaled), detector._forest.score_samples(scaled), rtol=1e-9
    )
    one_by_one = np.concatenate([detector.score(row[None]) for row in asked])
    np.testing.assert_allclose(one_by_one, detector.score(np.concatenate([asked, asked]))[:40], rtol=1e-9)
