"""Who learns, who chooses, on whom is reported: nobody in two parts, and what is cut in time stays cut."""

from __future__ import annotations

import numpy as np
import pytest

from client.models import make_batcher
from common.data import ConsumerSequences, Split, parts_of
from common.privacy import HOLDOUT_SIDE, TRAIN_SIDE, VALIDATION_SIDE
from common.run import build_config

KEY = b"key of a site"
DAY = 86_400_000_000


def rows(consumers: int = 400, events: int = 8) -> ConsumerSequences:
    """Consumer i has an event of item e + 1 on day e, from the first on."""
    day = np.tile(np.arange(events), consumers)
    table = np.zeros((len(day), 7), dtype=np.int32)
    table[:, 0] = table[:, 1] = day + 1
    return ConsumerSequences(
        np.arange(consumers, dtype=np.uint64) * 7919,
        np.arange(consumers + 1, dtype=np.int64) * events,
        table,
        np.zeros((len(day), 3), dtype=np.float32),
        day * DAY,
        ("item", "event", "category", "price", "gap", "hour", "weekday"),
    )


def test_nobody_who_chooses_is_reported_on_or_learnt_from() -> None:
    parts = [set(part.consumers.tolist()) for part in parts_of(Split(KEY, 0.3, 0.5).of(rows()))]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert sum(map(len, parts)) == 400


@pytest.mark.parametrize("validation", [0.0, 0.3, 0.9])
def test_who_is_held_out_does_not_depend_on_how_many_of_them_choose(validation: float) -> None:
    train = Split(KEY, 0.3, validation).of(rows()).train
    assert train.consumers.tolist() == Split(KEY, 0.3).of(rows()).train.consumers.tolist()


def test_what_is_cut_in_time_is_learnt_before_the_dates_and_read_before_their_end() -> None:
    sides = Split(KEY, 0.5, 0.5, (3 * DAY, 6 * DAY), most=4).of(rows())
    assert [(part.timestamps.min() // DAY, part.timestamps.max() // DAY) for part in parts_of(sides)] == [
        (0, 2), (2, 5), (4, 7)  # at most four events each
    ]  # fmt: skip
    assert sides.train.lengths.tolist() == [3] * len(sides.train)


def test_a_consumer_without_events_before_the_date_stays_as_an_empty_row() -> None:
    sides = Split(KEY, 0.5, 0.5, (-1, 6 * DAY)).of(rows())
    assert len(sides.train) > 0 and not sides.train.lengths.any()


def test_who_is_reported_on_is_asked_only_about_what_comes_from_the_date_on() -> None:
    dates = ["training.split=time", "training.validation_from=1970-01-04", "training.test_from=1970-01-07"]
    config = build_config({}, ["model.heads={'next-item'=1.0}", *dates])
    sides = Split(KEY, 0.5, 0.5, config.training.dates_us).of(rows())
    asked = {}
    for side in (TRAIN_SIDE, VALIDATION_SIDE, HOLDOUT_SIDE):
        part = getattr(sides, side)
        batch = make_batcher(part, config, side).packed(np.arange(len(part)))
        asked[side] = sorted(set(batch.targets["next-item"][batch.weights["next-item"] > 0].tolist()))
        per_consumer = np.bincount(batch.consumer_of_row, weights=batch.weights["next-item"])
        assert np.allclose(per_consumer, 1.0)
    # item e + 1 is of day e; day 3 is 1970-01-04
    assert asked == {TRAIN_SIDE: [2, 3], VALIDATION_SIDE: [4, 5, 6], HOLDOUT_SIDE: [7, 8]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.split=time", "training.test_from=2024-01-01"], "both dates"),
        (["training.validation_from=2024-01-01", "training.test_from=2024-02-01"], "split = time"),
        (["training.split=time", "training.validation_from=2024-02-01", "training.test_from=2024-02-01"], "after"),
        (["training.split=time", "task=purchase-intent"], "next behaviour"),
        (["training.split=time", "task=sales"], "sales.test"),
    ],
)
def test_a_split_in_time_that_cannot_be_is_refused(settings: list[str], message: str) -> None:
    from common.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        build_config({}, settings)
