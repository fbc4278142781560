"""The data and settings of ``fedcart demo``: a small synthetic marketplace, dealt to real site kits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from common.run import CATALOGUE_FILE, SETTINGS_FILE

DECLARED_STEP = 100  # populations are declared in such steps, never as counted


@dataclass(frozen=True)
class DemoFiles:
    """What was written: entries for ``federation.toml``, the shared catalogue, the run's settings."""

    sites: tuple[dict[str, Any], ...]
    catalogue: Path
    run: Path


def write_demo(
    folder: Path, *, sites: int = 4, consumers: int = 1_600, rounds: int = 3, seed: int = 1
) -> DemoFiles:
    """Generate a marketplace and write one event log per site, the public catalogue and a run's settings."""
    import polars as pl

    from common.data import write_catalogue
    from common.data.writing import write_frame
    from simulations.synthetic import SyntheticSpec, generate

    folder.mkdir(parents=True, exist_ok=True)
    market = generate(SyntheticSpec(sites=sites, consumers=consumers, items=200, inequality=0.3), seed)
    catalogue = folder / CATALOGUE_FILE
    write_catalogue(market.catalogue, catalogue)
    entries = []
    for name in market.log.sites:
        log = market.log.at_site(name)
        events = folder / f"{name}.csv.gz"
        write_frame(log.frame.with_columns(pl.col("consumer").cast(pl.String)), events)
        declared = DECLARED_STEP * -(-len(log.consumers) // DECLARED_STEP)
        entries.append({"name": name, "population": declared, "events": str(events), "catalogue": str(catalogue)})
    run = folder / SETTINGS_FILE
    run.write_text(tomli_w.dumps(demo_settings(rounds)))
    return DemoFiles(tuple(entries), catalogue, run)


def demo_settings(rounds: int) -> dict[str, Any]:
    """Settings of the demo's run: small enough for any machine, private, securely aggregated."""
    return {
        "name": "demo",
        "data": {"catalogue": CATALOGUE_FILE},
        "features": {"max_events": 20},
        "model": {"dim": 16, "hidden": 16},
        "training": {"rounds": rounds, "local_steps": 4},
        "privacy": {"epsilon": 6.0},
        "aggregation": {"deadline_s": 120.0, "exchange_deadline_s": 60.0},
    }


def site_names(files: DemoFiles) -> Sequence[str]:
    """Names of the demo's sites."""
    return [site["name"] for site in files.sites]
