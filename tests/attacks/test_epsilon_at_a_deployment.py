"""Every epsilon that the people of a deployment are shown: none is less than the ledgers say, with what was asked and is open.

The truth is computed from the raw lines of the ledgers, and of the plan's events, with dp-accounting.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from cli.main import main
from client.guard import SitePolicy
from client.runtime.approval import require_approval
from client.runtime.check import check_site
from client.runtime.ledgers import move
from client.site import load_site
from common.audit.history import accounts_in, make_history
from common.audit.records import find_records
from common.deployment import CoordinatorKit, SiteKit
from common.errors import RefusedError
from common.privacy.attestation import AttestedHeads
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, PrivacyEvent
from common.run import HEADS_FILE, RunPlan
from server.admission import HeadsBook
from server.planning import deployed_settings, plan_of_run
from server.provision import provision
from tests.attacks.test_epsilon_everywhere_shown import SLACK, least
from tests.shared_kits import spend

pytestmark = pytest.mark.full

NAMES = ("north", "south", "east", "west")
STEPS = {"north": 40, "south": 5, "east": 60}
RUN = {"privacy": {"epsilon": 1.0}, "training": {"rounds": 4}, "features": {"item_buckets": 40}, "name": "next"}
SCHEDULE = {"every": "month", "periods": 3, "begins": "2026-01-01"}


@pytest.fixture(params=["apart", "east and north share"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A federation in which three sites have trained unevenly, one has an answer open, one never took part."""
    events = tmp_path / "events.csv"
    lines = "".join(f"c{n % 150},view,2026-01-{1 + n % 28:02d} 10:00:00,i{n % 9}\n" for n in range(900))
    events.write_text("consumer,event,timestamp,item\n" + lines)
    sites = [{"name": name, "population": 200, "events": str(events)} for name in NAMES]
    federation = tmp_path / "federation.toml"
    federation.write_text(tomli_w.dumps({"name": "f", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}))
    provision(federation, tmp_path / "kits")
    book = HeadsBook(coordinator(tmp_path).state / HEADS_FILE, AttestedHeads())
    book.path.parent.mkdir(parents=True, exist_ok=True)
    if request.param != "apart":
        for name in ("east", "north"):
            move(kit_of(tmp_path, name), str(tmp_path / "account"), "shoppers")
    for number in (1, 2):
        for name, steps in STEPS.items():
            kit = kit_of(tmp_path, name)
            made = (PrivacyEvent(1.2, 0.1, steps), PrivacyEvent(4.0, 1.0, 1, HOLDOUT_SIDE))
            said = spend(kit, "run-one", number, events=made)
            book.heads.accept(said, load_site(kit.path).identity.public_key)
    asked = PrivacyEvent(1.2, 0.1, 7)
    site = load_site(kit_of(tmp_path, "south").path)  # asked, reserved, and never heard of again
    from tests.shared_kits import asked as question

    site.guard().reserve(question(site, "run-one", 3, events=(asked,)))
    book.ask(["south"], [asked])
    book.save()
    (tmp_path / "run.toml").write_text(tomli_w.dumps(RUN))
    return tmp_path


def kit_of(place: Path, name: str) -> SiteKit:
    return SiteKit(place / "kits" / "sites" / name)


def coordinator(place: Path) -> CoordinatorKit:
    return CoordinatorKit(place / "kits" / "coordinator")


def lines_of(place: Path, name: str) -> dict[str, Counter[tuple[float, float]]]:
    """Steps by side and (rate, noise), from the raw lines of whichever ledger the kit uses."""
    facts = kit_of(place, name).read().site
    file = Path(facts.ledger) / "ledger.jsonl" if facts.ledger else kit_of(place, name).ledger
    sides: dict[str, Counter[tuple[float, float]]] = {}
    for body in (json.loads(line)["body"] for line in file.read_text().splitlines()) if file.is_file() else ():
        for event in body.get("events", ()):
            setting = (event["sampling_rate"], event["noise_multiplier"])
            sides.setdefault(event["sub_scope"], Counter())[setting] += event["steps"]
    return sides


def truth(place: Path, name: str, plan: RunPlan | None = None, runs: int = 1) -> float:
    """Epsilon of the worse side, with so many runs of a plan on top at every site of its scope."""
    sides = lines_of(place, name)
    kits = 2 if kit_of(place, name).read().site.ledger else 1
    for event in plan.total_events() if plan else ():
        setting = (event.sampling_rate, event.noise_multiplier)
        sides.setdefault(event.sub_scope, Counter())[setting] += event.steps * runs * kits
    return max((least(steps) for steps in sides.values()), default=0.0)


def told(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in command]) in (0, None, 1)
    return capsys.readouterr().out


def planned(place: Path, **more: Any) -> RunPlan:
    (place / "run.toml").write_text(tomli_w.dumps(RUN | more))
    kit = coordinator(place)
    return plan_of_run(kit, deployed_settings(kit, place / "run.toml"), base=place)


def figure(line: str) -> float:
    return max(map(float, re.findall(r"\d+\.\d+", line)), default=0.0)


def test_what_the_coordinator_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit, plan = coordinator(place).path, planned(place)
    shown = json.loads(told(capsys, "server", "plan", kit, place / "run.toml", "--json"))
    for one in shown["sites"]:
        assert one["spent"] >= truth(place, one["site"]) - SLACK, one
        assert one["after"] >= truth(place, one["site"], plan) - SLACK, one
    status = json.loads(told(capsys, "server", "status", kit, "--json"))
    assert set(status["spent"]) == set(STEPS)
    assert all(spent >= truth(place, site) - SLACK for site, spent in status["spent"].items())
    text = told(capsys, "server", "status", kit)
    for name in STEPS:
        [line] = [line for line in text.splitlines() if f" {name} " in line]
        assert figure(line) >= truth(place, name) - SLACK and "public" in line
    assert "never attested" in next(line for line in text.splitlines() if " west " in line)


def test_what_is_shown_over_a_schedule(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(place, schedule=SCHEDULE)
    shown = json.loads(told(capsys, "server", "plan", coordinator(place).path, place / "run.toml", "--json"))
    for period in shown["periods"]:
        worst = max(truth(place, name, plan, period["number"]) for name in NAMES)
        assert period["worst"] >= worst - SLACK, period
    if shown["fits"]:
        fitting = planned(place, privacy={"epsilon": float(shown["fits"])})
        assert all(truth(place, name, fitting) <= 8.0 for name in NAMES)


def test_what_a_sites_operator_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(place)
    for name in NAMES:
        kit = load_site(kit_of(place, name).path).kit
        SitePolicy.load(kit.policy).model_copy(update={"approve": "ask"}).save(kit.policy)
        with pytest.raises(RefusedError):
            require_approval(kit, "ask", plan.run, plan.digest().hex(), plan.to_json())
        spent, after = truth(place, name), truth(place, name, plan)
        [asked] = json.loads(told(capsys, "site", "approve", kit.path, "--json"))
        assert asked["budget"]["spent"] >= spent - SLACK and asked["budget"]["after"] >= after - SLACK, name
        assert asked["epsilon"] >= truth(place, "west", plan) - SLACK
        line = next(
            line for line in told(capsys, "site", "approve", kit.path).splitlines() if line.startswith("budget")
        )
        before, then = line.split("; with this run")
        assert float(re.findall(r"\d+\.\d+", before)[0]) >= spent - SLACK
        assert float(re.findall(r"\d+\.\d+", then)[0]) >= after - SLACK
        budget = json.loads(told(capsys, "site", "status", kit.path, "--json"))["budget"]
        assert budget["epsilon"] >= spent - SLACK and budget["left"] <= budget["limit"] - spent + SLACK
        assert figure(next(row.found for row in check_site(kit, timeout_s=0.1) if row.name == "budget")) >= spent


def test_what_an_auditor_of_all_kits_is_shown(place: Path) -> None:
    found = make_history([one for name in STEPS for one in accounts_in(find_records(kit_of(place, name).path))])
    for total in found.scopes:
        assert total.epsilon >= max(truth(place, site) for site in total.sites if site in STEPS) - SLACK
    assert asdict(found)["returning"] or len(found.scopes) == 1
    assert set(lines_of(place, "south")) == {TRAIN_SIDE, HOLDOUT_SIDE}
