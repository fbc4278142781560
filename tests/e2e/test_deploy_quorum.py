"""Quorum noise with real processes: every sum opens with the run's threshold, whoever is killed when, and it is verified offline."""

from __future__ import annotations

import json

import pytest

from client.guard.policy import SitePolicy
from common.audit.verify import verify_path
from common.deployment import open_site_kit
from common.trust.identity import Roster
from tests.e2e.faults import (
    PHASES,
    SITES,
    VICTIM,
    answered,
    books_balance,
    faulty_world,
    left_open,
    newest,
    plan_run,
    plant,
    run,
    run_to_the_end,
)
from tests.e2e.test_deploy_story import fedcart, ledgers_are_intact

SHARED = (
    "privacy.trust=quorum",
    "privacy.epsilon=5",
    "privacy.sampling_rate=0.2",
    "training.local_steps=1",
    "training.optimizer=sgd",
    "training.learning_rate=1.0",
    "strategy.name=scalar-adam",
    "strategy.learning_rate=0.02",
)
IN_THE_SUM = ("confirm", "unmask")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with faulty_world(tmp_path_factory.mktemp("quorum")) as made:
        yield made


def allow(local, *, alone: float = 1000.0) -> None:
    """Let every site take part, as its operator would: in policy.toml."""
    for site in SITES:
        path = local.site(site).policy
        policy = SitePolicy.load(path)
        policy.model_copy(update={"quorum_noise": True, "epsilon_alone_max": alone}).save(path)


def rings_on_disk(local, folder) -> list[str]:
    """Files of a site that are as long as a contribution: there must be none, whatever was killed when."""
    size = 4 * folder.plan().parameters
    return [
        str(path)
        for site in SITES
        for path in (local.site(site).state / "outbox").glob("*")
        if path.stat().st_size >= size
    ]


@pytest.mark.e2e
def test_a_site_that_has_not_allowed_it_refuses_by_name_and_none_is_charged(world):
    local, _ = world
    program = run(local, *SHARED, "privacy.holdout=0", "name=unasked", "training.rounds=1")
    _, err = program.communicate(timeout=300)
    assert program.returncode == 3, err
    assert "quorum_noise" in err
    for entries in ledgers_are_intact(local).values():
        assert not [
            e for e in entries if e["body"]["kind"] == "reserve" and e["body"]["run"].startswith("unasked")
        ]


@pytest.mark.e2e
def test_a_run_of_four_sites_keeps_its_threshold_while_one_is_killed_and_is_verified_offline(world):
    local, _ = world
    allow(local)
    struck = plant(local.site(VICTIM), 1, "share", "before", "kill-node")
    code, folder, err = run_to_the_end(local, "quorum", *SHARED, "training.rounds=3")
    assert code == 0, err
    assert not struck.exists(), "the fault did not strike"
    assert answered(folder)[0] == 3
    assert answered(folder)[-1] == 4
    books_balance(local, folder, lost_on_the_way={})
    verdict = verify_path(folder.path, roster=Roster.load(local.coordinator.roster))
    assert not verdict.findings
    assert "the noise of 2 honest sites, as at least 3 of 4 sign" in verdict.quorum
    for number in (1, 2, 3):
        evidence = json.loads((folder.path / "evidence" / f"round-{number:05d}.json").read_text())
        assert evidence["params"]["threshold"] == 3
    assert {left_open(local, site) for site in SITES} == {0}
    assert not rings_on_disk(local, folder)
    events = [
        event
        for entries in ledgers_are_intact(local).values()
        for entry in entries
        if entry["body"]["kind"] == "reserve" and entry["body"]["run"] == plan_run(folder)
        for event in entry["body"]["events"]
    ]
    assert events
    assert {(event["honest"], event["colluders"]) for event in events} == {(2, 1)}
    record = folder.metrics()[-1]
    assert all(record.alone[site] > record.epsilon[site] for site in SITES)


@pytest.mark.e2e
def test_a_site_stops_at_its_limit_for_the_case_that_no_other_is_honest(world):
    local, _ = world
    allow(local, alone=1e-3)
    code, folder, err = run_to_the_end(local, "alone", *SHARED, "training.rounds=1")
    assert code != 0
    assert "alone" in err + json.dumps([record.to_json() for record in folder.metrics()]) or "budget" in err
    assert not any(
        e["body"]["kind"] == "reserve" and e["body"]["run"] == plan_run(folder)
        for entries in ledgers_are_intact(local).values()
        for e in entries
    )
    allow(local)


@pytest.mark.soak
@pytest.mark.parametrize(("phase", "when"), [(phase, when) for phase in PHASES for when in ("before", "after")])
def test_a_site_killed_in_any_phase_leaves_no_ring_and_lowers_no_threshold(world, phase, when):
    local, _ = world
    allow(local)
    struck = plant(local.site(VICTIM), 1, phase, when, "kill-node")
    code, folder, err = run_to_the_end(local, f"quorum-{phase}-{when}", *SHARED, "training.rounds=3")
    assert not struck.exists(), "the fault did not strike"
    assert code == 0, err
    assert answered(folder)[0] == (4 if phase in IN_THE_SUM else 3)
    lost = {VICTIM: [1]} if (phase, when) == ("mask", "after") else {}
    books_balance(local, folder, lost_on_the_way=lost)
    assert not rings_on_disk(local, folder)
    audit = fedcart("audit", "verify", newest(local).path)
    out, _ = audit.communicate(timeout=120)
    assert audit.returncode == 0
    assert "quorum noise" in out
    assert open_site_kit(local.site(VICTIM).path).policy.is_file()
