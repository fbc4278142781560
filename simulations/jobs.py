"""From what somebody asks for (a scenario, an event log, a few settings) to a run's settings and its folder."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from common.errors import BadInputError, ConfigError
from common.recipes import RECIPES, named_before, without_schedule
from common.run import RunConfig, RunFolder, build_config, own_folder, read_toml

DEFAULT_SCENARIO = "marketplace"
RUNS = Path("runs")  # where run folders go that nobody has named
RESUME_ALLOWS = ("performance",)  # speed only; everything else is fixed before round 1


@dataclass(frozen=True)
class Job:
    """What is to be run, and where its files go."""

    config: RunConfig
    out: Path
    resume: bool = False
    latest: Path | None = None  # link to make to the run folder, which nobody has named then
    notes: tuple[str, ...] = ()  # to be said before it begins


def coherent(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by key as somebody chose them, with what follows from them. Raises: BadInputError, ConfigError."""
    wanted, split_by = dict(chosen), chosen.get("data.split_by")
    if chosen.get("data.sites") is not None and split_by not in (None, "consumers", "items"):
        raise ConfigError(
            f"{chosen['data.sites']} sites and a split by {split_by} contradict each other",
            hint="a column makes its own sites; a number of sites goes with a split by consumers or items",
        )
    if "data.events" in wanted:
        wanted["data.events"] = _event_source(os.fspath(wanted["data.events"]))
    if "data.source" in wanted:
        wanted["data.source"] = _existing(Path(wanted["data.source"]))
    if "data.catalogue" in wanted:
        wanted["data.catalogue"] = _existing(Path(wanted["data.catalogue"]))
    if "data.sites" in wanted and ("data.events" in wanted or "data.source" in wanted):
        wanted.setdefault("data.split_by", "consumers")
    return wanted


def scenario_names() -> list[str]:
    """Names of the shipped scenarios."""
    folder = resources.files("simulations") / "scenarios"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def scenario_path(scenario: str) -> Path:
    """The file of a scenario given by path or by the name of a shipped one. Raises: BadInputError."""
    path = Path(scenario)
    if path.suffix == ".toml" or path.is_file():
        return path
    if scenario in scenario_names():
        return Path(str(resources.files("simulations") / "scenarios" / f"{scenario}.toml"))
    raise BadInputError(
        f"no such scenario: {scenario}", hint=f"a TOML file, or one of: {', '.join(scenario_names())}"
    )


def new_job(
    scenario: str | None, chosen: Mapping[str, Any], overrides: Sequence[str] = (), out: Path | None = None
) -> Job:
    """A new run of a scenario, or of the event log that ``chosen`` names, in a folder of its own.

    A recipe that somebody chose comes before the schedule of the scenario that nobody did; where a scenario was named too,
    its keys come first and a note says so.
    Raises: BadInputError, ConfigError.
    """
    log = chosen.get("data.events") or chosen.get("data.source")
    if scenario is None and log:
        tree: dict[str, Any] = {"name": _name_of(Path(log))}
    else:
        tree = read_toml(scenario_path(scenario or DEFAULT_SCENARIO))
    recipe, trust = chosen.get("recipe"), chosen.get("privacy.trust")
    notes: tuple[str, ...] = ()
    if recipe in RECIPES or trust:
        if recipe in RECIPES:
            tree = tree | {"recipe": recipe}
        if trust:
            _put(tree, "privacy.trust", trust)
        tree = tree if scenario else without_schedule(tree)
        notes = _notes_of(tree.get("recipe", "quick"), named_before(tree))
    for key, value in chosen.items():
        _put(tree, key, value)
    config = build_config(tree, overrides)
    if out is not None:
        return Job(config, out, notes=notes)
    folder = RUNS / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}"
    return Job(config, folder, latest=RUNS / "latest", notes=notes)


def _notes_of(recipe: str, kept: Sequence[str]) -> tuple[str, ...]:
    if not kept:
        return ()
    return (f"the scenario names {', '.join(kept)} itself: that comes before the recipe {recipe}",)


def resumed_job(folder: Path, chosen: Mapping[str, Any], overrides: Sequence[str] = ()) -> Job:
    """The rest of an interrupted run. Raises: ConfigError if anything but speed is to change; BadInputError."""
    for key in [*chosen, *(text.partition("=")[0].strip() for text in overrides)]:
        if key.split(".")[0] not in RESUME_ALLOWS:
            raise ConfigError(
                f"{key} cannot change on --resume: the settings of a run are fixed before its first round",
                hint="only --workers, --engine and --trainer may differ; start a new run for anything else",
            )
    tree = RunFolder.open(folder).settings_as_written()
    for key, value in chosen.items():
        _put(tree, key, value)
    return Job(build_config(tree, overrides), folder, resume=True)


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[last] = value


def _existing(path: Path) -> str:
    if not path.is_file():
        raise BadInputError(f"no such file: {path}", hint="check the path")
    return str(path.resolve())


def _event_source(text: str) -> str:
    """A source as it is found from everywhere: absolute paths; patterns and ``-`` stay. Raises: BadInputError."""
    if text == "-":
        return text
    if Path(text).exists():
        return str(Path(text).resolve())
    if os.pathsep in text:
        return os.pathsep.join(_event_source(part) for part in text.split(os.pathsep) if part)
    if glob.has_magic(text):
        if not glob.glob(text, recursive=True):
            raise BadInputError(f"no file fits {text}", hint="check the pattern; quote it if the shell expands it")
        return os.path.abspath(text)
    return _existing(Path(text))


def _name_of(path: Path) -> str:
    stem = path.name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "events"


@contextmanager
def in_its_folder(job: Job) -> Iterator[Job]:
    """The job with a folder that is its own: one that nobody has named is taken now, and gone again if nothing comes into it."""
    if job.latest is None:
        yield job
        return
    with own_folder(job.out) as folder:
        yield replace(job, out=folder)
