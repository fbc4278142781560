"""``fedcart server status``: is it up, who is connected, how the runs stand, what the sites have attested."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.atomic import write_atomic
from common.deployment import CoordinatorKit
from common.errors import FedcartError
from common.run.files import RunFolder
from server.admission import HEADS_FILE, HeadsBook
from server.runtime.control import online_sites, open_control


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
    heads = HeadsBook.open(kit.state / HEADS_FILE).heads.to_json()
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for site, plain in sorted(heads.items()):
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
