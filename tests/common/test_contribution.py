"""A contribution is made of releases and costs what they cost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.contribution import METRICS, TRAIN, UPDATE, Block, Contribution, Query, Release
from common.errors import LocalProtocolError
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent

QUERY = Query(TRAIN, "run", 1, "{}", bytes(32))
BLOCKS = (Block(UPDATE, 2, 4.0, 10), Block(METRICS, 1, 9.0, 10))
STEPS, LOOK = PrivacyEvent(1.0, 0.1, 10), PrivacyEvent(3.0, 1.0, 1, HOLDOUT_SIDE)
UPDATED, MEASURED = Release(UPDATE, np.array([1.0, -2.0]), (STEPS,)), Release(METRICS, np.array([7.0]), (LOOK,))


def test_it_has_the_vectors_in_the_order_of_the_blocks_and_all_events():
    made = Contribution.of(QUERY, BLOCKS, [MEASURED, UPDATED])
    assert made.vector.tolist() == [1.0, -2.0, 7.0]
    assert made.events == (STEPS, LOOK)


def test_a_cost_cannot_be_stated_beside_it():
    assert {field.name for field in dataclasses.fields(Contribution)} == {"query_digest", "blocks", "releases"}


def test_scaling_by_a_public_weight_keeps_the_cost():
    scaled = UPDATED.scaled(0.5)
    assert scaled.vector.tolist() == [0.5, -1.0]
    assert scaled.events == UPDATED.events


@pytest.mark.parametrize(
    "releases",
    [[UPDATED], [UPDATED, UPDATED], [UPDATED, MEASURED, MEASURED], [UPDATED, Release("other", np.zeros(1), ())]],
)
def test_a_release_that_is_missing_or_twice_is_noticed(releases):
    with pytest.raises(LocalProtocolError):
        Contribution.of(QUERY, BLOCKS, releases)


def test_a_release_of_another_length_is_noticed():
    with pytest.raises(LocalProtocolError):
        Contribution.of(QUERY, BLOCKS, [UPDATED, Release(METRICS, np.zeros(2), (LOOK,))])


def test_what_diverged_leaves_as_zeros():
    diverged = Release(UPDATE, np.array([np.nan, np.inf]), (STEPS,))
    assert Contribution.of(QUERY, BLOCKS, [diverged, MEASURED]).vector.tolist() == [0.0, 0.0, 7.0]
