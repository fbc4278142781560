"""Runs with other noise, rate, steps, task, clip and delta in one scope: no figure of the site is below dp-accounting's."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from client.guard import SitePolicy, open_guard
from common.audit.budgets import budget_of_ledger
from common.audit.history import accounts_in, make_history
from common.audit.records import find_records
from common.audit.statement import make_statement
from common.errors import BudgetExhaustedError
from common.privacy.mechanism import SUB_SCOPES, PrivacyEvent
from common.trust.identity import Identity
from tests.guard_samples import proposal

RATES, NOISES, STEPS = (
    (1e-6, 0.001, 0.01, 0.05, 0.37, 1.0),
    (0.5, 0.75, 1.0, 1.3, 2.0, 4.0, 20.0),
    (1, 2, 7, 50, 400),
)
DELTAS, TASKS, CLIPS = (1e-3, 1e-5, 1e-7, 1e-10), ("next-behaviour", "purchase-intent", "sales"), (0.1, 1.0, 7.0)
RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
FINE = 1e-4


def truth(events: list[PrivacyEvent], delta: float) -> float:
    """The smaller of the two bounds of dp-accounting, for the worst side: had all been planned in advance."""
    sides = []
    for side in SUB_SCOPES:
        accountants = (
            PLDAccountant(RELATION, value_discretization_interval=FINE),
            RdpAccountant(neighboring_relation=RELATION),
        )
        for event in (event for event in events if event.sub_scope == side):
            gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            rate = event.sampling_rate
            one = dp_accounting.PoissonSampledDpEvent(rate, gaussian) if rate < 1 else gaussian
            for accountant in accountants:
                accountant.compose(dp_accounting.SelfComposedDpEvent(one, event.steps))
        sides.append(min(accountant.get_epsilon(delta) for accountant in accountants))
    return max(sides)


def drawn(rng: random.Random) -> list[tuple[PrivacyEvent, ...]]:
    """What three or four runs in a row release."""
    runs = []
    for _ in range(rng.choice((2, 3, 4))):
        trained = PrivacyEvent(rng.choice(NOISES), rng.choice(RATES), rng.choice(STEPS))
        looked = PrivacyEvent(rng.choice(NOISES[2:]), 1.0, 1, rng.choice(SUB_SCOPES[1:]))
        runs.append((trained, looked) if rng.random() < 0.7 else (trained,))
    return runs


def check(folder: Path, seed: int) -> None:
    rng, identity = random.Random(seed), Identity.generate("north")
    delta, runs = rng.choice(DELTAS), drawn(rng)
    policy = SitePolicy(epsilon_max=100.0, delta=delta, noise_multiplier_min=0.1, evaluation_noise_min=0.1)
    policy = policy.model_copy(update={"sampling_rate_max": 1.0, "clip_min": 0.01})
    guard = open_guard(folder, identity, policy, "shoppers", simulated=True)
    released: list[PrivacyEvent] = []
    shown: list[float] = []
    for number, events in enumerate(runs, start=1):
        asked = proposal(
            1, run=f"run-{number}", config=f"{number:064x}", events=events, delta=delta, clip=rng.choice(CLIPS),
            task=rng.choice(TASKS), population=100,
        )  # fmt: skip
        try:
            grant = guard.reserve(asked)
        except BudgetExhaustedError:  # the rest of this mix is dearer than any limit
            break
        guard.store(grant, b"numbers", events)
        guard.commit(grant)
        released += events
        said = grant.attestation.attestation
        exact = truth(released, delta)
        slack = 2e-3 * exact + 2e-4  # of two grids
        account = make_history(accounts_in(find_records(folder / "ledger.jsonl")))
        budgets = [budget_of_ledger(guard.ledger.state, 8.0)]
        crossed = make_statement(budgets, secure=True).cross_site
        assert crossed is not None
        figures = [said.epsilon_after, said.recomputed, guard.status().epsilon, account.epsilon, crossed.disjoint]
        figures += [budgets[0].epsilon, crossed.everywhere]
        assert min(figures) >= exact - slack, (seed, number, figures, exact)
        shown.append(min(figures))
    assert all(after >= before - 1e-6 for before, after in pairwise(shown)), "an account never shrinks"


@pytest.mark.full
@pytest.mark.parametrize("seed", range(40))
def test_no_mix_of_settings_is_shown_below_its_oracle(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed)
