"""``fedcart server status``: is it up, who is connected, how the runs stand, what the sites have attested."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from common.atomic import write_atomic
from common.deployment import CoordinatorKit
from common.errors import FedcartError
from common.run import HEADS_FILE, RunFolder, sums_in
from common.strict_json import readable
from server.admission import HeadsBook
from server.runtime.control import online_sites, open_control

DAMAGED = "damaged"


@dataclass(frozen=True)
class RunStatus:
    """A run folder of the kit. ``status`` is the word of its summary."""

    name: str
    status: str
    rounds: int
    planned: int


@dataclass(frozen=True)
class ServerStatus:
    """Where the coordinator stands. ``sites``: is it connected, as far as the server knows. ``spent``: epsilon of the sites that
    ever attested, and what was asked of them since; public."""

    address: str
    up: bool
    sites: dict[str, bool]
    runs: tuple[RunStatus, ...]
    spent: dict[str, float] = field(default_factory=dict)


def server_status(kit: CoordinatorKit) -> ServerStatus:
    """Look at a server and its runs. Never raises for a server that is down."""
    settings = kit.read()
    sites, up = dict.fromkeys(settings.sites, False), False
    try:
        with open_control(kit) as control:
            sites, up = online_sites(kit, control), True
    except FedcartError:
        up = False
    runs = tuple(_run(folder) for folder in RunFolder.all_in(kit.runs))
    spent = HeadsBook.open(kit.state / HEADS_FILE).epsilon()
    return ServerStatus(settings.coordinator.address, up, sites, runs, spent)


def write_attestations(kit: CoordinatorKit, out: Path) -> list[Path]:
    """Write each site's highest signed attestation over all runs as SITE.attestation.json, for a site's recovery."""
    heads = HeadsBook.open(kit.state / HEADS_FILE).heads.to_json()
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for site, plain in sorted(heads.items()):
        written.append(out / f"{site}.attestation.json")
        write_atomic(written[-1], readable(plain).encode())
    return written


def _run(folder: RunFolder) -> RunStatus:
    try:
        summary, planned = folder.summary(), folder.plan().config.training.rounds
        done, _ = sums_in(folder.metrics())
    except FedcartError:
        return RunStatus(folder.path.name, DAMAGED, 0, 0)
    return RunStatus(folder.path.name, summary.status if summary else "not started", done, planned)
