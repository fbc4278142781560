"""The account: known answers of the accountant, and a scratch ledger that is driven through everything it must count."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import client.selftest.report as report
import common.privacy.accountant as accounting
from client.guard import Grant, Guard, Proposal, ReservationKey, SitePolicy, open_guard
from client.guard.shared_ledger import SharedLedger, absorb
from client.selftest.report import Check
from common.deployment import LEDGER_FILE
from common.errors import FedcartError
from common.privacy import HOLDOUT_SIDE, TRAIN_SIDE, Losses, PrivacyEvent
from common.trust import CONSUMERS_KEY, Identity

DELTA = 1e-5
UNSAMPLED = {0.5: 9.997256, 1.0: 4.377178, 2.0: 1.993091, 5.0: 0.725522, 10.0: 0.340669}
"""sigma -> epsilon of one Gaussian release; Balle and Wang 2018, theorem 8."""
SAMPLED = (
    (4.0, 0.01, 10_000, 1.0355, 0.9470),
    (1.0, 128 / 5_000, 400, 3.6738, 3.2505),
    (1.7, 0.05, 200, 2.1585, 1.9531),
    (1.7, 0.05, 20, 0.8030, 0.6677),  # fewer steps of what was counted before
)
"""sigma, rate, steps, RDP, PLD: computed once with dp-accounting 0.6.0 outside of this program."""
LOOSER, AT_LOOSER = 1e-3, 3.138671  # of sigma 1 again: what is remembered for one delta is not for another
LATE = ((1.7, 0.05, 200), (2.2, 0.05, 200), 3.8, 3.9611)
"""Two runs, the second planned after the first one's release, at order 3.8."""

SINGLE_STEPS = 200
Reserve = Callable[..., Grant]


def vectors() -> list[Check]:
    """Epsilon of known mechanisms, by every accountant that counts."""
    checks = []
    for sigma, known in UNSAMPLED.items():
        seen = accounting.epsilon_of((PrivacyEvent(sigma, 1.0, 1),), DELTA)
        checks.append(_close(f"epsilon of sigma {sigma:g}", seen, known, 1e-5))
    for sigma, rate, steps, rdp, pld in SAMPLED:
        event, told = (PrivacyEvent(sigma, rate, steps),), f"{steps} x sigma {sigma:g}, rate {rate:g}"
        checks.append(_close(f"Rényi: {told}", accounting.RdpAccountant(event).epsilon(DELTA), rdp, 2e-3))
        checks.append(_close(f"counted: {told}", accounting.epsilon_of(event, DELTA), pld, 2e-3))
    first, second, order, known = LATE
    late = accounting.epsilon_of([PrivacyEvent(*first), PrivacyEvent(*second)], DELTA, order)
    checks.append(_close("a run that was not planned in advance", late, known, 2e-3))
    planned = accounting.epsilon_of([PrivacyEvent(*first), PrivacyEvent(*second)], DELTA)
    again = accounting.epsilon_of([PrivacyEvent(*first), PrivacyEvent(*second)], DELTA, order)
    checks.append(report.holds("planned and not planned", planned < again == late, "are two figures"))
    alone = [(Losses.of([PrivacyEvent(*first), PrivacyEvent(*second)]), order)]
    checks.append(_close("not planned, at every site", accounting.epsilon_everywhere(alone, DELTA), known, 2e-3))
    looser = accounting.epsilon_of((PrivacyEvent(1.0, 1.0, 1),), LOOSER)
    checks.append(_close(f"epsilon at delta {LOOSER:g}", looser, AT_LOOSER, 1e-5))
    both = [PrivacyEvent(1.0, 0.05, 100)], [PrivacyEvent(1.2, 1.0, 1, HOLDOUT_SIDE)]
    everywhere = accounting.epsilon_everywhere([(Losses.of(events), None) for events in both], DELTA)
    return [*checks, _close("trained here, held out there", everywhere, 5.0404, 2e-3), *_summed()]


def _summed() -> list[Check]:
    """What a site writes down and shows of an epsilon is what was counted, or more."""
    twice = Losses.of([PrivacyEvent(2.0, 1.0, 3), PrivacyEvent(2.0, 1.0, 4)])
    epsilons = [k / 7 for k in range(1, 100)]
    shown = all(float(accounting.show_epsilon(e)) >= e and accounting.round_up(e) >= e for e in epsilons)
    return [
        report.holds("two releases of one kind", [e.steps for e in twice] == [7], "count twice"),
        report.holds("an epsilon that is shown", shown, "is rounded up"),
    ]


def _close(name: str, seen: float, known: float, tolerance: float) -> Check:
    return Check(name, abs(seen - known) <= tolerance, seen, known, f"known answer, to {tolerance:g}")


def ledger() -> list[Check]:
    """Everything that must be charged is, by the right rule, and nothing is given back that was seen."""
    event, look = PrivacyEvent(1.7, 0.05, 20), PrivacyEvent(30.0, 1.0, 1, HOLDOUT_SIDE)
    checks = []
    with scratch_ledger() as (open_again, asked):
        before = open_again().reserve(asked(1, event, look)).attestation.attestation
        guard = open_again()
        checks.append(
            report.holds("an open reservation counts", guard.status().epsilon > 0.1, "before anything left")
        )
        covers = Losses.of(before.totals).covers(Losses.of((event, look)))
        checks.append(report.holds("totals of an attestation", covers, "what was just reserved is in them"))
        leave(guard, guard.find("selftest", 1))
        for number in (2, 3):
            guard = open_again()
            leave(guard, guard.reserve(asked(number, event, look)))
        spent = open_again().status().epsilon
        known = accounting.epsilon_of((PrivacyEvent(1.7, 0.05, 60),), DELTA)
        checks.append(
            Check("composition over rounds and restarts", spent >= known - 1e-3, spent, known, "at least this")
        )
        sides = {e.sub_scope: e.steps for e in guard.ledger.state.spent}
        checks.append(
            report.holds("both parts of the consumers", sides == {TRAIN_SIDE: 60, HOLDOUT_SIDE: 3}, "each its own")
        )
        checks += _failing(open_again, asked, event)
    return [*checks, *_late(event), _limit(event), _many_rounds()]


def _failing(open_again: Callable[[], Guard], asked: Callable[..., Proposal], event: PrivacyEvent) -> list[Check]:
    guard = open_again()
    charged = guard.reserve(asked(4, event)).attestation.attestation.epsilon_after
    guard.fail(ReservationKey(*_newest(guard)))
    guard.close_round("selftest", 4)
    guard.restart()
    stays = open_again().status().epsilon >= charged - 1e-6
    paid = open_again().status().epsilon
    guard = open_again()
    for number in range(10, 15):
        guard.reserve(asked(number, event, run="watched"))
        guard.close_round("watched", number)
    watched = open_again().status().epsilon > paid
    return [
        report.holds("a failed answer stays charged", stays, "the failure was seen"),
        report.holds("watching for nothing ends", watched, "two rounds are given back, no more"),
    ]


def _newest(guard: Guard) -> tuple[int, str, str, int]:
    found = guard.find("selftest", 4)
    assert found is not None
    return found.sequence, found.head, found.run, found.round


def _late(event: PrivacyEvent) -> list[Check]:
    """Who comes after a release stays late, whatever is given back; that an answer failed is a release too."""
    other = PrivacyEvent(2.2, 0.05, 20)
    with scratch_ledger() as (open_again, asked):
        guard = open_again()
        leave(guard, guard.reserve(asked(1, event)))
        later = guard.reserve(asked(1, other, run="later", config="cd" * 32))
        said = later.attestation.attestation.adaptive
        leave(guard, later)
        guard.reserve(asked(1, other, run="third", config="ef" * 32))
        guard.close_round("third", 1)
        stays = open_again().status().reading.adaptive
    with scratch_ledger() as (open_again, asked):
        guard = open_again()
        first = guard.reserve(asked(1, event))
        guard.reserve(asked(1, other, run="beside", config="cd" * 32))
        leave(guard, first)
        choice = open_again().reserve(asked(2, event)).attestation.attestation.adaptive
    with scratch_ledger() as (open_again, asked):
        guard = open_again()
        guard.fail(guard.reserve(asked(1, event)))
        failed = guard.reserve(asked(1, other, run="later", config="cd" * 32)).attestation.attestation.adaptive
    return [
        report.holds("a run after the first release", said, "counts at the order fixed before it"),
        report.holds("which of two planned runs goes on", choice, "is a choice: counts at that order"),
        report.holds("a late run beside one that was given back", stays, "still counts at that order"),
        report.holds("a run after the first failure", failed, "counts at the order fixed before it"),
    ]


def _many_rounds() -> Check:
    """As many rounds of one step as a run of single steps has: each is charged, the last one as the first."""
    step = PrivacyEvent(1.7, 0.05, 1)
    with scratch_ledger() as (open_again, asked):
        guard = open_again()
        for number in range(1, SINGLE_STEPS + 1):
            leave(guard, guard.reserve(asked(number, step)))
        spent = sum(event.steps for event in open_again().ledger.state.spent)
    return Check("rounds of one step", spent == SINGLE_STEPS, float(spent), SINGLE_STEPS, "steps that are charged")


def _limit(event: PrivacyEvent) -> Check:
    """A limit for exactly three rounds lets three through, and not four."""
    three = accounting.epsilon_of(
        (PrivacyEvent(event.noise_multiplier, event.sampling_rate, 3 * event.steps),), DELTA
    )
    with scratch_ledger(three + 1e-6) as (open_again, asked):
        made = 0
        for number in range(1, 6):
            try:
                guard = open_again()
                leave(guard, guard.reserve(asked(number, event)))
                made += 1
            except FedcartError:
                break
        spent = open_again().status().epsilon
    return Check(
        "the limit", made == 3 and spent <= three + 1e-5, float(made), 3.0, "rounds that fit, no more and no less"
    )


def leave(guard: Guard, grant: Any) -> None:
    """Store and commit what was reserved."""
    charged = guard.ledger.state.reservations[grant.sequence].body.events
    guard.store(grant, b"contribution", charged)
    guard.commit(grant)


@contextmanager
def scratch_ledger(
    limit: float = 100.0, *, failures_max: int = 100, **rules: Any
) -> Iterator[tuple[Callable[[], Guard], Callable[..., Proposal]]]:
    """A ledger in a temporary folder: how to open it again, and how to ask for a round; ``rules``: of its policy."""
    with tempfile.TemporaryDirectory(prefix="fedcart-selftest-") as name:
        identity = Identity.generate("selftest")
        usual = {"epsilon_max": limit, "delta": DELTA, "sampling_rate_max": 1.0, "failures_max": failures_max}
        policy = SitePolicy.model_validate(usual | rules)

        def open_again() -> Guard:
            return open_guard(Path(name), identity, policy, "selftest", simulated=True)

        def asked(number: int, *events: PrivacyEvent, **changes: Any) -> Proposal:
            digest = f"{number:064x}"
            plain = Proposal(
                run="selftest", round=number, attempt=1, kind="train", task="next-behaviour", query=digest,
                config="ab" * 32, events=events, delta=DELTA, clip=1.0, cohort=3, threshold=3, population=1_000,
                min_stockists=3, secure=True,
            )  # fmt: skip
            return dataclasses.replace(plain, **changes)

        yield open_again, asked


def moved_scratch_ledgers(event: PrivacyEvent) -> tuple[int, int]:
    """Steps that a shared ledger is charged with for two kits of one name, and then for a copy of one that went on apart."""
    with tempfile.TemporaryDirectory(prefix="fedcart-selftest-") as name, scratch_ledger() as (_, asked):
        place, policy, charged = SharedLedger(Path(name) / "account", "shoppers"), SitePolicy(delta=DELTA), []
        for kit in ("one", "other"):
            folder, own = Path(name) / kit, Identity.generate("shop")

            def answered(number: int, folder: Path = folder, own: Identity = own) -> None:
                guard = open_guard(folder, own, policy, "shop")
                leave(guard, guard.reserve(asked(number, event)))

            answered(1)
            shutil.copytree(folder, folder.with_suffix(".old"))
            answered(2)
            absorb(place, DELTA, folder / LEDGER_FILE, own.public_key, folder / CONSUMERS_KEY)
        charged.append(_steps_in(place))
        shutil.rmtree(folder)
        folder.with_suffix(".old").rename(folder)
        answered(3)
        absorb(place, DELTA, folder / LEDGER_FILE, own.public_key, folder / CONSUMERS_KEY)
        charged.append(_steps_in(place))
    return charged[0], charged[1]


def _steps_in(place: SharedLedger) -> int:
    return sum(event.steps for event in place.ledger(DELTA).state.spent if event.sub_scope == TRAIN_SIDE)


@contextmanager
def shared_scratch_ledger() -> Iterator[tuple[Callable[..., Guard], Callable[..., Proposal]]]:
    """A ledger that two kits share: how to open it for a kit under a limit, and how to ask for a round."""
    with tempfile.TemporaryDirectory(prefix="fedcart-selftest-") as name, scratch_ledger() as (_, asked):
        folder, key = Path(name), Identity.generate("shoppers")
        kits = {kit: Identity.generate(kit) for kit in ("first", "second")}

        def open_kit(kit: str, limit: float = 100.0, *, elsewhere: bool = False) -> Guard:
            policy = SitePolicy(epsilon_max=limit, delta=DELTA, sampling_rate_max=1.0)
            (folder / kit).mkdir(exist_ok=True)
            place = folder / ("elsewhere" if elsewhere else "") / LEDGER_FILE
            signs = Identity.generate("shoppers") if elsewhere else key
            return open_guard(folder / kit, kits[kit], policy, "shoppers", ledger_path=place, ledger_key=signs)

        yield open_kit, asked
