"""Planted bugs of the rules of quorum noise: fewer signers, a ring that stays, an account that counts on others."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import client.guard.status as status
import client.session as session
import client.verification as verification
import common.privacy.accountant as accounting
import common.privacy.mechanism as events
import common.privacy.quorum as quorums
from client.guard import budget, guard, policy
from common.errors import ConfigError
from tests.planted.bug import Bug, Patch

ACCOUNT = "tests/attacks/test_quorum_account.py"
SITE = "tests/attacks/test_quorum_noise.py"
FIGURES = "tests/common/privacy/test_quorum.py"


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
    Bug(the_figure_alone_with_the_noise_of_the_sum, ACCOUNT, "quorum"),
    Bug(survivors_counted_as_honest_in_every_event, ACCOUNT, "quorum"),
    Bug(a_policy_that_allows_any_quorum, ACCOUNT, "quorum"),
    Bug(a_policy_without_its_honest_sites, ACCOUNT, "quorum"),
    Bug(the_figure_alone_of_what_was_before, ACCOUNT, "quorum"),
    Bug(the_figure_alone_left_out_of_the_gate, ACCOUNT, "quorum"),
    Bug(a_policy_without_its_colluders, ACCOUNT, "quorum"),
    Bug(a_policy_without_a_limit_alone, ACCOUNT, "quorum"),
    Bug(the_figure_alone_shown_as_that_of_the_sums, ACCOUNT, "quorum"),
    Bug(what_ran_compared_without_its_quorum, ACCOUNT, "quorum"),
    Bug(a_ring_left_in_memory, SITE, "shared noise"),
    Bug(an_earlier_attempt_left_open, SITE, "shared noise"),
    Bug(a_ring_that_was_not_noted_sent, SITE, "shared noise"),
    Bug(a_ring_of_an_earlier_attempt_sent_again, SITE, "shared noise"),
    Bug(a_ring_written_to_a_log, SITE, "shared noise"),
    Bug(a_ring_kept_in_the_outbox, SITE, "shared noise"),
    *(
        Bug(bug, SITE, "quorum")
        for bug in (
            a_threshold_lowered_by_a_smaller_cohort,
            a_threshold_lowered_by_a_retry,
            a_threshold_lowered_for_the_evaluation,
            survivors_counted_as_honest,
            a_share_shown_in_a_plain_session,
            colluders_feared_in_the_cohort_only,
        )
    ),
    *(
        Bug(bug, FIGURES, "quorum")
        for bug in (
            colluders_ignored,
            all_who_sign_counted_as_honest,
            the_sum_with_the_noise_of_one_more,
            slack_dropped_from_epsilon,
            slack_of_one_sum_only,
            sums_of_two_quorums_counted_as_the_better,
            one_sum_moved_twice_counted_as_two_sums,
        )
    ),
)
