"""The rules of quorum noise: what a site refuses before it charges anything, and both figures of its account.

A scratch site among seven is asked in sessions, and by plans, in which a sum would hold less noise than is counted on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np

import client.selftest.account as account
import client.selftest.people as people
import client.selftest.report as report
import client.selftest.sessions as sessions
import common.privacy.accountant as accounting
from client.selftest.report import Check
from common.contribution import EVALUATE
from common.privacy import TRAIN_SIDE, Losses, PrivacyEvent, Quorum, usual_colluders

MARKET = people.Market(others=(512,) * 6)
SETTINGS: dict[str, Any] = {
    "model": {"heads": {"next-item": 1.0}},
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "rounds": 10_000},
    "privacy": {"trust": "quorum", "colluders": 2, "honest": 3, "sampling_rate": 0.2, "epsilon": 1000.0},
    "aggregation": {"threshold": 5},
}
UNFIT: dict[str, dict[str, Any]] = {
    "several local steps": {"training": {"local_steps": 2}},
    "an optimizer at the site": {"training": {"optimizer": "scalar-adam"}},
    "FedProx": {"training": {"proximal": 0.1}},
    "dropout": {"model": {"dropout": 0.1}},
    "equal weights": {"aggregation": {"weights": "equal"}},
    "plain aggregation": {"aggregation": {"mode": "plain"}},
    "hardened noise": {"privacy": {"noise": "hardened"}},
    "no privacy": {"privacy": {"enabled": False}},
    "sales": {"task": "sales"},
}
"""Settings with which a share of noise is not enough."""
UNSOUND: dict[str, dict[str, Any]] = {
    "two lists could be signed": {"privacy": {"colluders": 3, "honest": 2}},
    "more honest sites than sign": {"privacy": {"honest": 4}},
    "nobody else is honest": {"privacy": {"honest": 1, "colluders": 0}},
    "a threshold that is not settled": {"aggregation": {"threshold": 0}},
    "colluders that are not settled": {"privacy": {"colluders": -1}},
    "honest sites that are not settled": {"privacy": {"honest": 0}},
    "another threshold than the session's": {"aggregation": {"threshold": 6}},
}
"""Plans whose noise cannot be counted on, signed by the coordinator."""
SIGMAS = {1.44: (8.0308, 26.788, 19.107), 2.99: (2.9893, 7.5914, 6.6912), 7.63: (0.99919, 2.2239, 2.1548)}
"""Noise of the sum -> epsilon of it, of the own share among four honest ones, and of one sum that a consumer moves twice, known at
two sites; 100 steps at rate .2, delta 1e-5. Computed once with dp-accounting 0.6.0 outside of this program."""
_fresh = count(1)
SHARED = PrivacyEvent(1.2, 0.2, 4, TRAIN_SIDE, honest=4, colluders=2)


def rules() -> list[Check]:
    """Each rule: what breaks it is refused, uncharged, and what lies beside it is not."""
    return [*_sessions(), *_settings(), *_policy(), *_alone(), *figures(), *_numbers()]


def figures() -> list[Check]:
    """Both figures of the account as known answers, never below them, and what is shared by several sites."""
    checks = []
    for sigma, (in_sum, alone, twice) in SIGMAS.items():
        event = PrivacyEvent(sigma / 2, 0.2, 100, TRAIN_SIDE, honest=4, colluders=2)
        continuous = accounting.epsilon_of((PrivacyEvent(sigma, 0.2, 100),), account.DELTA)
        seen = accounting.epsilon_of((event,), account.DELTA)
        checks += [
            _close(f"epsilon of a sum of {sigma:g}", seen, in_sum),
            _close(f"epsilon alone, sum of {sigma:g}", accounting.epsilon_alone((event,), account.DELTA), alone),
            report.holds(f"slack of a sum of {sigma:g}", continuous < seen, "discrete noise costs a little more"),
            _not_below(f"one sum moved at two sites, {sigma:g}", [(Losses.of((event,)), None)] * 2, twice),
        ]
    many = PrivacyEvent(50.0, 1.0, 4_000, TRAIN_SIDE, honest=4, colluders=2)
    for name, figure, noise in (("sums", accounting.epsilon_of, 100.0), ("alone", accounting.epsilon_alone, 50.0)):
        more = figure((many,), account.DELTA) - accounting.epsilon_of(
            (PrivacyEvent(noise, 1.0, 4_000),), account.DELTA
        )
        checks.append(
            Check(f"slack of many sums, {name}", more >= 4_000 * 2.0**-21, more, 4_000 * 2.0**-21, "at least this")
        )
    return checks


def _close(name: str, seen: float, known: float) -> Check:
    return Check(name, known - 1e-4 <= seen <= known * 1.002, seen, known, "known answer, rounded upwards")


def _not_below(name: str, sites: list[tuple[Losses, float | None]], known: float) -> Check:
    seen = accounting.epsilon_everywhere(sites, account.DELTA)
    return Check(name, seen >= known - 1e-3, seen, known, "at least this")


def _numbers() -> list[Check]:
    """The numbers of a quorum by which plans are made."""
    shares = {4: 1.0, 1: 2.0, 16: 0.5}
    right = all(abs(Quorum(20, 14, 0, h).share(2.0) - own) <= 1e-6 for h, own in shares.items())
    upward = Quorum(20, 14, 0, 3).share(1.0) >= 3**-0.5
    event = Quorum(8, 6, 2, 4).event(0.7, 0.2, 3, TRAIN_SIDE)
    noted = event == PrivacyEvent(0.7, 0.2, 3, TRAIN_SIDE, 4, 2) and abs(event.noise_in_sum - 1.4) < 1e-12
    apart = [e.honest for e in Losses.of((SHARED, dataclasses.replace(SHARED, honest=2)))]
    usual = [usual_colluders(n) for n in (3, 4, 5, 8, 16, 100)] == [0, 1, 1, 2, 5, 33]
    return [
        report.holds("a share of noise", right and upward, "by the root of the honest sites, rounded up"),
        report.holds("an event in a quorum", noted, "the own noise, honest and colluding sites"),
        report.holds("sums of two quorums", apart == [2, 4], "are two mechanisms"),
        report.holds("colluders where nobody says", usual, "fewer than a third"),
        Check("sums against more colluders", *_against(), 1.0, "the cliff is where two lists can be signed"),
    ]  # fmt: skip


def _against() -> tuple[bool, float]:
    quorum = Quorum(8, 6, 2, 4)
    held = [quorum.honest_against(c) for c in range(7)] == [6, 5, 4, 3, 1, 1, 1] and quorum.cliff == 4
    return held, float(held)


def _sessions() -> list[Check]:
    """Sessions that the coordinator signs, of plans that it signs, in which less noise would open."""
    with people.scratch_site(None, SETTINGS, (1.0, 1.0), market=MARKET) as scratch:
        five, six = scratch.plan.sites[:5], scratch.plan.sites[:6]
        broken: dict[str, Callable[[], dict[str, Any]]] = {
            "a smaller cohort with a smaller threshold": lambda: _asked(scratch, cohort=five, threshold=4),
            "the same in the evaluation": lambda: _asked(scratch, cohort=five, threshold=4, kind=EVALUATE),
            "another attempt with a smaller threshold": lambda: _asked(
                scratch, cohort=five, threshold=4, attempt=2
            ),
            "a smaller threshold with which the numbers still add up": lambda: _asked(
                _other(scratch, {"privacy": {"honest": 2}}), cohort=five, threshold=4
            ),
            "the same in the evaluation, with numbers that add up": lambda: _asked(
                _other(scratch, {"privacy": {"honest": 2}}), cohort=five, threshold=4, kind=EVALUATE
            ),
            "a larger threshold": lambda: _asked(scratch, threshold=6),
            "a coarser layout": lambda: _asked(scratch, blocks=_blocks(scratch, noise_bits=19)),
            "a finer layout": lambda: _asked(scratch, blocks=_blocks(scratch, unit=1e-9)),
        }
        for name, changes in UNSOUND.items():
            broken[name] = partial(_asked, _other(scratch, changes), threshold=5)
        for name in ("several local steps", "equal weights", "FedProx", "plain aggregation"):
            broken[f"a signed plan with {name}"] = partial(_asked, _other(scratch, UNFIT[name]))
        checks = [_refused(name, scratch, make) for name, make in broken.items()]
        checks.append(_refused("a plain session", scratch, lambda: _plain(scratch), plainly=True))
        fits = _asked(scratch, cohort=six)
        answered = not _fails(lambda: sessions.answered(scratch, fits))
        checks.append(report.holds("a smaller cohort with the run's threshold", answered, "is answered"))
    return checks


def _asked(scratch: people.Scratch, **changes: Any) -> dict[str, Any]:
    """A question in a session that was never asked before: a site refuses to be in one twice, whatever else it is."""
    fresh = next(_fresh)
    last = scratch.plan.config.training.rounds + 1
    usual = {"attempt": fresh} if changes.get("kind") == EVALUATE else {}
    number = last if usual else fresh
    model = np.zeros(scratch.plan.parameters, dtype=np.float32)
    return sessions.asked(scratch, number, model, **usual | changes)


def _blocks(scratch: people.Scratch, **changes: Any) -> tuple[Any, ...]:
    first, *rest = scratch.plan.blocks("train")
    return (dataclasses.replace(first, **changes), *rest)


def _plain(scratch: people.Scratch) -> dict[str, Any]:
    """The question in a session of plain aggregation, as a coordinator could ask it under any plan."""
    return sessions.asked_plainly(scratch, next(_fresh), np.zeros(scratch.plan.parameters, dtype=np.float32))


def _other(scratch: people.Scratch, changes: dict[str, Any]) -> people.Scratch:
    """The same site under a plan with other settings, as anybody can write it down."""
    settings = json.loads(scratch.plan.settings) | {
        "name": f"self-test-{uuid4().hex}"
    }  # read anew, not remembered
    for name, section in changes.items():
        settings[name] = {**settings[name], **section} if isinstance(section, dict) else section
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return dataclasses.replace(scratch, plan=dataclasses.replace(scratch.plan, settings=text))


def _refused(
    name: str, scratch: people.Scratch, make: Callable[[], dict[str, Any]], *, plainly: bool = False
) -> Check:
    """Whether the request is refused, if it can be written down at all, and nothing is charged for it."""
    before = scratch.site.guard().status()
    refused = _fails(lambda: sessions.answered(scratch, make(), plainly=plainly))
    after = scratch.site.guard().status()
    free = (before.open, before.committed, before.forfeit) == (after.open, after.committed, after.forfeit)
    return report.holds(f"refused: {name}", refused and free, "before anything is charged")


def _fails(act: Callable[[], Any]) -> bool:
    from client.guard import ChargedError
    from common.errors import FedcartError

    try:
        act()
    except (FedcartError, ChargedError):
        return True
    return False


def _settings() -> list[Check]:
    """No settings are made in which a sum would bend what comes after its noise."""
    usual = {key: value for key, value in SETTINGS.items() if key != "model"}
    checks = []
    for name, changes in UNFIT.items():
        tree: dict[str, Any] = {**usual}
        for section, keys in changes.items():
            tree[section] = {**usual.get(section, {}), **keys} if isinstance(keys, dict) else keys
        checks.append(
            report.holds(f"no quorum with {name}", _fails(partial(people.config_of, tree)), "refused by name")
        )
    fits = not _fails(lambda: people.config_of(usual))
    return [*checks, report.holds("settings of a quorum", fits, "are allowed as they are")]  # fmt: skip


def _policy() -> list[Check]:
    """The site's own rules about whose noise it believes in."""
    lax: dict[str, Any] = {"quorum_noise": True, "epsilon_alone_max": 1e6}
    broken: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "quorum_noise": ({"quorum_noise": False}, {}),
        "epsilon_alone_max": ({"epsilon_alone_max": 0.0}, {}),
        "colluders_max": ({"colluders_max": 3}, {}),
        "colluders_max, as usual": ({}, {"cohort": 11, "threshold": 10}),
        "colluders_max, of the whole run": ({}, {"sites": 20}),
        "honest_min": ({"honest_min": 5}, {}),
        "quorum_noise, two lists": ({}, {"threshold": 5}),
        "quorum_noise, too few sign": ({"colluders_max": 2}, {"cohort": 5, "threshold": 5}),
        "quorum_noise, plain": ({"plain_aggregation": True}, {"secure": False}),
        "noise_multiplier_min": ({"noise_multiplier_min": 2.5}, {}),
    }
    checks = []
    for name, (rules, asks) in {"": ({}, {}), **broken}.items():
        with account.scratch_ledger(**{**lax, **rules}) as (open_again, asked):
            proposal = asked(1, SHARED, **{"cohort": 8, "threshold": 6, **asks})
            refused = _fails(lambda door=open_again, asks=proposal: door().reserve(asks))  # type: ignore[misc]
        if name:
            checks.append(report.holds(f"refused: policy rule {name}", refused, "by the site's own policy"))
        else:
            checks.append(report.holds("a share that breaks no rule", not refused, "is not refused"))
    return checks


def _alone() -> list[Check]:
    """The limit for the case that nobody else is honest: two rounds fit, by the own noise, and the third is refused."""
    two = accounting.epsilon_of((PrivacyEvent(1.2, 0.2, 8),), account.DELTA) * 1.001
    in_sum = accounting.epsilon_of((PrivacyEvent(2.4, 0.2, 8),), account.DELTA)
    allowed: dict[str, Any] = {"quorum_noise": True, "epsilon_alone_max": two}
    asks = {"cohort": 8, "threshold": 6}
    with account.scratch_ledger(**allowed) as (open_again, asked):
        plan = asked(1, SHARED, run_events=(SHARED,) * 3, **asks)
        foreseen = _fails(lambda: open_again().check_proposal(plan))
        made = 0
        for number in range(1, 6):
            guard = open_again()
            if _fails(lambda door=guard, n=number: account.leave(door, door.reserve(asked(n, SHARED, **asks)))):  # type: ignore[misc]
                break
            made += 1
        status = open_again().status()
    shown = status.alone is not None and two / 1.002 <= status.alone <= two
    with account.scratch_ledger(**{**allowed, "epsilon_alone_max": 1e6}) as (open_again, asked):
        guard = open_again()
        guard.fail(guard.reserve(asked(1, SHARED, **asks)))
        failed = guard.status()
        grant, lucky = guard.reserve(asked(2, SHARED, **asks)), dataclasses.replace(SHARED, honest=5)
        other = _fails(lambda: guard.note_made(grant, bytes(32), (lucky,)))
        guard.close_round("selftest", 2)
        guard.reserve(asked(3, SHARED, **asks))
        guard.close_round("selftest", 3)
        closed = guard.status()
    kept = (
        failed.alone == closed.alone and failed.epsilon == closed.epsilon and (failed.alone or 0) > failed.epsilon
    )
    return [
        Check("the limit alone", made == 2, float(made), 2.0, "rounds that fit, no more and no less"),
        report.holds("a run that would pass it", foreseen, "is refused before its first round"),
        report.holds("epsilon alone", shown, "is shown, by the own noise"),
        Check("epsilon of the sums", abs(status.epsilon - in_sum) < 2e-3, status.epsilon, in_sum, "by the noise of four"),
        report.holds("more honest sites than were charged", other, "are refused before anything leaves"),
        report.holds("both figures", kept, "stay after a failure, and come back after a round that never left"),
    ]  # fmt: skip
