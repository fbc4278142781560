"""The privacy statement: figures of the ledgers, never less, in the order of NIST SP 800-226."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from common.audit import statement
from common.audit.budgets import SiteBudget, budget_of_attestation, budget_of_ledger
from common.audit.statement import (
    cross_site,
    ledger_rows,
    make_statement,
)
from common.privacy.accountant import ScopeAccountant
from common.privacy.mechanism import PrivacyEvent
from tests.guard_samples import guard_in, one_round, proposal

EVENTS = (PrivacyEvent(3.0, 0.05, 100),)


def budget(site: str, events: tuple[PrivacyEvent, ...] = EVENTS, *, simulated: bool = False) -> SiteBudget:
    return SiteBudget(site, "consumers", 1e-5, 4.0, events, simulated)


def test_sections_come_in_the_order_of_the_standard() -> None:
    titles = [section.title for section in make_statement([budget("a")], secure=True).sections]
    assert titles == [
        "Unit",
        "Neighbouring relation",
        "Trust model",
        "Mechanism",
        "Sampling",
        "Composition",
        "Random source",
    ]


def test_the_worst_site_holds_against_every_adversary_but_the_sites_own_machine() -> None:
    budgets = [budget("a"), budget("b", EVENTS * 3)]
    statement = make_statement(budgets, secure=True)
    *outside, inside = statement.adversaries
    assert {row.epsilon for row in outside} == {budgets[1].epsilon} and inside.epsilon is None
    assert budgets[1].epsilon >= ScopeAccountant(EVENTS * 3).epsilon(1e-5)


def test_plain_aggregation_says_what_the_server_sees() -> None:
    server = make_statement([budget("a")], secure=False).adversaries[2]
    assert "alone" in server.sees


def test_consumers_at_every_site_cost_more_than_consumers_at_one() -> None:
    both = cross_site([budget("a"), budget("b")])
    assert both.disjoint == budget("a").epsilon < both.everywhere
    assert both.everywhere >= ScopeAccountant(EVENTS * 2).epsilon(1e-5)


def test_cross_site_takes_the_cautious_delta() -> None:
    strict = SiteBudget("b", "consumers", 1e-7, 4.0, EVENTS, False)
    both = cross_site([budget("a"), strict])
    assert both.delta == 1e-7 and both.disjoint == strict.epsilon > budget("a").epsilon


def test_a_run_without_noise_claims_nothing() -> None:
    statement = make_statement([], secure=True, private=False)
    assert not statement.private and not statement.adversaries and "NOT PRIVATE" in statement.warnings[0]


def test_simulated_budgets_and_late_runs_and_overspending_are_warned_of() -> None:
    over = SiteBudget("c", "consumers", 1e-5, 0.1, EVENTS, False)
    warnings = " ".join(
        make_statement([dataclasses.replace(budget("a", simulated=True), order=9.0), over], secure=True).warnings
    )
    for word in ("does not carry over", "not planned", "c: spent", "above the limit 0.1"):
        assert word in warnings


def test_the_history_of_a_ledger_ends_at_what_is_spent(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    one_round(guard, 1)
    one_round(guard, 2, leave=False)
    one_round(guard, 3)
    guard.status()
    rows = ledger_rows(guard.ledger.state)
    assert [(row.round, row.state) for row in rows] == [(1, "committed"), (2, "void"), (3, "committed")]
    assert rows[0].epsilon_so_far == rows[1].epsilon_so_far < rows[2].epsilon_so_far == guard.status().epsilon
    assert rows[0].epsilon_this_round == rows[0].epsilon_so_far


def test_a_long_ledger_is_never_shown_below_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_in(tmp_path)
    for number in range(1, 8):
        one_round(guard, number, leave=number != 4)
    guard.status()
    exact = [row.epsilon_so_far for row in ledger_rows(guard.ledger.state)]
    monkeypatch.setattr(statement, "EXACT_ROWS", 3)
    shown = [row.epsilon_so_far for row in ledger_rows(guard.ledger.state)]
    assert shown == [exact[2]] * 3 + [exact[5]] * 3 + [exact[6]]
    assert all(seen >= true for seen, true in zip(shown, exact, strict=True))


def test_a_ledger_and_its_attestation_give_the_same_budget(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    mine, theirs = budget_of_ledger(guard.ledger.state, 50.0), budget_of_attestation(grant.attestation)
    assert mine == theirs and mine.left == pytest.approx(50.0 - mine.epsilon)
