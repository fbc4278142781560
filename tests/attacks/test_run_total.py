"""A coordinator whose words and settings differ: the operator sees the true cost, and a run can take no more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.site import app
from client.guard import Guard
from client.runtime.approval import WAITING, Request
from common.deployment import SiteKit
from common.errors import PolicyRefusedError
from common.privacy.accountant import ScopeAccountant
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from common.run import RunPlan, build_config
from tests.guard_samples import guard_in, proposal

TRAINING = PrivacyEvent(2.0, 0.1, 4)
EVALUATION = PrivacyEvent(5.0, 1.0, 1, HOLDOUT_SIDE)
PLANNED = (
    dataclasses.replace(TRAINING, steps=8),
    dataclasses.replace(EVALUATION, steps=3),
)  # two rounds and a close
RUN = {"run_events": PLANNED, "events": (TRAINING, EVALUATION)}


def release(guard: Guard, number: int, **changes: Any) -> None:
    grant = guard.reserve(proposal(number, **(RUN | changes)))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)


def test_a_run_takes_what_its_plan_says_and_no_more(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    release(guard, 1)
    release(guard, 2)
    before = guard.ledger.path.read_bytes()
    for ask in (guard.check_proposal, guard.reserve):
        with pytest.raises(PolicyRefusedError, match="12 steps") as refusal:
            ask(proposal(3, **RUN))
        assert refusal.value.rule == "run_total"
    assert guard.ledger.path.read_bytes() == before
    release(guard, 3, kind="evaluate", events=(EVALUATION,))
    with pytest.raises(PolicyRefusedError, match="run_total"):
        guard.reserve(proposal(4, **(RUN | {"kind": "evaluate", "events": (EVALUATION,)})))
    release(guard, 1, run="second", config="ee" * 32)  # another plan has its own total


def test_other_settings_than_those_of_the_plan_are_refused(tmp_path: Path) -> None:
    weaker = PrivacyEvent(1.0, 0.1, 1)
    with pytest.raises(PolicyRefusedError, match="its plan says 0"):
        guard_in(tmp_path).reserve(proposal(1, **(RUN | {"events": (weaker,)})))


def test_rounds_that_were_aborted_or_failed_count_and_void_ones_do_not(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    guard.reserve(proposal(1, **RUN))
    guard.close_round("run", 1)
    guard.fail(guard.reserve(proposal(1, attempt=1, **RUN)))
    grant = guard.reserve(proposal(2, **RUN))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    assert guard.reserve(proposal(2, attempt=1, **RUN)).reused
    guard.commit(grant)
    with pytest.raises(PolicyRefusedError, match="run_total"):
        guard.reserve(proposal(3, attempt=2, **RUN))


def plan(**privacy: Any) -> RunPlan:
    tree = {
        "name": "quiet",
        "model": {"heads": {"next-item": 0.5, "next-event": 2.0}},
        "training": {"rounds": 20, "local_steps": 30, "learning_rate": 0.25},
        "privacy": {"epsilon": 1.0, "sampling_rate": 0.1, "holdout": 0.3} | privacy,
    }
    sites = (("shop", 500), ("giant", 9_000))
    spec = json.dumps({"catalogue_items": 70, "item_buckets": 8})
    return RunPlan("quiet", build_config(tree).public_json(), sites, spec, 10, 0.6, 3.0)


def shown(kit: Path, asked: RunPlan, *words: str) -> str:
    request = Request(asked.run, asked.digest().hex(), WAITING, asked.to_json())
    folder = SiteKit(kit).state / "approvals"
    folder.mkdir(parents=True)
    (kit / "site.toml").write_text("")
    (folder / f"{request.digest}.json").write_text(json.dumps(dataclasses.asdict(request)))
    return CliRunner().invoke(app, ["approve", str(kit), *words], catch_exceptions=False).output


def test_the_operator_sees_what_a_run_really_costs(tmp_path: Path) -> None:
    asked = plan()
    truth = ScopeAccountant(asked.total_events()).epsilon(1e-5)
    assert truth > 10  # the coordinator says 1
    text = shown(tmp_path / "text", asked)
    (line,) = [line for line in text.splitlines() if line.startswith("epsilon ")]
    assert float(line.split()[1]) >= truth and "says 1 at most" in line
    assert "WARNING       the settings cost more than the coordinator says" in text
    for fact in (
        "0.3 of the consumers",
        "giant (9000 consumers)",
        "next-item (weight 0.5)",
        "0.25",
        "70 catalogue",
    ):
        assert fact in text
    (plain,) = json.loads(shown(tmp_path / "json", asked, "--json"))
    assert plain["epsilon"] >= truth and plain["exceeds"] is True


def test_an_honest_plan_is_shown_without_a_warning(tmp_path: Path) -> None:
    assert "WARNING" not in shown(tmp_path, plan(epsilon=900.0))
