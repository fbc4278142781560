"""The rules of the door: what a scratch ledger must refuse, and what it must not forget, whatever is asked of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import client.selftest.account as account
import client.selftest.report as report
import common.privacy.accountant as accounting
from client.guard import Guard, Proposal
from client.selftest.report import Check
from common.errors import FedcartError
from common.model_files import NEVER_LEAVES, refuse_personal
from common.privacy import HOLDOUT_SIDE, SUB_SCOPES, TRAIN_SIDE, Charge, Losses, PrivacyEvent

EVENT = PrivacyEvent(1.7, 0.05, 20)
LOOK = PrivacyEvent(3.0, 1.0, 1, HOLDOUT_SIDE)
FORBIDDEN: dict[str, dict[str, Any]] = {
    "noise_multiplier_min": {"events": (PrivacyEvent(0.45, 0.05, 1),)},
    "evaluation_noise_min": {"events": (PrivacyEvent(0.9, 1.0, 1, HOLDOUT_SIDE),)},
    "evaluation_noise_min, beside training": {"events": (EVENT, PrivacyEvent(0.9, 1.0, 1, HOLDOUT_SIDE))},
    "steps_max": {"events": (PrivacyEvent(1.7, 0.001, 1_001),)},
    "plain_aggregation": {"events": (EVENT,), "secure": False},
    "min_cohort": {"events": (EVENT,), "cohort": 2, "threshold": 2},
    "min_consumers": {"events": (EVENT,), "population": 99},
    "min_stockists": {"events": (EVENT,), "min_stockists": 2},
    "min_threshold_fraction": {"events": (EVENT,), "threshold": 1},
    "clip_max": {"events": (EVENT,), "clip": 101.0},
    "learning_rate_max": {"events": (EVENT,), "learning_rate": 10.5},
    "weight_ratio_max": {"events": (EVENT,), "weight_ratio": 2_000.0},
    "delta": {"events": (EVENT,), "delta": 1e-4},
    "allowed_tasks": {"events": (EVENT,), "task": "somebody-else-s"},
}
"""What the policy that a site begins with refuses, one rule at a time."""


def rules() -> list[Check]:
    """Each rule of the guard: the proposal that breaks it is refused, the one beside it is not."""
    alone = [*_proposals(), *_answers(), *_killed(), _limit_of_the_held_out(), _attested(), *_file(), *_carried()]
    return [*alone, *_two_kits(), _personal()]


def _refused(act: Callable[[], Any]) -> bool:
    try:
        act()
    except FedcartError:
        return True
    return False


def _proposals() -> list[Check]:
    checks = []
    with account.scratch_ledger() as (open_again, asked):
        guard = open_again()
        first = guard.reserve(asked(1, EVENT, holdout=0.2, split_key="aa" * 32, run_events=(EVENT, EVENT)))
        account.leave(guard, first)
        held = {"holdout": 0.2, "split_key": "aa" * 32}
        broken = {
            "a round is answered once": asked(1, EVENT, attempt=2, **held),
            "nobody changes sides": asked(2, EVENT, holdout=0.2, split_key="bb" * 32),
            "the share held out stays": asked(2, EVENT, holdout=0.1, split_key="aa" * 32),
            "no run passes its plan": asked(2, EVENT, run_events=(EVENT,), **held),
            "nothing is free": asked(2, **held),
            "no run looks more often than its plan": asked(2, LOOK, run_events=(EVENT, EVENT), **held),
        }
        for number, (rule, changes) in enumerate(FORBIDDEN.items(), start=2):
            broken[f"policy rule {rule}"] = asked(number, **{**held, **changes})
        for name, proposal in broken.items():
            refused = _refused(partial(open_again().reserve, proposal))
            checks.append(report.holds(f"refused: {name}", refused, "by the site's own ledger and policy"))
        allowed = not _refused(lambda: open_again().reserve(asked(2, EVENT, run_events=(EVENT, EVENT), **held)))
        checks.append(report.holds("what breaks no rule", allowed, "is not refused"))
    return checks


def _answers() -> list[Check]:
    """What ran is what was charged, an answer leaves once, and a run that fails here pauses."""
    with account.scratch_ledger(failures_max=1) as (open_again, asked):
        guard = open_again()
        grant = guard.reserve(asked(1, EVENT))
        thrice = dataclasses.replace(EVENT, steps=3 * EVENT.steps)
        more = _refused(lambda: guard.store(grant, b"contribution", (thrice,)))
        quieter = _refused(lambda: guard.store(grant, b"x", (dataclasses.replace(EVENT, noise_multiplier=0.8),)))
        other = _refused(lambda: guard.store(grant, b"x", (dataclasses.replace(EVENT, sub_scope=HOLDOUT_SIDE),)))
        guard.store(grant, b"contribution", (EVENT,))
        guard.commit(grant)
        two = guard.reserve(asked(4, EVENT, LOOK, run="two"))
        second = _refused(lambda: guard.store(two, b"x", (EVENT, dataclasses.replace(LOOK, noise_multiplier=1.5))))
        guard.close_round("two", 4)
        twice = _refused(lambda: open_again().commit(grant))
        spent = guard.status().epsilon
        open_again().restart()
        stays = open_again().status().epsilon == spent
        failing = guard.reserve(asked(2, EVENT))
        guard.fail(failing)
        paused = _refused(lambda: open_again().reserve(asked(3, EVENT)))
    return [
        report.holds("more steps than charged", more, "refused before anything is stored"),
        report.holds("less noise than charged", quieter, "refused before anything is stored"),
        report.holds("other consumers than charged", other, "refused before anything is stored"),
        report.holds("less noise in the second part", second, "refused before anything is stored"),
        report.holds("an answer leaves once", twice, "the second time is refused"),
        report.holds("what has left stays charged", stays, "after a restart"),
        report.holds("a failure pauses the run", paused, "or the site would pay every round for nothing"),
    ]


def _killed() -> list[Check]:
    """A process that is ended while it computes says nothing: two answers of a run are given back, then it pauses."""
    with account.scratch_ledger(failures_max=1) as (open_again, asked):
        for number in (1, 2, 3):
            open_again().reserve(asked(number, EVENT))
            open_again().restart()
        status = open_again().status()
        paused = _refused(lambda: open_again().reserve(asked(4, EVENT)))
    counted = (status.void, status.forfeit) == (2, 1)
    return [
        report.holds("answers that were killed", counted, "two are given back, the third is charged"),
        report.holds("killing without end", paused, "the site pauses for the run"),
    ]


def _personal() -> Check:
    """What a site has made of its own consumers without noise is known by its mark, whatever it is called."""
    header = json.dumps({"__metadata__": {"made": NEVER_LEAVES}}, allow_nan=False).encode()
    refused = _refused(lambda: refuse_personal(len(header).to_bytes(8, "little") + header, "model"))
    return report.holds("a personal model", refused, "never leaves")


def _two_kits() -> list[Check]:
    """Two kits about the same consumers spend one budget, and a restart of one leaves the other's reservations alone."""
    with account.shared_scratch_ledger() as (open_kit, asked):
        first, second = open_kit("first"), open_kit("second")
        open_kit("first").reserve(asked(1, EVENT, run="one", config="cd" * 32))
        second.restart()
        kept = open_kit("second").status()
        waiting = first.find("one", 1)
        if waiting is not None:
            account.leave(first, waiting)
        said = second.reserve(asked(1, EVENT, run="two")).attestation.attestation
        steps = sum(event.steps for event in said.totals)
        limit = Losses.of(said.totals)
        full = open_kit("second", accounting.epsilon_of(limit, account.DELTA, said.order) + 1e-6)
        refused = _refused(lambda: full.reserve(asked(2, EVENT, run="two")))
        third = asked(3, EVENT, run="one", config="cd" * 32, run_events=(EVENT, EVENT))
        own = not _refused(lambda: open_kit("first").check_proposal(third))
        open_kit("second").reserve(dataclasses.replace(third, run="two"))
        own &= not _refused(lambda: open_kit("first").reserve(third))
        away = _refused(lambda: open_kit("first", elsewhere=True))
    moved, went_on = account.moved_scratch_ledgers(EVENT)
    return [
        report.holds("two sites of one run", own, "each is bound to the plan, not to what the other one spent"),
        report.holds("another account", away, "is refused: there the kit might have spent nothing yet"),
        Check("two kits of one name", moved == 4 * EVENT.steps, moved, 4 * EVENT.steps, "both are charged, once"),
        Check("a copy that went on apart", went_on == 6 * EVENT.steps, went_on, 6 * EVENT.steps, "both ends are"),
        report.holds(
            "another kit's reservation", (kept.open, kept.void) == (1, 0), "stays when this one restarts"
        ),
        report.holds(
            "another kit's release", steps == 2 * EVENT.steps and said.adaptive, "counts here, as a late run's"
        ),
        report.holds("the limit of two kits", refused, "holds for both together"),
    ]


def _limit_of_the_held_out() -> Check:
    """The limit holds for the hold-out as it does for training."""
    two = accounting.epsilon_of((dataclasses.replace(LOOK, steps=2),), account.DELTA)
    with account.scratch_ledger(two + 1e-6) as (open_again, asked):
        made = 0
        for number in range(1, 5):
            guard = open_again()
            if _refused(partial(_look, guard, asked(number, LOOK))):
                break
            made += 1
    return Check("the limit of the hold-out", made == 2, float(made), 2.0, "looks that fit, no more and no less")


def _look(guard: Guard, proposal: Proposal) -> None:
    account.leave(guard, guard.reserve(proposal))


def _attested() -> Check:
    """An attestation says what the ledger says after the round that it is about."""
    agrees = True
    with account.scratch_ledger() as (open_again, asked):
        for number in (1, 2, 3):
            guard = open_again()
            grant = guard.reserve(asked(number, EVENT, LOOK))
            said, now = grant.attestation.attestation, guard.status().epsilon
            totals = accounting.epsilon_of(said.totals, account.DELTA)
            agrees &= said.epsilon_after == now and abs(totals - now) < 1e-5 and said.epsilon_before < now
            if number == 3:
                guard.store(grant, b"contribution", (EVENT, LOOK))
                again = open_again().reserve(asked(number, EVENT, LOOK, attempt=2)).attestation.attestation
                agrees &= again.totals == said.totals and again.epsilon_after == now
            else:
                account.leave(guard, grant)
    return report.holds("what is attested", agrees, "epsilon and totals after the round, as in the ledger")


def _file() -> list[Check]:
    """A ledger that was cut back, changed or removed is refused."""
    seen = {}
    for name in ("an older copy", "a changed byte", "a removed file"):
        with account.scratch_ledger() as (open_again, asked):
            guard = open_again()
            path = guard.ledger.path
            account.leave(guard, guard.reserve(asked(1, EVENT)))
            shutil.copy(path, path.with_suffix(".old"))
            account.leave(guard, guard.reserve(asked(2, EVENT)))
            if name == "an older copy":
                shutil.move(path.with_suffix(".old"), path)
            elif name == "a removed file":
                path.unlink()
            else:
                text = path.read_bytes()
                path.write_bytes(text.replace(b'"steps":20', b'"steps":10', 1))
            seen[name] = _refused(open_again)
    return [report.holds(f"ledger: {name}", refused, "the site stops") for name, refused in seen.items()]


def _carried() -> list[Check]:
    """What is charged for an earlier ledger counts, and on every side where it is not known who was held out."""
    charged = Losses.of((EVENT,)).on_every_side()
    with account.scratch_ledger() as (open_again, asked):
        guard = open_again()
        with guard.ledger.transaction():
            guard.ledger.append(Charge(events=charged.events, reason="self-test", order=4.0, adaptive=False))
            guard.ledger.renew_anchor()
        account.leave(guard, guard.reserve(asked(1, EVENT)))
        state = open_again().ledger.state
        sides = {event.sub_scope: event.steps for event in state.spent}
    with account.scratch_ledger() as (open_again, asked):
        guard = open_again()
        with guard.ledger.transaction():
            guard.ledger.append(
                Charge(events=(EVENT,), reason="self-test", order=4.0, adaptive=True, planned=("ab" * 32,))
            )
            guard.ledger.renew_anchor()
        late = guard.reserve(asked(1, EVENT)).attestation.attestation.adaptive
    counted = sides == dict.fromkeys(SUB_SCOPES, EVENT.steps) | {TRAIN_SIDE: 2 * EVENT.steps}
    return [
        report.holds("an earlier ledger", counted, "what it had is charged here"),
        report.holds("an earlier ledger that was not planned", late, "counts at the one order here too"),
    ]
