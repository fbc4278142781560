"""What cannot be paid is refused before anybody is asked, and everybody sees what is left."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from cli.main import main
from client import session
from client.guard import SitePolicy
from client.runtime.approval import ApprovalPendingError, requests
from client.site import load_site
from common import wire
from common.deployment import CoordinatorKit, SiteKit
from common.errors import BudgetExhaustedError, RefusedError
from common.privacy.accountant import ScopeAccountant
from common.run import HEADS_FILE, PROPOSAL, RunPlan
from common.trust.identity import Identity, Roster
from server.admission import HeadsBook
from server.affordable import horizon, largest_that_fits, require_payers, shares
from server.kit_files import policy_toml
from server.planning import DEPLOYED_EPSILON, deployed_settings, plan_of_run
from server.provision import provision

SETTINGS = {
    "features": {"item_buckets": 40},
    "model": {"dim": 8, "hidden": 8},
    "training": {"rounds": 3, "local_steps": 5},
}


@pytest.fixture
def federation(tmp_path: Path) -> tuple[CoordinatorKit, list[SiteKit], Path]:
    events = tmp_path / "events.csv"
    events.write_text(
        "consumer,event,timestamp,item\n" + "".join(f"c{i},view,2026-01-02,i{i % 9}\n" for i in range(300))
    )
    names = ("north", "south", "east")
    sites = [{"name": name, "population": 300, "events": str(events)} for name in names]
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps({"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}))
    provision(file, tmp_path / "kits")
    settings = tmp_path / "run.toml"
    settings.write_text(tomli_w.dumps(SETTINGS))
    return (
        CoordinatorKit(tmp_path / "kits/coordinator"),
        [SiteKit(tmp_path / "kits/sites" / n) for n in names],
        settings,
    )


def planned(kit: CoordinatorKit, settings: Path, *overrides: str) -> RunPlan:
    return plan_of_run(kit, deployed_settings(kit, settings, list(overrides)), base=settings.parent)


def spend(kit: SiteKit, coordinator: CoordinatorKit, plan: RunPlan) -> None:
    """A whole run at a site, and the attestation in the coordinator's book."""
    site = load_site(kit.path)
    guard, book = site.guard(), HeadsBook.open(coordinator.state / HEADS_FILE)
    asked = dataclasses.replace(session._first_proposal(site, plan), events=plan.total_events())
    grant = guard.reserve(asked)
    guard.store(grant, b"x", asked.events)
    guard.commit(grant)
    book.heads.accept(grant.attestation, site.identity.public_key)
    book.save()


def proposed(kit: SiteKit, coordinator: CoordinatorKit, plan: RunPlan) -> None:
    roster = Roster.load(coordinator.roster)
    identity = Identity.load(roster.coordinator.name, coordinator.identity_key)
    signature = identity.sign(PROPOSAL + plan.digest())
    session.propose(load_site(kit.path), {"plan": plan.to_json(), "signature": signature})


def test_a_run_that_names_no_epsilon_takes_three_of_eight(federation: Any) -> None:
    kit, _, settings = federation
    plan = planned(kit, settings)
    assert plan.config.privacy.epsilon == DEPLOYED_EPSILON == 3.0
    assert planned(kit, settings, "privacy.epsilon=5").config.privacy.epsilon == 5


def test_a_run_states_the_delta_that_its_largest_site_was_given(federation: Any, tmp_path: Path) -> None:
    """Else every site with many consumers would refuse a run whose settings say nothing of delta."""
    kit, _, settings = federation
    assert planned(kit, settings).config.privacy.delta == 1e-5
    text = kit.settings.read_text()
    kit.settings.write_text(text.replace("= 300", "= 50000", 1))
    plan = planned(kit, settings)
    assert plan.config.privacy.delta == pytest.approx(1e-6)
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_toml("large", 50_000))
    assert plan.config.privacy.delta <= SitePolicy.load(policy).delta
    assert planned(kit, settings, "privacy.delta=1e-7").config.privacy.delta == 1e-7


def test_the_coordinator_sees_what_a_run_brings_each_site_to(
    federation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kit, sites, settings = federation
    first = planned(kit, settings)
    assert all(share.limit is None and share.can_pay for share in shares(kit, first))
    assert main(["server", "plan", str(kit.path), str(settings)]) == 0
    assert "3 of 3 sites attested no limit yet" in capsys.readouterr().out
    fits = largest_that_fits(kit, first.config, base=settings.parent, runs=12)
    assert not fits or float(fits) < 8, "twelve runs of 8 are more than the usual limit of 8"
    for site in sites:
        spend(site, kit, first)
    again = planned(kit, settings)
    for share in shares(kit, again):
        order = load_site(sites[0].path).guard().ledger.state.order
        both = [*first.total_events(), *again.total_events()]
        assert share.after == pytest.approx(ScopeAccountant(both, order).epsilon(1e-5), abs=1e-5)
        assert (share.limit, share.can_pay) == (8.0, True)
    assert main(["server", "plan", str(kit.path), str(settings), "--set", "privacy.epsilon=8"]) == 0
    shown = capsys.readouterr().out
    assert "NO" in shown and "every site can pay: " in shown and "none" not in shown
    assert main(["server", "plan", str(kit.path), str(settings), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert float(plain["fits"]) >= 3
    assert plain["forecast"] == again.task.forecast(again)
    eight = planned(kit, settings, "privacy.epsilon=8")
    assert all(line in shown for line in eight.task.forecast(eight))


def test_a_year_of_runs_adds_up_and_says_when_it_ends(federation: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kit, sites, settings = federation
    plan = planned(kit, settings, "privacy.epsilon=2")
    for site in sites:
        spend(site, kit, plan)
    later = horizon(kit, plan, 12)
    assert [period.number for period in later] == list(range(1, 13))
    assert [period.worst for period in later] == sorted(period.worst for period in later)
    payable = [period.number for period in later if not period.cannot]
    order = load_site(sites[0].path).guard().ledger.state.order
    assert later[-1].worst >= ScopeAccountant(plan.total_events() * 13, order).epsilon(1e-5) - 1e-6
    assert payable and payable[-1] < 12 and later[-1].cannot == ("north", "south", "east")
    arguments = ["server", "plan", str(kit.path), str(settings), "--set", "privacy.epsilon=2", "--periods", "12"]
    assert main(arguments) == 0
    assert "One run a period" in capsys.readouterr().out


def test_what_cannot_be_paid_is_refused_on_both_sides_before_a_person_is_asked(federation: Any) -> None:
    kit, sites, settings = federation
    for site in sites:
        spend(site, kit, planned(kit, settings, "privacy.epsilon=7"))
    late = planned(kit, settings, "privacy.epsilon=7")
    with pytest.raises(RefusedError, match="0 of 3 sites can pay"):
        require_payers(shares(kit, late), 3)
    with pytest.raises(BudgetExhaustedError):
        proposed(sites[0], kit, late)
    assert requests(sites[0]) == []  # nobody was asked


def test_what_can_be_paid_is_asked_and_shows_what_is_left(
    federation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kit, sites, settings = federation
    plan = planned(kit, settings)
    with pytest.raises(ApprovalPendingError):
        proposed(sites[0], kit, plan)
    assert main(["site", "approve", str(sites[0].path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("budget"))
    assert "0 of 8 spent" in line.replace("0.0000", "0") and "with this run 2.9" in line
    assert wire.digest(plan, domain="plan")


def test_a_run_that_goes_on_is_asked_for_its_rest_only(federation: Any) -> None:
    kit, sites, settings = federation
    plan = planned(kit, settings, "privacy.epsilon=7.5")
    site = load_site(sites[0].path)
    guard, asked = site.guard(), session._first_proposal(site, plan)
    grant = guard.reserve(asked)
    guard.store(grant, b"x", asked.events)
    guard.commit(grant)
    before, after = session.budget_with(site, plan)
    assert before < after <= 7.5
    guard.check_proposal(dataclasses.replace(asked, round=2))
