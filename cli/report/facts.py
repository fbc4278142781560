"""Everything a report needs from a run folder, however far the run has come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cli.verdict import Standing, standings
from common.run import COMPLETED, INTERRUPTED, RoundRecord, RunFacts, RunFolder, Summary
from server.bars import Bars


@dataclass(frozen=True)
class RunStory:
    """A run as it lies on disk. ``facts`` is None, ``summary`` interrupted where the run has not written them."""

    path: Path
    settings: dict[str, Any]
    records: list[RoundRecord]
    facts: RunFacts | None
    summary: Summary
    written: datetime
    bars: Bars = field(default_factory=Bars)

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.settings.get("name", self.path.name))

    @property
    def task(self) -> str:
        """What was learnt."""
        return str(self.settings.get("task", "next-behaviour"))

    @property
    def status(self) -> str:
        """completed, stopped, running or interrupted."""
        return self.summary.status

    @property
    def complete(self) -> bool:
        """Whether all planned rounds were run."""
        return self.status == COMPLETED

    @property
    def planned_rounds(self) -> int:
        """Rounds the settings ask for."""
        return int(self.section("training").get("rounds", len(self.records)))

    @property
    def private(self) -> bool:
        """Whether differential privacy was on in every round."""
        known = [record.private for record in self.records]
        return all(known) if known else bool(self.section("privacy").get("enabled", True))

    @property
    def aggregation(self) -> str:
        """``plain`` as soon as one round was."""
        modes = {record.aggregation for record in self.records} or {
            self.section("aggregation").get("mode", "plain")
        }
        return "secure" if modes == {"secure"} else "plain"

    @property
    def rounds(self) -> list[RoundRecord]:
        """The training rounds, without the closing evaluation."""
        return [record for record in self.records if record.kind == "train"]

    @property
    def simulated(self) -> bool:
        """Whether the budgets are a simulation's: the sites' signed attestations say so, nothing else does.

        Without any (no privacy, or no round yet) a run with oracle numbers is a simulation: a server has none.
        """
        if self.attested_as_simulated:
            return True in self.attested_as_simulated
        return any(record.oracle for record in self.records)

    @property
    def has_oracle_numbers(self) -> bool:
        """Whether anything here was computed from all data. In a deployment nothing is, and the page does not speak of it."""
        counted = bool(self.facts and self.facts.data)
        return counted or "oracle" in self.summary.metrics or any(record.oracle for record in self.records)

    @property
    def attested_as_simulated(self) -> set[bool]:
        """What the attestations of all rounds say of their ledgers; both values where they disagree."""
        signed = [one for record in self.records for one in record.attestations.values() if isinstance(one, dict)]
        said = [one["attestation"] for one in signed if isinstance(one.get("attestation"), dict)]
        return {bool(one["simulated"]) for one in said if "simulated" in one}

    @property
    def sites(self) -> list[dict[str, Any]]:
        """Facts of every site, largest first; names only where nothing else is known."""
        known = {site.name: vars(site).copy() for site in self.facts.sites} if self.facts else {}
        for record in self.records:
            for name in record.sites:
                known.setdefault(name, {"name": name})
        return sorted(known.values(), key=lambda site: (-site.get("population", 0), site["name"]))

    @property
    def standings(self) -> list[Standing]:
        """The model beside its baselines, on oracle metrics."""
        oracle = self.summary.metrics.get("oracle") or (self.records[-1].oracle if self.records else {})
        return standings(oracle, self.summary.baselines, self.task)

    def section(self, name: str) -> dict[str, Any]:
        """One section of the settings."""
        table = self.settings.get(name, {})
        return table if isinstance(table, dict) else {}

    def last(self, group: str) -> dict[str, float]:
        """Latest metrics of a group (released, public, oracle) that a round produced."""
        return next((values for r in reversed(self.records) if (values := getattr(r, group))), {})


def read_story(path: Path) -> RunStory:
    """Read a run folder; parts that are not there yet are left empty. Raises: BadInputError."""
    folder = RunFolder.open(path)
    return RunStory(
        path=path,
        settings=folder.settings_as_written(),
        records=folder.metrics(),
        facts=folder.facts(),
        summary=folder.summary() or Summary(INTERRUPTED),
        written=datetime.fromtimestamp(folder.changed).astimezone(),
        bars=Bars.of(folder),
    )


def flat_settings(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as (section.key, value) in file order, values as TOML would show them."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            rows += flat_settings(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False, allow_nan=False)))
    return rows
