"""What must hold where sites share the noise of a sum, at the site, whatever its coordinator signs and whatever dies when."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

import client.training.quorum as mechanism
from client import session
from client.guard import ChargedError
from client.models import engine_of
from client.selftest import people, sessions
from client.site import Question
from client.tasks import behaviour
from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE, Query
from common.errors import (
    ConfigError,
    FedcartError,
    LocalProtocolError,
    PolicyRefusedError,
    VerificationError,
)
from common.privacy import check_grid
from common.run import PerformanceSettings, build_config, model_digest
from common.secagg.fixedpoint import decode
from common.tasks import noise_needs
from tests.quorum_sites import (
    ALLOWED,
    MARKET,
    NOISE,
    PHASES,
    SCALE,
    SETTINGS,
    advertise,
    asked,
    charged,
    leave,
    model_of,
    quorum_site,
    to,
    under,
)


@pytest.fixture
def scratch():
    with quorum_site() as made:
        yield made


# 1. who signs what opens


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
@pytest.mark.parametrize("attempt", [1, 2, 7])
@pytest.mark.parametrize(("sites", "threshold"), [(5, 4), (6, 6), (7, 6), (7, 7), (4, 3), (3, 2)])
def test_no_session_opens_with_another_threshold_than_the_runs(scratch, kind, attempt, sites, threshold):
    request = asked(scratch, kind=kind, attempt=attempt, cohort=scratch.plan.sites[:sites], threshold=threshold)
    with pytest.raises(PolicyRefusedError, match="signers") as caught:
        advertise(scratch, request)
    assert caught.value.rule == "quorum_noise"
    assert charged(scratch) == 0


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_lower_threshold_is_refused_even_where_fewer_shares_would_do(scratch, kind):
    modest = under(scratch, privacy={"honest": 2})
    request = asked(modest, kind=kind, cohort=scratch.plan.sites[:5], threshold=4)
    with pytest.raises(PolicyRefusedError, match="signers"):
        advertise(modest, request)


def test_a_second_attempt_with_fewer_sites_keeps_the_threshold(scratch):
    to(scratch, "mask")
    with pytest.raises(PolicyRefusedError, match="signers"):
        advertise(scratch, asked(scratch, attempt=2, cohort=scratch.plan.sites[:5], threshold=4))
    advertise(scratch, asked(scratch, attempt=3, cohort=scratch.plan.sites[:6]))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"privacy": {"colluders": 3, "honest": 2}}, "two lists"),
        ({"privacy": {"honest": 4}}, "counted on"),
        ({"privacy": {"colluders": 0, "honest": 1}}, "alone"),
        ({"privacy": {"colluders": 1, "honest": 4}}, "fears"),
        ({"aggregation": {"threshold": 0}}, "signers"),
        ({"privacy": {"colluders": -1}}, "accounted for"),
        ({"privacy": {"honest": 0}}, "accounted for"),
        ({"aggregation": {"threshold": 6}}, "signers"),
    ],
)
def test_a_plan_whose_noise_cannot_be_counted_on_is_refused(scratch, sections, words):
    other = under(scratch, **sections)
    with pytest.raises((PolicyRefusedError, ConfigError), match=words):
        advertise(other, asked(other, threshold=5))
    assert charged(scratch) == 0


def test_a_larger_session_than_the_plans_is_refused():
    """A coordinator who picks cohorts may not pick one in which as many signers mean less."""
    small = {**SETTINGS, "aggregation": {"threshold": 6, "max_cohort": 8}, "privacy": ALLOWED | {"honest": 4}}
    market = people.Market(others=(512,) * 8)
    with people.scratch_site(None, small, NOISE, market=market) as scratch:
        with pytest.raises(PolicyRefusedError, match="signers"):
            advertise(scratch, asked(scratch, threshold=7))
        advertise(scratch, asked(scratch, cohort=scratch.plan.sites[:8]))


def test_colluders_are_feared_among_all_sites_and_not_in_a_chosen_cohort():
    sampled = {**SETTINGS, "aggregation": {"threshold": 6, "max_cohort": 8}, "privacy": ALLOWED | {"honest": 4}}
    market = people.Market(others=(512,) * 15)
    with people.scratch_site(None, sampled, NOISE, market=market) as scratch:
        request = asked(scratch, cohort=scratch.plan.sites[:8])
        with pytest.raises(PolicyRefusedError, match="fears 5") as caught:
            advertise(scratch, request)
    assert caught.value.rule == "colluders_max"


def test_plain_sessions_show_no_share_under_any_plan(scratch):
    request = sessions.asked_plainly(scratch, 1, model_of(scratch))
    with pytest.raises(VerificationError, match="the session is plain"):
        session.contribute(scratch.site, request, PerformanceSettings())
    assert charged(scratch) == 0


# 2. one linear step


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("training.local_steps=2", "local_steps"),
        ("training.proximal=0.1", "FedProx"),
        ("training.optimizer=scalar-adam", "optimizer"),
        ("training.optimizer=momentum", "optimizer"),
        ("model.dropout=0.1", "dropout"),
        ("aggregation.weights=equal", "weights"),
        ("aggregation.mode=plain", "plain"),
        ("privacy.noise=hardened", "hardened"),
        ("privacy.enabled=false", "without privacy"),
        ("task=sales", "sales"),
    ],
)
def test_settings_that_do_not_go_with_shared_noise_are_refused_by_name(override, name):
    usual = ["privacy.trust=quorum", "training.local_steps=1", "training.optimizer=sgd"]
    build_config({}, usual)
    with pytest.raises(ConfigError, match=name):
        build_config({}, [*usual, override])


@pytest.mark.parametrize(
    "sections",
    [{"training": {"local_steps": 2}}, {"training": {"proximal": 0.1}}, {"aggregation": {"weights": "equal"}}],
)
def test_a_signed_plan_with_such_settings_is_refused(scratch, sections):
    request, other = asked(scratch), under(scratch, **sections)
    query = Query(TRAIN, other.plan.run, 1, other.plan.to_json(), model_digest(model_of(scratch)))
    forged = {"query": sessions.wire.encode(query), "signature": scratch.coordinator.sign(query.digest())}
    with pytest.raises(ConfigError, match="does not go with"):
        advertise(scratch, request | forged)
    assert charged(scratch) == 0


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setattr(mechanism, "draw", lambda _stream, _bits, size: np.zeros(size, dtype=np.int64))


def answers(scratch: people.Scratch, kind: str = TRAIN) -> dict[str, np.ndarray]:
    plan, model = scratch.plan, model_of(scratch)
    question = Question(Query(kind, plan.run, 1, plan.to_json(), model_digest(model)), plan, model)
    blocks = {block.name: block for block in plan.blocks(kind)}
    return {
        one.name: decode(one.vector.copy(), (blocks[one.name],))
        for one in behaviour.ANSWERS[kind](scratch.site, question)
    }


@pytest.mark.usefixtures("silent")
def test_a_site_sends_the_clipped_sum_of_one_batch_times_a_constant_that_is_the_same_for_all(scratch, monkeypatch):
    rows, engine = engine_of(scratch.site, scratch.plan, PerformanceSettings())
    batches, true = [], type(engine).clipped_sum

    def watched(self: Any, chosen: Any) -> Any:
        batches.append((chosen.copy(), self.parameters.numpy().copy()))
        return true(self, chosen)

    monkeypatch.setattr(type(engine), "clipped_sum", watched)
    sent = answers(scratch)[UPDATE]
    ((chosen, where),) = batches  # one sum, at the model that came
    np.testing.assert_array_equal(where, rows.restrict(model_of(scratch)))
    total, _ = true(engine, chosen)
    wanted = rows.expand(total.numpy().astype(np.float64)) * -SCALE
    block = next(block for block in scratch.plan.blocks(TRAIN) if block.name == UPDATE)
    assert np.abs(sent - wanted).max() <= 1.01 * block.step
    assert np.linalg.norm(wanted) > 100 * block.step


def test_every_coordinate_has_noise_whoever_stocks_it():
    with people.scratch_site(None, SETTINGS, NOISE, market=MARKET) as scratch:
        found = [answers(scratch) for _ in range(30)]
        rows, _ = engine_of(scratch.site, scratch.plan, PerformanceSettings())
        there = rows.expand(np.ones(len(rows.index))) > 0
    update = np.stack([one[UPDATE] for one in found]) / (NOISE[0] * people.CLIP * SCALE)
    squares = (update**2).sum(axis=0)
    low, high = stats.chi2.ppf(1e-10, 30), stats.chi2.isf(1e-10, 30)
    assert 0.1 < there.mean() < 0.95
    assert low < squares.min() <= squares.max() < high
    for part in (there, ~there):
        assert abs((update[:, part] ** 2).mean() - 1) < 5.5 * np.sqrt(2 / update[:, part].size) + 0.005


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_metrics_have_their_share_each(scratch, kind):
    found = np.stack([answers(scratch, kind)[METRICS] for _ in range(200)])
    sensitivity, multiplier = noise_needs(scratch.plan, kind, METRICS)
    assert multiplier == scratch.plan.measured(kind).noise >= 1.5
    around = (found - found.mean(axis=0)) / (sensitivity * multiplier)
    squares = (around**2).sum(axis=0)
    assert stats.chi2.ppf(1e-9, 199) < squares.min() <= squares.max() < stats.chi2.isf(1e-9, 199)


def test_every_block_of_every_question_meets_the_inequality_of_its_sensitivity(scratch):
    for kind in (TRAIN, EVALUATE):
        for block in scratch.plan.blocks(kind):
            sensitivity, multiplier = noise_needs(scratch.plan, kind, block.name)
            grid = mechanism.Share(block, sensitivity, multiplier, scratch.plan.quorum, "train").grid
            check_grid(grid, sites=7, length=block.length, sensitivity=sensitivity, multiplier=multiplier)
    sensitivity, _ = noise_needs(scratch.plan, TRAIN, UPDATE)
    assert sensitivity >= people.CLIP * SCALE


@pytest.mark.parametrize(
    "change", [{"noise_bits": -1}, {"unit": 0.5}, {"unit": 2.0}, {"clip": 2.0}, {"clip": 0.5}]
)
def test_a_session_with_another_grid_is_refused(scratch, change):
    first, *rest = scratch.plan.blocks(TRAIN)
    ((name, by),) = change.items()
    value = getattr(first, name) + by if name == "noise_bits" else getattr(first, name) * by
    try:
        request = asked(scratch, blocks=(dataclasses.replace(first, **{name: value}), *rest))
    except ConfigError:  # wraps: not even a coordinator can write it down
        return
    with pytest.raises(VerificationError, match="do not belong"):
        advertise(scratch, request)
    assert charged(scratch) == 0


# 4. nothing acts on noise


def test_what_opens_is_what_was_drawn_however_large(scratch, monkeypatch):
    far = np.array([2**31 - 1, -(2**31), 2**31 + 12_345, 5 * 2**20, -7 * 2**20, 0], dtype=np.int64)
    monkeypatch.setattr(mechanism, "draw", lambda _stream, _bits, size: np.resize(far, size))
    monkeypatch.setattr(
        mechanism, "to_ring", lambda values, _grid, _stream, noise: noise.astype(np.uint32)
    )  # the sum left out: noise alone
    made = sessions.Round(scratch, asked(scratch))
    opened = made.opened()
    lengths = [block.length for block in scratch.plan.blocks(TRAIN)]
    wanted = np.concatenate([np.resize(far, length) for length in lengths]).astype(np.uint32)
    np.testing.assert_array_equal(opened, wanted)


# 5. one contribution, one session, memory only


def files(scratch: people.Scratch) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in scratch.site.kit.path.rglob("*") if p.is_file()}


def on_disk(scratch: people.Scratch, ring: bytes) -> list[str]:
    written = (ring, ring.hex().encode(), base64.b64encode(ring))
    pieces = [text[start : start + 24] for text in written for start in range(0, len(text) - 24, 240)]
    return [name for name, data in files(scratch).items() if any(piece in data for piece in pieces)]


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_no_part_of_a_ring_is_on_the_disk_in_any_exchange(scratch, kind):
    made = sessions.Round(scratch, asked(scratch, kind=kind))
    ring = made.memory.ring
    assert len(ring) == 4 * sum(block.length for block in scratch.plan.blocks(kind))
    assert on_disk(scratch, ring) == []
    for phase in PHASES:
        made.step_from(phase)
        assert on_disk(scratch, ring) == [], phase
        assert (made.memory.ring == b"") is (phase not in ("share", "accept")), phase
    assert list((scratch.site.kit.state / "outbox").iterdir()) == []


@pytest.mark.parametrize("phase", PHASES)
def test_a_restart_in_any_exchange_forgets_the_ring_and_charges_what_has_left(scratch, phase):
    made = to(scratch, phase)
    left = phase in ("confirm", "unmask")
    scratch.site.guard().restart()
    status = scratch.site.guard().status()
    assert (status.committed, status.void, status.open) == ((1, 0, 0) if left else (0, 1, 0))
    assert bool(status.epsilon) is left
    assert bool(status.alone) is left
    if not left:
        with pytest.raises(FedcartError):
            leave(made)
    again = asked(scratch, attempt=2)
    if left:
        with pytest.raises(PolicyRefusedError, match="answered once"):
            advertise(scratch, again)
    else:
        sessions.Round(scratch, again).opened()


@pytest.mark.parametrize("phase", ["share", "accept", "mask"])
def test_another_attempt_ends_the_one_before_and_draws_anew(scratch, phase):
    first = to(scratch, phase)
    second = sessions.Round(scratch, asked(scratch, attempt=2))
    status = scratch.site.guard().status()
    assert (status.void, status.open) == (1, 1)
    bits = scratch.plan.blocks(TRAIN)[0].noise_bits
    one, two = (np.frombuffer(r.memory.ring, dtype=np.int32)[:-6] / 2.0**bits for r in (first, second))
    assert (
        abs(np.corrcoef(one, two)[0, 1]) < 5.5 / np.sqrt(len(one)) + 0.1
    )  # they share the clipped sum, if little
    assert (one != two).mean() > 0.99
    with pytest.raises(LocalProtocolError, match="dead"):
        leave(first)
    ring = second.memory.ring
    assert second.opened().tobytes() == ring


def test_a_ring_of_another_attempt_or_round_is_no_contribution(scratch):
    older = to(scratch, "mask").memory.ring
    newer = to(scratch, "mask", attempt=2)
    newer.memory = dataclasses.replace(newer.memory, ring=older)
    with pytest.raises(LocalProtocolError, match="no such contribution"):
        newer.step()
    assert scratch.site.guard().status().committed == 0


def test_attempts_that_are_given_up_are_charged_in_the_end(scratch):
    for attempt in range(1, 5):
        sessions.Round(scratch, asked(scratch, attempt=attempt))
    status = scratch.site.guard().status()
    assert (status.void, status.forfeit, status.open) == (2, 1, 1)  # voids_max is 2


def test_a_failure_while_computing_is_charged_with_both_figures(scratch, monkeypatch):
    def broken(*_arguments: Any) -> Any:
        raise LocalProtocolError("something")

    monkeypatch.setattr(mechanism, "to_ring", broken)
    with pytest.raises(ChargedError):
        advertise(scratch, asked(scratch))
    status = scratch.site.guard().status()
    assert status.forfeit == 1
    assert status.alone > status.epsilon > 0
