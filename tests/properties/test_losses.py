"""``Losses`` against plain counting: nothing is lost, taken back twice, or counted on one side only."""

import pytest
from hypothesis import given, strategies as st

from common.privacy.mechanism import HOLDOUT_SIDE, SUB_SCOPES, TRAIN_SIDE, Losses, PrivacyEvent

events = st.lists(
    st.builds(
        PrivacyEvent,
        st.sampled_from([0.5, 1.0, 4.0]),
        st.sampled_from([0.05, 1.0]),
        st.integers(0, 5),
        st.sampled_from(SUB_SCOPES),
    ),
    max_size=12,
)


def counted(some):
    total = {}
    for e in some:
        key = (e.sub_scope, e.sampling_rate, e.noise_multiplier)
        total[key] = total.get(key, 0) + e.steps
    return {key: steps for key, steps in total.items() if steps}


@given(events, events)
def test_sums_and_differences_are_those_of_plain_counting(a, b):
    one, two = Losses.of(a), Losses.of(b)
    assert counted(one) == counted(a)
    assert one + two == Losses.of([*b, *a])
    assert (one + two) - one == two
    assert counted(one | two) == {
        key: max(counted(a).get(key, 0), counted(b).get(key, 0)) for key in counted(a) | counted(b)
    }
    assert one.covers(two) == all(counted(a).get(key, 0) >= steps for key, steps in counted(b).items())
    assert hash(one) == hash(Losses.of(reversed(a)))


@given(events)
def test_on_both_sides_every_step_counts_for_every_consumer(some):
    sides = Losses.of(some).on_every_side()
    for side in SUB_SCOPES:
        assert sum(e.steps for e in sides if e.sub_scope == side) == sum(e.steps for e in some)


def test_what_was_not_spent_cannot_be_given_back():
    with pytest.raises(ValueError, match="was not spent"):
        Losses.of([PrivacyEvent(1.0, 0.1, 3, TRAIN_SIDE)]) - Losses.of([PrivacyEvent(1.0, 0.1, 3, HOLDOUT_SIDE)])


@pytest.mark.parametrize("word", ["mechanism", "unit", "relation"])
def test_only_what_the_accountant_knows_is_an_event(word):
    with pytest.raises(ValueError, match="can be accounted for"):
        PrivacyEvent(1.0, 0.1, 1, **{word: "event-level"})
