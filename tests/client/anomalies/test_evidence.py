"""Verdicts are evidence: shrunk towards the threshold as it is, never moved by one consumer, honest about few."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from client.anomalies.evidence import (
    MOST,
    PRIOR,
    STEEP,
    Verdict,
    judged_quality,
    moves,
    quiet_level,
    standing,
    weighed,
    wilson,
)

DAY_US = 86_400_000_000


def said(consumer: int, anomaly: bool, score: float = 1.5, **more: object) -> Verdict:
    return Verdict(consumer, anomaly, score, 1.0, number=more.pop("number", consumer + 1), **more)


ANY = st.builds(said, st.integers(0, 12), st.booleans(), st.floats(0.01, 10))


@given(st.lists(ANY, max_size=30), st.builds(said, st.just(99), st.booleans(), st.floats(0.01, 10)))
@settings(deadline=None, max_examples=60)
def test_one_more_consumer_moves_the_threshold_by_a_tenth_at_most(before, one_more):
    change = abs(math.log(weighed([*before, one_more]).factor) - math.log(weighed(before).factor))
    assert change <= STEEP * PRIOR**2 + 1e-6


@given(st.lists(st.builds(said, st.just(7), st.booleans(), st.floats(0.01, 10)), max_size=40))
@settings(deadline=None, max_examples=40)
def test_what_is_said_about_one_consumer_alone_moves_nothing_however_often(verdicts):
    assert weighed(verdicts).factor == 1


def test_many_false_alarms_raise_the_threshold_and_many_missed_ones_lower_it():
    factors = [weighed([said(n, False) for n in range(count)]).factor for count in (1, 3, 10, 40, 400)]
    assert factors == sorted(factors)
    assert factors[0] == 1 < factors[1] < factors[2]
    assert (
        1.3 < factors[3] < factors[4] <= math.exp(MOST) * 1.0001
    )  # until the judged ones are no alarms, and little further
    assert weighed([said(n, True, 0.7) for n in range(40)]).factor < 0.8


def test_confirmed_alarms_speak_against_false_ones():
    wrong = [said(n, False, 1.2) for n in range(10)]
    right = [said(100 + n, True, 1.2) for n in range(10)]
    assert weighed(wrong + right).factor < weighed(wrong).factor
    assert weighed(wrong + right).factor == pytest.approx(1, abs=0.1)


def test_the_busiest_consumer_weighs_as_much_as_another():
    often = [said(0, False, alarm=f"a{n}") for n in range(50)]
    others = [said(n, True, 0.8) for n in range(1, 6)]
    assert weighed(often + others).factor == pytest.approx(weighed(often[:1] + others).factor)


def test_verdicts_without_a_score_are_not_weighed():
    unscored = [Verdict(n, False) for n in range(9)]
    assert (weighed(unscored).factor, weighed(unscored).verdicts) == (1, 0)
    assert (weighed([]).factor, judged_quality([]).f1.of) == (1, 0)


def test_of_two_verdicts_on_one_alarm_the_latest_counts_and_an_undone_one_does_not():
    first, second = said(3, True, alarm="x", number=1), said(3, False, alarm="x", number=2)
    assert standing([first, second]) == [second]
    taken_back = said(3, False, alarm="x", number=2, undone=True)
    assert standing([first, taken_back]) == [first]


def test_a_no_quietens_its_consumer_for_30_days_and_up_to_twice_the_score():
    no = said(5, False, 1.5, ends=10 * DAY_US)
    assert quiet_level([no], 5, 39 * DAY_US) == 3.0
    assert quiet_level([no], 5, 41 * DAY_US) == 0
    assert quiet_level([no], 6, 11 * DAY_US) == 0
    assert quiet_level([no, said(5, True, number=99)], 5, 11 * DAY_US) == 0  # the latest word


def test_precision_recall_and_f1_over_verdicts_have_bars_and_say_when_they_are_few():
    quality = judged_quality([said(n, n < 6) for n in range(8)] + [said(20, True, 0.5)])
    assert (quality.right, quality.wrong, quality.missed) == (6, 2, 1)
    assert quality.precision.value == pytest.approx(0.75)
    assert quality.recall.value == pytest.approx(6 / 7)
    assert quality.f1.value == pytest.approx(12 / 15)
    for figure in (quality.precision, quality.recall, quality.f1):
        assert 0 <= figure.low < figure.value < figure.high <= 1
    assert "only 9 verdicts" in quality.few
    assert judged_quality([said(n, True) for n in range(20)]).few == ""
    raised = judged_quality([said(n, n < 6, 1.5 + n / 10) for n in range(8)], factor=2.0)
    assert (raised.right, raised.wrong, raised.missed) == (1, 2, 5)


def test_the_interval_of_a_share_is_wilsons():
    assert (wilson(8, 10).low, wilson(8, 10).high) == (
        pytest.approx(0.4902, abs=1e-3),
        pytest.approx(0.9433, abs=1e-3),
    )
    assert math.isnan(wilson(0, 0).value)


def test_how_the_threshold_went_ends_where_it_is():
    verdicts = [said(n, n % 4 == 0) for n in range(300)]
    path = moves(verdicts, 50)
    assert len(path) <= 50
    assert path[0] == (1, 1.0)
    assert path[-1] == (300, weighed(standing(verdicts)).factor)
