"""``fedcart simulate``: a whole federation on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import show
from common.errors import BadInputError, ConfigError

if TYPE_CHECKING:
    from cli.screen import Screen
    from common.config import RunConfig
    from common.run.summary import Summary

INTERRUPTED = 130
DEFAULT_SCENARIO = "marketplace"
RESUME_ALLOWS = ("performance",)  # speed only; everything else is fixed before round 1

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Job:
    """What is to be run, and where its files go."""

    config: RunConfig
    out: Path
    resume: bool = False
    latest: Path | None = None  # link to make to the run folder


Scenario = Annotated[str | None, typer.Argument(help="TOML file, or the name of a shipped scenario")]
Events = Annotated[Path | None, typer.Option(help="event log: CSV, CSV.GZ or Parquet", metavar="FILE")]
Format = Annotated[str | None, typer.Option(help="preset or mapping of the event log", metavar="NAME")]
Catalogue = Annotated[Path | None, typer.Option(help="public catalogue of items", metavar="FILE")]
Sites = Annotated[int | None, typer.Option(help="number of sites to deal the consumers to", metavar="N")]
SplitBy = Annotated[
    str | None, typer.Option(help="column with natural sites; or consumers, items", metavar="COLUMN")
]
Rounds = Annotated[int | None, typer.Option(help="number of rounds", metavar="R")]
Epsilon = Annotated[float | None, typer.Option(help="target of the whole run, per consumer and site", metavar="E")]
NoPrivacy = Annotated[bool, typer.Option("--no-privacy", help="no differential privacy: to compare")]
Aggregation = Annotated[
    Literal["secure", "plain"] | None, typer.Option(help="may the server see a single update?")
]
Drop = Annotated[
    float | None, typer.Option(help="share of sites lost in each round, at a random phase", metavar="F")
]
Engine = Annotated[Literal["inprocess", "ray"] | None, typer.Option(help="who runs the clients")]
Workers = Annotated[int | None, typer.Option(help="processes; 0: one per core", metavar="W")]
Trainer = Annotated[
    Literal["fast", "opacus"] | None, typer.Option(help="gradients per consumer: ours, or Opacus's")
]
Baselines = Annotated[bool, typer.Option("--baselines", help="also local-only, item-kNN and central runs")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="any setting, as in model.hidden=64", metavar="KEY=VALUE")
]
Seed = Annotated[int | None, typer.Option(help="of data, initialisation and order; never of noise")]
Out = Annotated[Path | None, typer.Option(help="run folder to make [runs/NAME-TIME]", metavar="DIR")]
Resume = Annotated[Path | None, typer.Option(help="continue an interrupted run", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="only the summary, as JSON, on stdout")]

SETTING_OF_OPTION = {
    "seed": "seed",
    "drop": "drop",
    "baselines": "baselines",
    "events": "data.events",
    "format": "data.format",
    "catalogue": "data.catalogue",
    "sites": "data.sites",
    "split_by": "data.split_by",
    "rounds": "training.rounds",
    "epsilon": "privacy.epsilon",
    "aggregation": "aggregation.mode",
    "engine": "performance.engine",
    "workers": "performance.workers",
    "trainer": "performance.trainer",
}


@app.command(
    epilog="A scenario is a TOML file; docs/simulate.md lists all settings. Ctrl-C leaves a resumable run."
)
def simulate(
    scenario: Scenario = None,
    events: Events = None,
    format: Format = None,
    catalogue: Catalogue = None,
    sites: Sites = None,
    split_by: SplitBy = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    no_privacy: NoPrivacy = False,
    aggregation: Aggregation = None,
    drop: Drop = None,
    engine: Engine = None,
    workers: Workers = None,
    trainer: Trainer = None,
    baselines: Baselines = False,
    set_: Set = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Run a whole federation on this machine and show what privacy, aggregation and unequal sites cost.

    Without a scenario: the synthetic marketplace; with --events: your own log.
    """
    chosen = chosen_settings(locals())
    if resume is None:
        job = _new(scenario, chosen, set_ or [], out)
    elif scenario is None and out is None:
        job = _resumed(resume, chosen, set_ or [])
    else:
        raise ConfigError("--resume goes without a scenario and without --out", hint="the run folder has both")
    raise typer.Exit(run_job(job, as_json=json))


def chosen_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that options of the command line change, by key. Raises: BadInputError, ConfigError."""
    epsilon, sites, split_by = options["epsilon"], options["sites"], options["split_by"]
    if epsilon is not None and options["no_privacy"]:
        raise ConfigError("--epsilon and --no-privacy contradict each other", hint="leave one of them out")
    if sites is not None and split_by not in (None, "consumers", "items"):
        raise ConfigError(
            f"--sites {sites} and --split-by {split_by} contradict each other",
            hint="a column makes its own sites; --sites goes with --split-by consumers or items",
        )
    given = {key: options[name] for name, key in SETTING_OF_OPTION.items()}
    chosen = {key: value for key, value in given.items() if value is not None and value is not False}
    for key in ("data.events", "data.catalogue"):
        if key in chosen:
            chosen[key] = _existing(chosen[key])
    if options["no_privacy"]:
        chosen["privacy.enabled"] = False
    if sites is not None and "data.events" in chosen:
        chosen.setdefault("data.split_by", "consumers")
    return chosen


def run_job(job: Job, *, as_json: bool) -> int:
    """Run a simulation with its screen, write its report. Returns the exit code. Raises: FedcartError."""
    from cli.screen import Screen

    screen = Screen(job.config, job.out, to_stderr=as_json, latest=job.latest)
    with screen:
        screen.opening(resume=job.resume)
        from simulations.workers import begin_imports

        begin_imports()
        from simulations.run import simulate as run_simulation  # torch, flwr: after the first line is out

        try:
            summary = run_simulation(job.config, job.out, screen, resume=job.resume)
        except KeyboardInterrupt:
            screen.interrupted()
            _write_report(job.out)
            return INTERRUPTED
        _write_report(job.out)
        screen.closing(summary)
    if as_json:
        show.print_json(summary.to_json())
    return _exit_code(summary, screen)


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


def _new(scenario: str | None, chosen: Mapping[str, Any], overrides: list[str], out: Path | None) -> Job:
    from common.config import build_config, read_toml

    if scenario is None and "data.events" in chosen:
        tree: dict[str, Any] = {"name": _name_of(Path(chosen["data.events"]))}
    else:
        tree = read_toml(scenario_path(scenario or DEFAULT_SCENARIO))
    for key, value in chosen.items():
        _put(tree, key, value)
    config = build_config(tree, overrides)
    if out is not None:
        return Job(config, out)
    runs = Path("runs")
    return Job(config, _fresh(runs / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}"), latest=runs / "latest")


def _resumed(folder: Path, chosen: Mapping[str, Any], overrides: list[str]) -> Job:
    from common.config import build_config
    from common.run.files import RunFolder

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


def _name_of(path: Path) -> str:
    stem = path.name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "events"


def _fresh(path: Path) -> Path:
    candidate, count = path, 1
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate


def _write_report(folder: Path) -> None:
    from cli.report import write_report
    from common.run.files import RunFolder

    if RunFolder.is_one(folder):
        write_report(folder)


def _exit_code(summary: Summary, screen: Screen) -> int:
    if summary.completed:
        return 0
    return 3 if screen.refusals else 1
