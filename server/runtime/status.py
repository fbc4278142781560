"""``fedcart server status``: is it up, who is connected, how the runs stand, what the sites have attested."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.deployment import CoordinatorKit
from common.errors import FedcartError
from common.privacy.attestation import SignedAttestation
from common.runfolder import RunFolder, write_atomic
from server.runtime.control import online_sites, open_control
from server.state import latest_checkpoint


@dataclass(frozen=True)
class RunStatus:
    """A run folder of the kit. ``status`` is the word of its summary."""

    name: str
    status: str
    rounds: int
    planned: int


@dataclass(frozen=True)
class ServerStatus:
    """Where the coordinator stands. ``sites``: is it connected, as far as the server knows."""

    address: str
    up: bool
    sites: dict[str, bool]
    runs: tuple[RunStatus, ...]


def server_status(kit: CoordinatorKit) -> ServerStatus:
    """Look at a server and its runs. Never raises for a server that is down."""
    settings = kit.read()
    sites, up = dict.fromkeys(settings.sites, False), False
    try:
        with open_control(kit) as control:
            sites, up = online_sites(kit, control), True
    except FedcartError:
        up = False
    runs = sorted(kit.runs.glob("*/run.toml"), key=lambda path: path.stat().st_mtime_ns)
    return ServerStatus(settings.coordinator.address, up, sites, tuple(_run(path.parent) for path in runs))


def write_attestations(kit: CoordinatorKit, out: Path) -> list[Path]:
    """Write each site's highest signed attestation over all runs as SITE.attestation.json, for a site's recovery."""
    highest: dict[str, tuple[int, Any]] = {}
    for path in kit.runs.glob("*/plan.json"):
        try:
            heads = latest_checkpoint(path.parent / "checkpoints").heads
        except FedcartError:
            continue  # a run that cannot be read has nothing to say; its other copies may
        for site, plain in heads.items():
            sequence = SignedAttestation.from_json(plain).attestation.sequence
            if sequence >= highest.get(site, (-1, None))[0]:
                highest[site] = (sequence, plain)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for site, (_, plain) in sorted(highest.items()):
        written.append(out / f"{site}.attestation.json")
        write_atomic(written[-1], json.dumps(plain, indent=1).encode())
    return written


def _run(path: Path) -> RunStatus:
    folder = RunFolder.open(path)
    try:
        summary = folder.read_json("summary.json")
        planned = int(json.loads(json.loads((path / "plan.json").read_text())["settings"])["training"]["rounds"])
        done = sum(record.kind == "train" for record in folder.metrics())
    except (FedcartError, OSError, ValueError, KeyError):
        return RunStatus(path.name, "not started", 0, 0)
    return RunStatus(path.name, str(summary.get("status", "")), done, planned)
