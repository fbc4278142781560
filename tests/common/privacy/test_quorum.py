"""Quorum noise in numbers: who must be honest, and the two figures of what was spent, neither ever below the truth."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from common.errors import ConfigError, MechanismError
from common.privacy import (
    SUB_SCOPES,
    TRAIN_SIDE,
    Losses,
    PldAccountant,
    PrivacyEvent,
    Quorum,
    RdpAccountant,
    ScopeAccountant,
    epsilon_alone,
    epsilon_everywhere,
    epsilon_everywhere_in_one_run,
    epsilon_of,
    usual_colluders,
    with_slack,
)

DELTA = 1e-5
KNOWN = {1.44: (8.0308, 10.0426, 26.7882), 2.99: (2.98928, 3.58020, 7.59144), 7.63: (0.99919, 1.17565, 2.22388)}
"""Noise of the sum -> epsilon with four honest shares, with three, and with the own; q .2, T 100, h 4: dp-accounting 0.6.0."""
TWICE = {1.44: 19.1072, 2.99: 6.69128, 7.63: 2.15481}
"""The same of one sum that a consumer moves twice, known at two sites: its ``from_mixture_gaussian_mechanism``."""


def shared(sigma: float, honest: int = 4, colluders: int = 2, steps: int = 100, **more) -> PrivacyEvent:
    return PrivacyEvent(sigma / 2, 0.2, steps, more.get("side", TRAIN_SIDE), honest, colluders)


@pytest.mark.parametrize("sigma", KNOWN)
def test_both_figures_are_the_known_answers_with_the_slack_upwards(sigma):
    in_sum, with_three, alone = KNOWN[sigma]
    for found, known in (
        (epsilon_of([shared(sigma)], DELTA), in_sum),
        (epsilon_of([shared(sigma, 3, 3)], DELTA), with_three),
        (epsilon_alone([shared(sigma)], DELTA), alone),
    ):
        assert known - 2e-5 < found < 1.001 * known


@pytest.mark.parametrize("kind", [PldAccountant, RdpAccountant, ScopeAccountant])
@pytest.mark.parametrize("alone", [False, True])
def test_every_accountant_adds_the_slack_of_discrete_noise(kind, alone):
    event = shared(2.99, steps=3_000)
    noise = event.noise_multiplier if alone else event.noise_in_sum
    continuous = kind([PrivacyEvent(noise, 0.2, 3_000)], alone=alone)
    discrete = kind([event], alone=alone)
    more, left = with_slack(DELTA, 3_000, event.noise_multiplier)
    assert more > 1e-3
    assert left < DELTA
    assert discrete.epsilon(DELTA) == pytest.approx(continuous.epsilon(left) + more, rel=1e-12)
    assert discrete.epsilon(DELTA) > continuous.epsilon(DELTA) + more


def test_slack_grows_with_every_sum_of_a_side_whatever_its_noise():
    one = [shared(2.99, steps=500)]
    both = [*one, shared(7.63, steps=500)]
    assert Losses.of(both) != Losses.of([shared(2.99, steps=1_000)])
    local = [PrivacyEvent(e.noise_in_sum, e.sampling_rate, e.steps) for e in both]
    assert epsilon_of(both, DELTA) >= epsilon_of(local, DELTA) + 1_000 * 2.0**-21


def test_nothing_is_claimed_where_delta_is_too_small_for_the_slack():
    event = shared(2.99)
    assert epsilon_of([event], 1e-10) == math.inf  # 100 sums take 1e-10 of it
    assert math.isfinite(epsilon_of([event], 1.1e-10))
    assert (
        epsilon_alone([PrivacyEvent(0.05, 1.0, 1, TRAIN_SIDE, 4, 2)], DELTA) == math.inf
    )  # noise ends at 12 deviations


def test_local_noise_costs_what_it_did_and_is_one_figure():
    local = [PrivacyEvent(1.3, 0.2, 50)]
    assert epsilon_alone(local, DELTA) == epsilon_of(local, DELTA)
    assert Losses.of(local).colluders is None


def test_local_and_shared_noise_add_up_in_both_figures():
    local, event = PrivacyEvent(2.0, 0.2, 50), shared(2.99, steps=50)
    for figure, own in ((epsilon_of, event.noise_in_sum), (epsilon_alone, event.noise_multiplier)):
        both = figure([local, event], DELTA)
        plain = epsilon_of([local, PrivacyEvent(own, 0.2, 50)], DELTA)
        assert plain < both < plain + 1e-3
        assert both > max(figure([local], DELTA), figure([event], DELTA))


def test_an_account_holds_against_the_fewest_colluders_of_its_sums():
    events = [shared(2.99, 4, 2), shared(2.99, 5, 1), PrivacyEvent(2.0, 0.2, 5)]
    assert Losses.of(events).colluders == 1
    assert Losses.of(events[:1]).colluders == 2


def test_what_is_spent_in_another_quorum_is_another_mechanism():
    assert len(Losses.of([shared(2.99, 4, 2), shared(2.99, 5, 2), shared(2.99, 4, 1)]).events) == 3
    assert not Losses.of([shared(2.99, 4, 2)]).covers(Losses.of([shared(2.99, 5, 2)]))


@pytest.mark.parametrize("order", [None, 4.0])
def test_the_alone_figure_is_the_larger_one_at_any_order(order):
    for sigma, honest in product((0.9, 2.0, 6.0), (2, 4, 9)):
        event = PrivacyEvent(sigma / math.sqrt(honest), 0.2, 40, TRAIN_SIDE, honest, 1)
        own = epsilon_alone([event], DELTA, order)
        assert own > epsilon_of([event], DELTA, order)
        assert own >= epsilon_of([PrivacyEvent(sigma / math.sqrt(honest), 0.2, 40)], DELTA, order)


@pytest.mark.parametrize("sigma", TWICE)
def test_a_consumer_at_two_sites_loses_no_less_than_one_who_moves_a_sum_twice(sigma):
    once = (Losses.of([shared(sigma)]), None)
    everywhere = epsilon_everywhere([once, once], DELTA)
    assert everywhere >= TWICE[sigma] - 1e-4
    separate = epsilon_of([PrivacyEvent(sigma, 0.2, 200)], DELTA)
    assert separate < TWICE[sigma]  # so adding up two sums would be too little
    assert epsilon_everywhere([once], DELTA) >= epsilon_of([shared(sigma)], DELTA)


@pytest.mark.parametrize("sigma", TWICE)
def test_where_two_sites_share_the_sums_of_one_run_its_mixture_is_the_figure(sigma):
    spent = Losses.of([shared(sigma)])
    found = epsilon_everywhere_in_one_run([spent, spent], DELTA)
    assert TWICE[sigma] - 2e-5 < found < 1.002 * TWICE[sigma]
    assert found <= epsilon_everywhere([(spent, None), (spent, None)], DELTA)
    assert epsilon_everywhere_in_one_run([spent], DELTA) == pytest.approx(epsilon_of(spent, DELTA), rel=1e-3)


@pytest.mark.parametrize(
    "sites",
    [
        [[shared(2.99)], [shared(2.99, steps=99)]],
        [[shared(2.99)], [shared(2.99, honest=5)]],
        [[shared(2.99), PrivacyEvent(2.0, 0.2, 5)]] * 2,
    ],
    ids=["other steps", "other honest sites", "local noise beside it"],
)
def test_sites_whose_sums_are_not_all_the_same_are_composed(sites):
    losses = [Losses.of(events) for events in sites]
    composed = epsilon_everywhere([(one, None) for one in losses], DELTA)
    assert epsilon_everywhere_in_one_run(losses, DELTA) == composed


def test_a_consumer_at_two_sites_may_be_trained_on_at_one_and_held_out_at_the_other():
    train, held = shared(2.99), shared(1.0, steps=1, side=SUB_SCOPES[-1])
    spent = Losses.of([train, held])
    found = epsilon_everywhere_in_one_run([spent, spent], DELTA)
    twice = {
        side: epsilon_everywhere_in_one_run([Losses.of([one])] * 2, DELTA)
        for side, one in (("t", train), ("h", held))
    }
    apart = epsilon_of([PrivacyEvent(e.noise_in_sum, e.sampling_rate, e.steps) for e in (train, held)], DELTA)
    assert found >= max(*twice.values(), apart)


def move(times: int, sigma: float) -> float:
    """Epsilon of unsampled sums that a consumer moves ``times``: one Gaussian of a shift so long."""
    return epsilon_of([PrivacyEvent(sigma / times, 1.0, 1)], DELTA)


@pytest.mark.parametrize("sites", [1, 2, 3, 5])
def test_without_sampling_a_consumer_at_several_sites_moves_a_sum_so_far(sites):
    event = PrivacyEvent(4.0, 1.0, 1, TRAIN_SIDE, 4, 2)
    found = epsilon_everywhere([(Losses.of([event]), None)] * sites, DELTA)
    shares = max(4, sites)  # each of his own sites has added one
    assert found >= move(sites, 4.0 * math.sqrt(shares)) - 1e-9


def test_whoever_holds_him_out_the_worse_side_of_each_site_counts():
    sides = [shared(2.99, side=TRAIN_SIDE), PrivacyEvent(1.0, 1.0, 1, SUB_SCOPES[2], 4, 2)]
    both = epsilon_everywhere([(Losses.of(sides), None)] * 2, DELTA)
    for events in ([sides[0]], [sides[1]]):
        assert both >= epsilon_everywhere([(Losses.of(events), None)] * 2, DELTA) - 1e-9


SOUND = [(3, 3, 0, 3), (5, 4, 1, 3), (8, 6, 2, 4), (8, 7, 2, 5), (16, 11, 5, 6), (100, 67, 33, 34), (8, 6, 2, 2)]


@pytest.mark.parametrize("numbers", SOUND)
def test_numbers_of_the_design_are_sound(numbers):
    Quorum(*numbers).check()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((8, 6, 4, 2), "two lists"),  # the cliff: 2t = n + c
        ((7, 5, 3, 2), "two lists"),
        ((8, 5, 2, 3), "two lists"),
        ((8, 6, 2, 5), "counted on"),
        ((7, 5, 2, 4), "counted on"),
        ((3, 3, 2, 1), "alone"),
        ((8, 6, 2, 0), "alone"),
        ((8, 0, 2, 4), "two lists"),
        ((8, 9, 10, 2), "two lists|counted on"),
    ],
)
def test_numbers_under_which_noise_could_be_missing_are_refused(numbers, words):
    with pytest.raises(ConfigError, match=words):
        Quorum(*numbers).check()


def test_every_sound_quorum_keeps_its_noise_in_whatever_can_open():
    """By brute force: lists that t sites sign where c of them sign any, hold h honest sites each, or cannot both be signed."""
    for n, t, c, h in product(range(3, 9), range(2, 9), range(5), range(2, 6)):
        try:
            Quorum(n, t, c, h).check()
        except ConfigError:
            continue
        assert t - c >= h
        honest = n - min(c, n)  # each honest site signs one list; those who collude sign both
        splits = [(a, honest - a) for a in range(honest + 1)]
        assert not any(a + c >= t and b + c >= t for a, b in splits), (n, t, c, h)


def test_a_smaller_session_with_its_usual_threshold_has_too_few_shares():
    run = Quorum(8, 6, 2, 4)
    run.in_session(7, 6).check()
    run.in_session(6, 6).check()
    with pytest.raises(ConfigError, match="counted on"):
        run.in_session(7, 5).check()


def test_a_share_is_rounded_up_and_a_sum_of_shares_has_at_least_the_noise():
    for honest, sigma in product((2, 3, 4, 7, 64), (0.7, 1.44, 2.99, 7.63)):
        quorum = Quorum(100, 67, 3, honest)
        event = quorum.event(quorum.share(sigma), 0.2, 1, TRAIN_SIDE)
        assert sigma <= event.noise_in_sum < sigma * 1.0001
        assert (event.honest, event.colluders) == (honest, 3)


def test_fewer_than_a_third_collude_where_nobody_says():
    assert [usual_colluders(n) for n in (1, 2, 3, 4, 8, 16, 30, 100)] == [0, 0, 0, 1, 2, 5, 9, 33]


def test_noise_against_more_colluders_falls_off_a_cliff():
    quorum = Quorum(8, 6, 2, 4)
    assert [quorum.honest_against(c) for c in range(6)] == [6, 5, 4, 3, 1, 1]
    assert quorum.cliff == 4


@pytest.mark.parametrize(
    "bad", [{"honest": 0}, {"honest": 101}, {"honest": 4.0}, {"honest": True}, {"colluders": -1}, {"honest": 1}]
)
def test_an_event_of_impossible_numbers_is_refused(bad):
    with pytest.raises(MechanismError):
        PrivacyEvent(
            **{"noise_multiplier": 1.0, "sampling_rate": 0.2, "steps": 1, "honest": 4, "colluders": 2, **bad}
        )


def test_noise_of_a_sum_is_that_of_the_honest_and_of_nobody_else():
    rng = np.random.default_rng(2)
    for honest in (1, 2, 4, 25):
        event = PrivacyEvent(0.7, 0.2, 1, TRAIN_SIDE, honest, 1 if honest > 1 else 0)
        total = rng.normal(0, 0.7, (honest, 200_000)).sum(axis=0)
        assert total.std() == pytest.approx(event.noise_in_sum, rel=0.01)
