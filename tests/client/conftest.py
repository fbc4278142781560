"""A coordinator whose word a site takes, and a site of its run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from client.site import Site, load_site
from common.run import (
    build_config,
)
from common.run.files import RunFolder
from common.trust.identity import Identity, Roster
from server.state import latest_checkpoint
from tests.scripted_coordinator import Coordinator
from tests.tiny_federation import run_tiny


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    out = tmp_path_factory.mktemp("session") / "run"
    run_tiny(out, "training.rounds=1")
    folder = RunFolder.open(out)
    roster = Roster.load(out / "roster.json")
    identity = Identity.load(roster.coordinator.name, out / "coordinator" / "identity.key")
    plan = folder.plan()
    settings = build_config(json.loads(plan.settings), ["training.rounds=99"]).public_json()
    longer = dataclasses.replace(plan, settings=settings)  # rounds enough for every test
    return Coordinator(out, longer, roster, identity, latest_checkpoint(out / "checkpoints").parameters)


@pytest.fixture
def site(coordinator: Coordinator, tmp_path: Path) -> Site:
    """A site of the run with a ledger of its own: nothing spent yet."""
    name = coordinator.plan.sites[0]
    return load_site(coordinator.out / "sites" / name, simulated=True, ledger_path=tmp_path / f"{name}.jsonl")
