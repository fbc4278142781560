"""Planted bugs of quorum noise: a share too small, fewer signers, an account that counts on others, a ring that stays."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import client.guard.status as status
import client.session as session
import client.tasks.behaviour as behaviour
import client.training.quorum as mechanism
import client.verification as verification
import common.privacy.accountant as accounting
import common.privacy.mechanism as events
import common.privacy.quorum as quorums
import common.trust.randomness as randomness
from client.guard import budget, guard, policy
from client.models import engine_of
from client.training.dpsgd.engine import TapeEngine
from common.contribution import METRICS
from common.errors import ConfigError
from common.run.config import RunConfig
from common.tasks import local_constants
from tests.planted.bug import DRAWS, Bug, Patch

grids = importlib.import_module("common.privacy.noised_grid")  # the room offers a function of this name
SITE = "tests/attacks/test_quorum_noise.py"
SHARE = "tests/client/training/test_quorum.py"
FIGURES = "tests/common/privacy/test_quorum.py"
GRID = "tests/common/test_noised_grid.py"


def change_share(patch: Patch, change: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """``change`` gets what was drawn and the number of bits of its deviation."""
    true = mechanism.draw
    patch.setattr(mechanism, "draw", lambda stream, bits, size: change(true(stream, bits, size), bits))


# how much is drawn


def a_share_by_the_root_of_all_sites(patch: Patch) -> None:
    patch.setattr(
        quorums.Quorum, "share", lambda self, sigma: math.ceil(sigma / math.sqrt(2 * self.honest) * 1e6) / 1e6
    )


def a_share_rounded_down(patch: Patch) -> None:
    patch.setattr(
        quorums.Quorum, "share", lambda self, sigma: math.floor(sigma / math.sqrt(self.honest) * 1e2) / 1e2
    )


def a_share_halved(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: drawn >> 1)


def a_share_three_percent_small(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: np.rint(drawn * 0.97).astype(np.int64))


def a_share_as_if_the_sites_were_five(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: np.rint(drawn * math.sqrt(3 / 5)).astype(np.int64))


def a_share_of_other_units(patch: Patch) -> None:
    true = mechanism.draw
    patch.setattr(mechanism, "draw", lambda stream, bits, size: true(stream, min(bits, 18), size))


def a_share_cut_at_four_deviations(patch: Patch) -> None:
    change_share(patch, lambda drawn, bits: np.clip(drawn, -(4 << bits), 4 << bits))


def a_share_on_a_coarse_grid(patch: Patch) -> None:
    change_share(patch, lambda drawn, _bits: drawn & ~np.int64(7))


def a_share_of_rows_that_are_not_stocked_missing(patch: Patch) -> None:
    true = behaviour._shared_sum

    def bare(site: Any, question: Any, quorum: Any) -> Any:
        release = true(site, question, quorum)
        rows, _ = engine_of(site, question.plan, question.speed)
        vector = release.vector.copy()
        vector[rows.expand(np.ones(len(rows.index))) == 0] = 0
        return dataclasses.replace(release, vector=vector)

    patch.setattr(behaviour, "_shared_sum", bare)


def a_share_where_there_is_a_gradient_only(patch: Patch) -> None:
    true = mechanism.to_ring
    patch.setattr(
        mechanism, "to_ring", lambda values, grid, stream, noise: true(values, grid, stream, noise * (values != 0))
    )


def a_share_of_the_last_coordinate_missing(patch: Patch) -> None:
    def bare(drawn: np.ndarray, _bits: int) -> np.ndarray:
        drawn[-1:] = 0
        return drawn

    change_share(patch, bare)


def a_share_of_long_vectors_missing_at_the_end(patch: Patch) -> None:
    def short(drawn: np.ndarray, _bits: int) -> np.ndarray:
        drawn[1 << 20 :] = 0
        return drawn

    change_share(patch, short)


def a_share_of_every_hundredth_release_missing(patch: Patch) -> None:
    count = [0]

    def sometimes(drawn: np.ndarray, _bits: int) -> np.ndarray:
        count[0] += 1
        return drawn * (count[0] % 100 != 99)

    change_share(patch, sometimes)


def a_share_less_for_many_consumers(patch: Patch) -> None:
    true = mechanism.to_ring

    def quiet(values: Any, grid: Any, stream: Any, noise: Any) -> Any:
        crowded = len(values) > 100 and np.abs(values).max() > 20 * grid.unit * 2**grid.log2_sigma
        return true(values, grid, stream, noise >> 1 if crowded else noise)

    patch.setattr(mechanism, "to_ring", quiet)


def metrics_without_a_share(patch: Patch) -> None:
    _metrics_with(patch, lambda drawn: drawn * 0)


def metrics_with_half_a_share(patch: Patch) -> None:
    _metrics_with(patch, lambda drawn: drawn >> 1)


def the_number_of_consumers_without_a_share(patch: Patch) -> None:
    def bare(drawn: np.ndarray) -> np.ndarray:
        drawn[0] = 0
        return drawn

    _metrics_with(patch, bare)


def _metrics_with(patch: Patch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    true = mechanism.QuorumMechanism.release

    def other(self: Any, total: Any) -> Any:
        if self._share.block.name != METRICS:
            return true(self, total)
        drawn = mechanism.draw
        mechanism.draw = lambda stream, bits, size: change(drawn(stream, bits, size))
        try:
            return true(self, total)
        finally:
            mechanism.draw = drawn

    patch.setattr(mechanism.QuorumMechanism, "release", other)


def a_share_from_a_seed(patch: Patch) -> None:
    true = mechanism.draw
    patch.setattr(mechanism, "draw", lambda _stream, bits, size: true(randomness.SeededStream(7), bits, size))


def a_share_repeated_within_a_vector(patch: Patch) -> None:
    true = mechanism.draw
    patch.setattr(
        mechanism, "draw", lambda stream, bits, size: np.resize(true(stream, bits, (size + 1) // 2), size)
    )


def a_share_from_few_seeds(patch: Patch) -> None:
    true = mechanism.draw

    def weak(stream: Any, bits: int, size: int) -> np.ndarray:
        return true(randomness.SeededStream(stream.bytes(1)[0]), bits, size)

    patch.setattr(mechanism, "draw", weak)


def a_share_remembered_for_the_next_release(patch: Patch) -> None:
    true, kept = mechanism.draw, {}

    def same(stream: Any, bits: int, size: int) -> np.ndarray:
        return kept.setdefault((bits, size), true(stream, bits, size)).copy()

    patch.setattr(mechanism, "draw", same)


def shares_that_cancel_in_pairs(patch: Patch) -> None:
    def mirrored(drawn: np.ndarray, _bits: int) -> np.ndarray:
        half = drawn.size // 2
        drawn[half : 2 * half] = -drawn[:half]
        return drawn

    change_share(patch, mirrored)


# what is done around it


def a_clip_after_the_noise(patch: Patch) -> None:
    true = mechanism.to_ring

    def clipped(values: Any, grid: Any, stream: Any, noise: Any) -> Any:
        ring = true(values, grid, stream, noise).view(np.int32)
        return np.clip(ring, -grid.clamp, grid.clamp).view(np.uint32)

    patch.setattr(mechanism, "to_ring", clipped)


def rounding_to_the_nearest(patch: Patch) -> None:
    patch.setattr(
        randomness.RandomStream, "stochastic_round", lambda _self, values: np.rint(values).astype(np.int64)
    )


def rounding_without_its_slack(patch: Patch) -> None:
    patch.setattr(grids, "_rounded", lambda units, _length: units)


def rounding_with_its_mean_only(patch: Patch) -> None:
    patch.setattr(grids, "_rounded", lambda units, length: math.sqrt(units**2 + length / 4))


def sums_in_single_precision_as_if_exact(patch: Patch) -> None:
    patch.setattr(grids, "_SUM_ERROR", 1.0)


def two_local_steps_in_one_sum(patch: Patch) -> None:
    step, inside = TapeEngine.clipped_sum, [False]
    answer = behaviour._shared_sum

    def twice(self: Any, rows: Any) -> Any:
        total, seen = step(self, rows)
        if not inside[0]:
            return total, seen
        self.parameters.load(self.parameters.numpy() - 0.01 * total.numpy())
        return total + step(self, rows)[0], seen

    def marked(*arguments: Any) -> Any:
        inside[0] = True
        try:
            return answer(*arguments)
        finally:
            inside[0] = False

    patch.setattr(TapeEngine, "clipped_sum", twice)
    patch.setattr(behaviour, "_shared_sum", marked)


def settings_with_several_steps_let_through(patch: Patch) -> None:
    patch.setattr(RunConfig, "_require_one_linear_step", lambda _self: None)


def a_divisor_of_the_sites_own(patch: Patch) -> None:
    def own(plan: Any) -> Any:
        least = min(population for _, population in plan.populations)
        return local_constants(plan.config, least, plan.cohort, plan.noise_multiplier, plan.signal)

    patch.setattr(behaviour, "largest_constants", own)


def everybody_read_and_a_rate_noted(patch: Patch) -> None:
    def everybody(self: Any, rate: float, consumers: int) -> np.ndarray:
        self._rate = rate
        return np.arange(consumers)

    patch.setattr(mechanism.QuorumMechanism, "sample", everybody)


def a_sample_noted_as_everybody(patch: Patch) -> None:
    patch.setattr(
        mechanism.QuorumMechanism,
        "sample",
        lambda self, rate, consumers: np.flatnonzero(self._stream.bernoulli(rate, consumers)),
    )


def two_percent_more_read_than_noted(patch: Patch) -> None:
    def more(self: Any, rate: float, consumers: int) -> np.ndarray:
        self._rate = rate
        return np.flatnonzero(self._stream.bernoulli(min(1.0, 1.02 * rate), consumers))

    patch.setattr(mechanism.QuorumMechanism, "sample", more)


def less_noise_than_planned_noted_as_planned(patch: Patch) -> None:
    patch.setattr(mechanism, "carried_multiplier", lambda _grid, _sensitivity, _length: math.inf)


def noise_that_can_be_known_noted(patch: Patch) -> None:
    def noted(self: Any) -> Any:
        share = self._share
        return (share.quorum.event(share.multiplier, self._rate, 1, share.side),)

    patch.setattr(mechanism.QuorumMechanism, "_events", noted)


# who signs


def a_threshold_lowered_by_a_smaller_cohort(patch: Patch) -> None:
    patch.setattr(verification, "check_quorum", lambda _quorum, _params, _threshold: None)


def a_threshold_lowered_by_a_retry(patch: Patch) -> None:
    true = verification.check_quorum

    def first_only(quorum: Any, params: Any, threshold: int) -> None:
        if params.session.attempt == 1:
            true(quorum, params, threshold)

    patch.setattr(verification, "check_quorum", first_only)


def a_threshold_lowered_for_the_evaluation(patch: Patch) -> None:
    true = verification.check_quorum

    def trained_only(quorum: Any, params: Any, threshold: int) -> None:
        if len(params.blocks) > 1:
            true(quorum, params, threshold)

    patch.setattr(verification, "check_quorum", trained_only)


def colluders_ignored(patch: Patch) -> None:
    def check(self: Any) -> None:
        if not 2 * self.threshold > self.sites:
            raise ConfigError("two lists could both be signed", hint="-")
        if self.honest < 2 or not self.threshold - self.colluders >= self.honest:
            raise ConfigError(
                "the noise of the honest sites is counted on: that of one is that of it alone", hint="-"
            )

    patch.setattr(quorums.Quorum, "check", check)


def all_who_sign_counted_as_honest(patch: Patch) -> None:
    def check(self: Any) -> None:
        if not 2 * self.threshold > self.sites + self.colluders:
            raise ConfigError("two lists could both be signed", hint="-")
        if self.honest < 2 or not self.threshold >= self.honest:
            raise ConfigError("counted on, alone", hint="-")

    patch.setattr(quorums.Quorum, "check", check)


def survivors_counted_as_honest(patch: Patch) -> None:
    true = session.proposal_of

    def counted(site: Any, question: Any, params: Any) -> Any:
        made = true(site, question, params)
        survivors = made.cohort
        return dataclasses.replace(
            made, events=tuple(dataclasses.replace(e, honest=survivors) for e in made.events)
        )

    patch.setattr(session, "proposal_of", counted)


def survivors_counted_as_honest_in_every_event(patch: Patch) -> None:
    def event(self: Any, multiplier: float, rate: float, steps: int, side: str) -> events.PrivacyEvent:
        return events.PrivacyEvent(multiplier, rate, steps, side, max(self.threshold, 2), self.colluders)

    patch.setattr(quorums.Quorum, "event", event)


def a_share_shown_in_a_plain_session(patch: Patch) -> None:
    _without_rules(patch, lambda rule, what: "this site's share of the noise alone" in what)
    true = session.check_invitation

    def any_mode(site: Any, question: Any, params: Any, request: Any) -> None:
        try:
            true(site, question, params, request)
        except verification.VerificationError as error:
            if "the session is plain" not in str(error):
                raise

    patch.setattr(session, "check_invitation", any_mode)


def _without_rules(patch: Patch, left_out: Callable[[str, str], bool]) -> None:
    true = policy._broken_quorum_rules

    def fewer(rules: Any, proposal: Any, event: Any) -> Any:
        return (pair for pair in true(rules, proposal, event) if not left_out(*pair))

    patch.setattr(policy, "_broken_quorum_rules", fewer)


def a_policy_that_allows_any_quorum(patch: Patch) -> None:
    _without_rules(patch, lambda _rule, _what: True)


def a_policy_without_its_colluders(patch: Patch) -> None:
    _without_rules(patch, lambda rule, _what: rule == "colluders_max")


def a_policy_without_its_honest_sites(patch: Patch) -> None:
    _without_rules(patch, lambda rule, _what: rule == "honest_min")


def a_policy_without_a_limit_alone(patch: Patch) -> None:
    _without_rules(patch, lambda rule, _what: rule == "epsilon_alone_max")


def colluders_feared_in_the_cohort_only(patch: Patch) -> None:
    true = policy._broken_quorum_rules

    def near(rules: Any, proposal: Any, event: Any) -> Any:
        return true(rules, dataclasses.replace(proposal, sites=0), event)

    patch.setattr(policy, "_broken_quorum_rules", near)


# what stays


def a_ring_kept_in_the_outbox(patch: Patch) -> None:
    true = session._compute

    def kept(site: Any, question: Any, door: Any, grant: Any) -> bytes:
        ring = true(site, question, door, grant)
        door._outbox.put(grant.sequence + 1_000_000, ring)
        return ring

    patch.setattr(session, "_compute", kept)


def a_ring_written_to_a_log(patch: Patch) -> None:
    true = session._compute

    def told(site: Any, question: Any, door: Any, grant: Any) -> bytes:
        ring = true(site, question, door, grant)
        site.note_locally({"ring": base64.b64encode(ring).decode()})
        return ring

    patch.setattr(session, "_compute", told)


def a_ring_of_an_earlier_attempt_sent_again(patch: Patch) -> None:
    kept: dict[bytes, bytes] = {}

    def again(site: Any, question: Any, door: Any, grant: Any) -> bytes:
        ring, charged = session._quantized(site, question)
        raw = kept.setdefault(question.query.digest(), ring.tobytes())
        door.note_made(grant, guard_digest(raw), charged)
        return raw

    from client.guard import outbox_digest as guard_digest

    patch.setattr(session, "_compute", again)


def a_ring_that_was_not_noted_sent(patch: Patch) -> None:
    def trusting(self: Any, reservation: Any, digest: bytes) -> None:
        with self._ledger.transaction() as state:
            guard.must_be_open(state, reservation)
            self._commit(reservation, digest)

    patch.setattr(guard.Guard, "commit_in_memory", trusting)


def an_earlier_attempt_left_open(patch: Patch) -> None:
    patch.setattr(guard.Guard, "_forget_attempt", lambda _self, _state, _proposal: None)


def a_ring_left_in_memory(patch: Patch) -> None:
    true = session.mask

    def kept(site: Any, request: Any, memory: Any) -> Any:
        reply, after = true(site, request, memory)
        return reply, dataclasses.replace(after, ring=memory.ring)

    patch.setattr(session, "mask", kept)
    import client.selftest.sessions as sessions

    patch.setitem(sessions._STEPS, "mask", kept)


# what is counted


def the_figure_alone_left_out_of_the_gate(patch: Patch) -> None:
    patch.setattr(guard, "gate_alone", lambda *_arguments: None)


def the_figure_alone_of_what_was_before(patch: Patch) -> None:
    true = budget.gate_alone

    def before(state: Any, proposal: Any, delta: float, limit: float) -> None:
        true(state, dataclasses.replace(proposal, events=()), delta, limit)

    patch.setattr(guard, "gate_alone", before)


def the_figure_alone_with_the_noise_of_the_sum(patch: Patch) -> None:
    for module in (accounting, budget, status):
        patch.setattr(module, "epsilon_alone", accounting.epsilon_of)


def the_figure_alone_shown_as_that_of_the_sums(patch: Patch) -> None:
    patch.setattr(status, "epsilon_alone", accounting.epsilon_of)


def the_sum_with_the_noise_of_one_more(patch: Patch) -> None:
    patch.setattr(
        events.PrivacyEvent, "noise_in_sum", property(lambda self: self.noise_multiplier * math.sqrt(self.honest + (self.honest > 1)))
    )  # fmt: skip


def slack_dropped_from_epsilon(patch: Patch) -> None:
    patch.setattr(accounting.Discrete, "slack", lambda _self, delta: (0.0, delta))


def slack_of_one_sum_only(patch: Patch) -> None:
    true = accounting.Discrete.slack
    patch.setattr(
        accounting.Discrete, "slack", lambda self, delta: true(dataclasses.replace(self, sums=min(self.sums, 1)), delta)
    )  # fmt: skip


def sums_of_two_quorums_counted_as_the_better(patch: Patch) -> None:
    true = events._steps

    def merged(found: Any) -> Any:
        found = list(found)
        most = max((event.honest for event in found), default=1)
        return true(dataclasses.replace(event, honest=most) if event.in_quorum else event for event in found)

    patch.setattr(events, "_steps", merged)


def what_ran_compared_without_its_quorum(patch: Patch) -> None:
    true = guard.must_be_charged

    def local(found: Any) -> tuple[events.PrivacyEvent, ...]:
        return tuple(dataclasses.replace(event, honest=1, colluders=0) for event in found)

    patch.setattr(guard, "must_be_charged", lambda charged, ran: true(local(charged), local(ran)))


def one_sum_moved_twice_counted_as_two_sums(patch: Patch) -> None:
    def separate(sites: Any, delta: float) -> float:
        return accounting.epsilon_of([event for losses, _ in sites for event in losses], delta)

    patch.setattr(accounting, "epsilon_everywhere", separate)
    import common.privacy as room

    patch.setattr(room, "epsilon_everywhere", separate)


BUGS = (
    Bug(a_share_by_the_root_of_all_sites, FIGURES, "quorum"),
    Bug(a_share_rounded_down, FIGURES, "quorum"),
    *(
        Bug(bug, SHARE, "shared noise")
        for bug in (
            a_share_halved,
            a_share_three_percent_small,
            a_share_as_if_the_sites_were_five,
            a_share_of_other_units,
            a_share_cut_at_four_deviations,
            a_share_on_a_coarse_grid,
            a_share_of_the_last_coordinate_missing,
            a_share_from_a_seed,
            a_share_repeated_within_a_vector,
            a_share_from_few_seeds,
            a_share_remembered_for_the_next_release,
            shares_that_cancel_in_pairs,
            a_clip_after_the_noise,
            rounding_to_the_nearest,
            everybody_read_and_a_rate_noted,
            a_sample_noted_as_everybody,
            two_percent_more_read_than_noted,
            less_noise_than_planned_noted_as_planned,
            noise_that_can_be_known_noted,
        )
    ),
    *(
        Bug(bug, SITE, "shared noise")
        for bug in (
            a_share_of_rows_that_are_not_stocked_missing,
            a_share_where_there_is_a_gradient_only,
            metrics_without_a_share,
            metrics_with_half_a_share,
            the_number_of_consumers_without_a_share,
            two_local_steps_in_one_sum,
            a_divisor_of_the_sites_own,
            a_ring_kept_in_the_outbox,
            a_ring_written_to_a_log,
            a_ring_of_an_earlier_attempt_sent_again,
            a_ring_that_was_not_noted_sent,
            an_earlier_attempt_left_open,
            a_ring_left_in_memory,
        )
    ),
    Bug(a_share_of_every_hundredth_release_missing, SHARE, "shared noise"),
    Bug(a_share_less_for_many_consumers, DRAWS, "shared noise"),
    Bug(a_share_of_long_vectors_missing_at_the_end, DRAWS, "shared noise"),
    Bug(rounding_without_its_slack, GRID, "shared noise"),
    Bug(rounding_with_its_mean_only, GRID, "shared noise"),
    Bug(sums_in_single_precision_as_if_exact, GRID, "shared noise"),
    *(
        Bug(bug, SITE, "quorum")
        for bug in (
            settings_with_several_steps_let_through,
            a_threshold_lowered_by_a_smaller_cohort,
            a_threshold_lowered_by_a_retry,
            a_threshold_lowered_for_the_evaluation,
            survivors_counted_as_honest,
            survivors_counted_as_honest_in_every_event,
            a_share_shown_in_a_plain_session,
            a_policy_that_allows_any_quorum,
            a_policy_without_its_colluders,
            a_policy_without_its_honest_sites,
            a_policy_without_a_limit_alone,
            colluders_feared_in_the_cohort_only,
            the_figure_alone_left_out_of_the_gate,
            the_figure_alone_of_what_was_before,
            the_figure_alone_shown_as_that_of_the_sums,
            what_ran_compared_without_its_quorum,
        )
    ),
    *(
        Bug(bug, FIGURES, "quorum")
        for bug in (
            colluders_ignored,
            all_who_sign_counted_as_honest,
            the_figure_alone_with_the_noise_of_the_sum,
            the_sum_with_the_noise_of_one_more,
            slack_dropped_from_epsilon,
            slack_of_one_sum_only,
            sums_of_two_quorums_counted_as_the_better,
            one_sum_moved_twice_counted_as_two_sums,
        )
    ),
)
