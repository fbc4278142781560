"""A federation on disk with a catalogue, a run that is over, and the messages that deliver its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tomli_w

from client.site import Site, load_site
from common import wire
from common.data import write_catalogue
from common.data.writing import write_frame
from common.deployment import CoordinatorKit, Kits
from common.model_files import METADATA_FILE, WEIGHTS_FILE
from common.run import BEST, DELIVERY, Delivery, RunFolder, RunPlan, build_config
from common.trust import Identity, Roster
from server.delivery import Courier
from server.planning import deployed_settings, prepare_run
from server.provision import provision
from server.result import write_model
from server.state import latest_checkpoint
from simulations.synthetic import SyntheticSpec, generate

SITES = ("merchant-1", "merchant-2", "merchant-3")
RUN = {
    "name": "shop",
    "model": {"dim": 8, "hidden": 8, "context": [], "heads": {"next-item": 1.0}},
    "training": {"rounds": 2, "local_steps": 2},
    "features": {"max_events": 20},
}


@dataclasses.dataclass(frozen=True)
class Federation:
    """Kits, and what the coordinator can sign with."""

    folder: Path

    @property
    def kits(self) -> Kits:
        return Kits(self.folder / "kits")

    @property
    def coordinator(self) -> CoordinatorKit:
        return self.kits.coordinator

    @property
    def identity(self) -> Identity:
        return Identity.load("coordinator", self.coordinator.identity_key)

    def site(self, name: str = SITES[0]) -> Site:
        return load_site(self.kits.site(name).path)

    def events(self, name: str = SITES[0]) -> Path:
        return self.folder / f"{name}.csv.gz"

    def run(self, rounds: int = 2, finished: int = 1_000, shift: float = 0.0, **facts: Any) -> RunFolder:
        """A run that is over: its model is the initial one, moved by ``shift``."""
        file = self.folder / "run.toml"
        file.write_text(tomli_w.dumps(RUN))
        folder = prepare_run(self.coordinator, deployed_settings(self.coordinator, file), base=self.folder)
        self.finish(folder, rounds, finished, shift, **facts)
        return folder

    def finish(self, folder: RunFolder, rounds: int, finished: int, shift: float = 0.0, **facts: Any) -> None:
        plan = folder.plan()
        vector = latest_checkpoint(folder.checkpoints).parameters + np.float32(shift)
        said = {"rounds": rounds, "which": "last", "finished": finished, "sites": list(SITES), "private": True}
        place = folder.best_model if facts.get("which") == BEST else folder.path
        write_model(place, plan, vector, said | facts, self.identity)

    def delivery(self, folder: RunFolder, model: Path | None = None) -> dict[str, Any]:
        """The message that delivers the model of a run."""
        place = model or folder.path
        document, weights = (place / METADATA_FILE).read_bytes(), (place / WEIGHTS_FILE).read_bytes()
        courier = Courier(None, self.identity, Roster.load(self.coordinator.roster))  # type: ignore[arg-type]
        import hashlib

        return dict(courier._parts(folder, document, weights, hashlib.sha256(document).hexdigest()))

    def signed(self, message: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The message with other words, signed by the true coordinator."""
        said = dataclasses.replace(wire.decode(Delivery, message["delivery"]), **changes)
        return message | {"delivery": wire.encode(said), "signature": self.identity.sign(said.statement(DELIVERY))}


def make_federation(folder: Path, stock: str = "own") -> Federation:
    """Three shops of one market. ``stock``: the catalogue says what each stocks (own), or nothing."""
    market = generate(SyntheticSpec(sites=3, consumers=300, items=40, categories=5), seed=4)
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = market.catalogue if stock == "own" else dataclasses.replace(market.catalogue, stock={})
    write_catalogue(catalogue, folder / "catalogue.json")
    entries = []
    for name in SITES:
        log = market.log.at_site(name)
        write_frame(log.frame.with_columns(pl.col("consumer").cast(pl.String)), folder / f"{name}.csv.gz")
        entries.append({"name": name, "population": 100, "events": str(folder / f"{name}.csv.gz")})
    tree = {
        "name": "market",
        "coordinator": {"address": "127.0.0.1:9"},
        "catalogue": "catalogue.json",
        "sites": entries,
    }
    (folder / "federation.toml").write_text(tomli_w.dumps(tree))
    provision(folder / "federation.toml", folder / "kits", approve="auto")
    return Federation(folder)


def plan_with(plan: RunPlan, **changes: Any) -> RunPlan:
    settings = changes.pop("settings", None)
    if settings:
        import json

        changes["settings"] = build_config(json.loads(plan.settings), settings).public_json()
    return dataclasses.replace(plan, **changes)
