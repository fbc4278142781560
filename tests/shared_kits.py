"""The same shop in two federations, each with a coordinator of its own, and what a run asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from client.site import Site, load_site
from common.deployment import SiteKit
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from server.provision import provision
from tests.guard_samples import proposal

STEP = PrivacyEvent(1.15, 0.1, 60)
LOOK = PrivacyEvent(4.0, 1.0, 1, HOLDOUT_SIDE)


def make_kits(folder: Path, names: tuple[str, str] = ("shop-one", "shop-two")) -> list[SiteKit]:
    """A kit of the shop in each federation, under these names."""
    events = folder / "events.csv"
    events.write_text(
        "consumer,event,timestamp,item\n"
        + "".join(f"c{n % 150},view,2026-01-{1 + n % 28:02d} 10:00:00,i{n % 9}\n" for n in range(900))
    )
    for federation, name in zip(("one", "two"), names, strict=True):
        sites = [{"name": one, "population": 200, "events": str(events)} for one in (name, "south", "east")]
        file = folder / f"{federation}.toml"
        file.write_text(
            tomli_w.dumps({"name": federation, "coordinator": {"address": "127.0.0.1:9"}, "sites": sites})
        )
        provision(file, folder / federation)
    return [SiteKit(folder / f / "sites" / name) for f, name in zip(("one", "two"), names, strict=True)]


def asked(site: Site, run: str, number: int = 1, **changes: Any) -> Any:
    """What a round of a run asks; the two federations have two plans."""
    config = ("ab" if run.endswith("one") else "cd") * 32
    split = {"holdout": 0.2, "split_key": site.split_key()}
    return proposal(number, **({"run": run, "config": config, "events": (STEP, LOOK)} | split | changes))


def spend(kit: SiteKit, run: str, number: int = 1, **changes: Any) -> Any:
    """A round that leaves; the signed attestation of it."""
    site = load_site(kit.path)
    guard = site.guard()
    grant = guard.reserve(asked(site, run, number, **changes))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)
    return grant.attestation
