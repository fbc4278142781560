"""The operator's yes is to one plan, the one he has seen: not to a name, not to a file that was delivered."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest

from cli.main import main
from client import session
from client.runtime import approval
from client.runtime.approval import (
    APPROVED,
    LEAST_PREFIX,
    MOST_OF_A_NAME,
    MOST_WAITING,
    REJECTED,
    WAITING,
    ApprovalPendingError,
    RunRejectedError,
    decide,
    requests,
    require_approval,
)
from common.deployment import SiteKit
from common.errors import BadInputError, BudgetExhaustedError, FedcartError, PolicyRefusedError
from common.run import PROPOSAL, RunPlan
from common.trust.identity import Identity
from tests.attacks.test_site_under_a_hostile_server import SPEED, World

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("unseen"))
    policy = made.site_folder / "policy.toml"
    policy.write_text(policy.read_text().replace('approve = "auto"', 'approve = "ask"'))
    return made


@pytest.fixture
def world(prepared):
    shutil.rmtree(prepared.site_folder / "state", ignore_errors=True)
    return prepared


@pytest.fixture
def kit(world) -> SiteKit:
    return world.site.kit


def propose(world: World, plan: RunPlan) -> None:
    signature = world.coordinator.sign(PROPOSAL + plan.digest())
    session.propose(world.site, {"plan": plan.to_json(), "signature": signature})


def asked(world: World, *plans: RunPlan) -> None:
    for plan in plans:
        with pytest.raises(ApprovalPendingError):
            propose(world, plan)


def digest(plan: RunPlan) -> str:
    return plan.digest().hex()


@pytest.fixture
def hungry(world) -> RunPlan:
    """Under the honest run's name, and it costs more."""
    return replace(world.plan, noise_multiplier=world.plan.noise_multiplier * 0.9)


def test_a_yes_to_a_name_that_two_plans_have_is_no_yes(world, kit, hungry):
    asked(world, world.plan, hungry)
    with pytest.raises(BadInputError, match="2 plans were asked for"):
        decide(kit, world.plan.run, approve=True)
    asked(world, world.plan, hungry)
    decide(kit, digest(world.plan), approve=True)
    propose(world, world.plan)
    asked(world, hungry)


def test_a_plan_that_comes_after_the_yes_is_asked_for_anew_and_the_name_is_not_enough_any_more(world, kit, hungry):
    asked(world, world.plan)
    decide(kit, world.plan.run, approve=True)  # the only one of that name
    asked(world, hungry)
    with pytest.raises(BadInputError, match="2 plans"):
        decide(kit, world.plan.run, approve=True)
    asked(world, hungry)


def test_a_run_whose_name_is_the_digest_of_another_plan_does_not_take_its_place(world, kit):
    victim = replace(world.plan, run="honest")
    asked(world, victim, *(replace(world.plan, run=digest(victim)[:n]) for n in (LEAST_PREFIX, 64)))
    for length in (LEAST_PREFIX, 64):
        with pytest.raises(BadInputError, match="2 plans"):
            decide(kit, digest(victim)[:length], approve=True)
    assert decide(kit, digest(victim)[:30], approve=True).digest == digest(victim)


@pytest.mark.parametrize("length", [0, 1, 8, LEAST_PREFIX - 1])
def test_a_digest_that_is_too_short_names_no_plan(world, kit, length):
    """A second plan with the same few digits is found by trying."""
    asked(world, world.plan)
    with pytest.raises(BadInputError, match="no request"):
        decide(kit, digest(world.plan)[:length], approve=True)


def test_a_digest_counts_in_capitals_too_and_with_a_wrong_digit_not(world, kit):
    asked(world, world.plan)
    wrong = digest(world.plan)[:-1] + ("0" if digest(world.plan)[-1] != "0" else "1")
    with pytest.raises(BadInputError, match="no request"):
        decide(kit, wrong, approve=True)
    assert decide(kit, digest(world.plan)[:20].upper(), approve=True).status == APPROVED


def stored(kit: SiteKit, plan: RunPlan):
    return kit.state / "approvals" / f"{digest(plan)}.json"


def test_an_approval_that_came_with_the_kit_approves_nothing(world, kit, hungry):
    """The coordinator packs the kit, and knows the digest of the run it will ask for."""
    (kit.state / "approvals").mkdir(parents=True)
    forged = {"run": hungry.run, "digest": digest(hungry), "status": APPROVED, "plan": hungry.to_json()}
    for signature in ("", "00" * 64, "no hex", world.coordinator.sign(approval.STATEMENT + b"x").hex()):
        stored(kit, hungry).write_text(json.dumps(forged | {"signature": signature}))
        asked(world, hungry)
        assert [r.status for r in requests(kit)] == [WAITING]


def test_a_yes_of_one_site_or_one_plan_is_not_one_of_another_and_a_no_is_not_a_yes(world, kit, hungry):
    asked(world, world.plan, hungry)
    yes = decide(kit, digest(world.plan), approve=True)
    plain = json.loads(stored(kit, hungry).read_text())
    stored(kit, hungry).write_text(json.dumps(plain | {"status": APPROVED, "signature": yes.signature}))
    asked(world, hungry)
    other = Identity.generate("merchant-1")
    signature = other.sign(approval.STATEMENT + f"{digest(hungry)}/{APPROVED}".encode()).hex()
    stored(kit, hungry).write_text(json.dumps(plain | {"status": APPROVED, "signature": signature}))
    asked(world, hungry)
    no = decide(kit, digest(hungry), approve=False)
    stored(kit, hungry).write_text(json.dumps(plain | {"status": APPROVED, "signature": no.signature}))
    asked(world, hungry)


def test_a_request_that_shows_another_plan_than_its_digest_names_is_not_shown_and_not_approved(
    world, kit, hungry, capsys
):
    asked(world, hungry)
    plain = json.loads(stored(kit, hungry).read_text())
    stored(kit, hungry).write_text(json.dumps(plain | {"plan": world.plan.to_json()}))
    with pytest.raises(BadInputError, match="shows another plan"):
        decide(kit, digest(hungry), approve=True)
    assert main(["site", "approve", str(kit.path)]) == 2
    assert "shows another plan" in capsys.readouterr().err
    stored(kit, hungry).rename(stored(kit, world.plan))
    with pytest.raises(BadInputError, match="of another plan"):
        requests(kit)


def keep(kit: SiteKit, *plans: RunPlan) -> None:
    for plan in plans:
        with pytest.raises(ApprovalPendingError):
            require_approval(kit, "ask", plan.run, digest(plan), plan.to_json())


def test_junk_keeps_no_honest_plan_out_and_drives_no_answer_away(world, kit):
    keep(kit, world.plan)
    decide(kit, digest(world.plan), approve=True)
    rejected = replace(world.plan, parameters=1)
    keep(kit, rejected)
    decide(kit, digest(rejected), approve=False)
    keep(kit, *(replace(world.plan, parameters=n) for n in range(2, MOST_OF_A_NAME + 12)))
    assert sum(r.status == WAITING for r in requests(kit)) == MOST_OF_A_NAME
    newest = [RunPlan.from_json(r.plan).parameters for r in requests(kit) if r.status == WAITING]
    assert newest == list(range(12, MOST_OF_A_NAME + 12))
    late = replace(world.plan, run="honest-late")
    keep(kit, late)
    assert digest(late) in {r.digest for r in requests(kit)}
    propose(world, world.plan)
    with pytest.raises(RunRejectedError):
        require_approval(kit, "ask", rejected.run, digest(rejected), rejected.to_json())


def test_requests_under_ever_new_names_do_not_fill_the_disk(world, kit, monkeypatch):
    monkeypatch.setattr(approval, "MOST_WAITING", 20)
    keep(kit, *(replace(world.plan, run=f"junk-{n}") for n in range(30)))
    assert [r.run for r in requests(kit)] == [f"junk-{n}" for n in range(10, 30)]
    assert MOST_WAITING == 200


@pytest.mark.parametrize("message", ["propose", "advertise"])
def test_nobody_is_asked_about_what_rules_or_budget_refuse(world, kit, message):
    weak = replace(world.plan, noise_multiplier=0.1)
    dear = world.weaker(training__rounds=500, noise_multiplier=0.6)
    for plan, error in ((weak, PolicyRefusedError), (dear, BudgetExhaustedError)):
        request = world.request(world.query(plan))
        come = {
            "propose": partial(propose, world, plan),
            "advertise": partial(session.advertise, world.site, request, SPEED),
        }
        with pytest.raises(error):
            come[message]()
    assert requests(kit) == []


def test_a_run_with_an_odd_name_is_refused_before_anybody_is_asked(world, kit):
    for name in ("demo-2\x1b[0m: waiting\x1b[K\nprivacy 9.9", "x\u202ey", "=cmd", ""):
        with pytest.raises(FedcartError):
            propose(world, replace(world.plan, run=name))
    assert requests(kit) == []


def test_the_operator_sees_the_digest_the_size_both_epsilons_and_the_budget_before_and_after(world, kit, capsys):
    asked(world, world.plan)
    assert main(["site", "approve", str(kit.path)]) == 0
    shown = capsys.readouterr()
    rows = {line[:13].strip(): line[14:] for line in shown.out.splitlines()}
    assert rows["plan"] == digest(world.plan)
    assert rows["model"] == f"{world.plan.parameters:,} parameters"
    assert "for a consumer who is trained on" in shown.out
    assert "by whom the run chooses" in shown.out and "on whom it reports" in shown.out
    assert "0.0000 of 8 spent, 8.0000 left; with this run" in rows["budget"]
    assert f"site approve {kit.path} {digest(world.plan)[:LEAST_PREFIX]}" in shown.err
    assert main(["site", "approve", str(kit.path), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)[0]
    assert plain["epsilon"] == max(plain["epsilon_trained_on"], plain["epsilon_held_out"]) > 0
    assert plain["epsilon_trained_on"] != plain["epsilon_held_out"]
    assert (plain["parameters"], plain["budget"]["spent"], plain["budget"]["fits"]) == (
        world.plan.parameters,
        0.0,
        True,
    )
    assert main(["site", "approve", str(kit.path), digest(world.plan)[:LEAST_PREFIX], "--reject"]) == 0
    assert requests(kit)[0].status == REJECTED


def test_the_operator_sees_what_the_run_may_bring_to_a_site_of_its_own_size(world, kit, capsys):
    plan = replace(world.plan, evaluation_noise=3.0, noise_multiplier=3.0)
    asked(world, plan)
    assert main(["site", "approve", str(kit.path)]) == 0
    shown = capsys.readouterr().out
    expected = plan.task.forecast(plan, kit.read().site.name)
    assert all(line in shown for line in expected)
    assert "your site" in shown
    assert main(["site", "approve", str(kit.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["forecast"] == expected
