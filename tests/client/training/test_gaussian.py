"""The account of a mechanism is what it drew: not what a plan wished, and nothing for noise that can be guessed."""

from __future__ import annotations

import numpy as np
import pytest

from client.training.gaussian import GaussianMechanism, Noise
from common.errors import LocalProtocolError
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, PrivacyEvent
from common.trust.randomness import PrivateStream, SeededStream

NOISE = Noise(multiplier=2.0, sensitivity=0.5, sub_scopes=(TRAIN_SIDE,))


def test_every_noised_sum_is_one_step_of_the_event():
    mechanism = GaussianMechanism(NOISE, PrivateStream())
    for _ in range(3):
        mechanism.sample(0.25, 40)
        mechanism.noise(7)
    assert mechanism.events() == (PrivacyEvent(2.0, 0.25, 3, TRAIN_SIDE),)


def test_a_sum_over_everybody_costs_as_one_without_sampling():
    mechanism = GaussianMechanism(NOISE, PrivateStream())
    mechanism.noise(7)
    assert mechanism.events() == (PrivacyEvent(2.0, 1.0, 1, TRAIN_SIDE),)


def test_steps_at_several_rates_are_several_events():
    mechanism = GaussianMechanism(NOISE, PrivateStream())
    for rate in (0.25, 0.5, 0.25):
        mechanism.sample(rate, 10)
        mechanism.noise(1)
    assert set(mechanism.events()) == {
        PrivacyEvent(2.0, 0.25, 2, TRAIN_SIDE),
        PrivacyEvent(2.0, 0.5, 1, TRAIN_SIDE),
    }


def test_all_consumers_read_is_an_event_in_each_sub_scope():
    mechanism = GaussianMechanism(Noise(2.0, 0.5, (TRAIN_SIDE, HOLDOUT_SIDE)), PrivateStream())
    mechanism.noise(7)
    assert [event.sub_scope for event in mechanism.events()] == [TRAIN_SIDE, HOLDOUT_SIDE]


def test_noise_has_the_size_that_the_event_states():
    drawn = GaussianMechanism(NOISE, PrivateStream()).noise(40_000)
    assert drawn.std() == pytest.approx(2.0 * 0.5, rel=5 / np.sqrt(2 * drawn.size))


def test_noise_that_can_be_guessed_carries_no_event():
    mechanism = GaussianMechanism(NOISE, SeededStream(1))
    mechanism.noise(7)
    assert mechanism.events() == ()


def test_no_noise_is_no_event():
    mechanism = GaussianMechanism(Noise(0.0, 0.5, (TRAIN_SIDE,)), PrivateStream())
    mechanism.sample(0.25, 40)
    assert not mechanism.noise(7).any()
    assert mechanism.events() == ()


def test_a_sampled_sum_without_noise_has_no_account():
    mechanism = GaussianMechanism(NOISE, PrivateStream())
    mechanism.sample(0.25, 40)
    with pytest.raises(LocalProtocolError, match="never noised"):
        mechanism.events()
    with pytest.raises(LocalProtocolError, match="never noised"):
        mechanism.sample(0.25, 40)
