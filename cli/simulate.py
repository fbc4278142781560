"""``fedcart simulate``: a whole federation on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import cli.show as show
from common.errors import ConfigError
from common.recipes import Recipe

if TYPE_CHECKING:
    from cli.screen import Screen
    from common.run import Summary
    from simulations.jobs import Job

INTERRUPTED = 130

app = typer.Typer(add_completion=False)


Scenario = Annotated[str | None, typer.Argument(help="TOML file, or the name of a shipped scenario")]
Events = Annotated[
    list[str] | None,
    typer.Option(help="event log: file, folder, pattern or - for stdin; may be given again", metavar="ANYTHING"),
]
Map = Annotated[
    list[str] | None, typer.Option("--map", help="what a column is, as in consumer=user_id", metavar="A=B")
]
Source = Annotated[
    Path | None,
    typer.Option(help="TOML file with a table [source]: a database, or SQL over files", metavar="FILE"),
]
Format = Annotated[str | None, typer.Option(help="preset or mapping of the event log", metavar="NAME")]
Catalogue = Annotated[Path | None, typer.Option(help="public catalogue of items", metavar="FILE")]
Sites = Annotated[int | None, typer.Option(help="number of sites to deal the consumers to", metavar="N")]
SplitBy = Annotated[
    str | None, typer.Option(help="column with natural sites; or consumers, items", metavar="COLUMN")
]
RecipeName = Annotated[
    Recipe | None,
    typer.Option(
        "--recipe", help="quick: ten rounds [default]; quality: two hundred of one private step, larger batches"
    ),
]
Rounds = Annotated[int | None, typer.Option(help="number of rounds", metavar="R")]
Epsilon = Annotated[float | None, typer.Option(help="target of the whole run, per consumer and site", metavar="E")]
Trust = Annotated[
    Literal["local", "quorum"] | None,
    typer.Option(
        help="local: each site's own noise is enough [default]; quorum: the sum holds it, each adds its share"
    ),
]
Colluders = Annotated[
    int | None,
    typer.Option(help="quorum: sites that may work with the server [fewer than a third]", metavar="C"),
]
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
Baselines = Annotated[
    bool,
    typer.Option(
        "--baselines", help="also local-only and central runs, and what each site gains with its own data on top"
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="any setting, as in model.hidden=64", metavar="KEY=VALUE")
]
Seed = Annotated[int | None, typer.Option(help="of data, initialisation and order; never of noise")]
Out = Annotated[Path | None, typer.Option(help="run folder to make [runs/NAME-TIME]", metavar="DIR")]
Resume = Annotated[Path | None, typer.Option(help="continue an interrupted run", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="only the summary, as JSON, on stdout")]


@dataclass(frozen=True)
class DataOptions:
    """Which consumers, and how they are dealt to sites. None: as the settings say."""

    events: str | None = None
    format: str | None = None
    catalogue: Path | None = None
    sites: int | None = None
    split_by: str | None = None
    map: tuple[str, ...] | None = None
    source: str | None = None

    def settings(self) -> dict[str, Any]:
        """By key, None where nothing was chosen. Raises: ConfigError."""
        if self.sites is not None and self.split_by not in (None, "consumers", "items"):
            raise ConfigError(
                f"--sites {self.sites} and --split-by {self.split_by} contradict each other",
                hint="a column makes its own sites; --sites goes with --split-by consumers or items",
            )
        return {f"data.{field.name}": getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class RunOptions:
    """What is learnt, and under which promise."""

    recipe: str | None = None
    rounds: int | None = None
    epsilon: float | None = None
    no_privacy: bool = False
    trust: str | None = None
    colluders: int | None = None
    aggregation: str | None = None
    drop: float | None = None
    baselines: bool = False
    seed: int | None = None

    def settings(self) -> dict[str, Any]:
        """By key, None where nothing was chosen. Raises: ConfigError."""
        if self.epsilon is not None and self.no_privacy:
            raise ConfigError("--epsilon and --no-privacy contradict each other", hint="leave one of them out")
        return {
            "recipe": self.recipe,
            "training.rounds": self.rounds,
            "privacy.epsilon": self.epsilon,
            "privacy.enabled": False if self.no_privacy else None,
            "privacy.trust": self.trust,
            "privacy.colluders": self.colluders,
            "aggregation.mode": self.aggregation,
            "drop": self.drop,
            "baselines": True if self.baselines else None,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class SpeedOptions:
    """Who computes, and how fast."""

    engine: str | None = None
    workers: int | None = None
    trainer: str | None = None

    def settings(self) -> dict[str, Any]:
        """By key, None where nothing was chosen."""
        return {f"performance.{field.name}": getattr(self, field.name) for field in fields(self)}


@app.command(
    epilog="A scenario is a TOML file; docs/simulate.md lists all settings. Ctrl-C leaves a resumable run."
)
def simulate(
    scenario: Scenario = None,
    events: Events = None,
    source: Source = None,
    format: Format = None,
    map_: Map = None,
    catalogue: Catalogue = None,
    sites: Sites = None,
    split_by: SplitBy = None,
    recipe: RecipeName = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    no_privacy: NoPrivacy = False,
    trust: Trust = None,
    colluders: Colluders = None,
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
    files, mapped = os.pathsep.join(events) if events else None, tuple(map_) if map_ else None
    base = str(source) if source else None
    chosen = chosen_settings(
        DataOptions(files, format, catalogue, sites, split_by, mapped, base),
        RunOptions(recipe, rounds, epsilon, no_privacy, trust, colluders, aggregation, drop, baselines, seed),
        SpeedOptions(engine, workers, trainer),
    )
    raise typer.Exit(run_job(_job(scenario, chosen, set_ or [], out, resume), as_json=json))


def _job(
    scenario: str | None, chosen: dict[str, Any], overrides: list[str], out: Path | None, resume: Path | None
) -> Job:
    """A new run, or the rest of one. Raises: ConfigError, BadInputError."""
    from simulations.jobs import new_job, resumed_job

    if resume is None:
        return new_job(scenario, chosen, overrides, out)
    if scenario is not None or out is not None:
        raise ConfigError("--resume goes without a scenario and without --out", hint="the run folder has both")
    return resumed_job(resume, chosen, overrides)


def chosen_settings(*options: DataOptions | RunOptions | SpeedOptions) -> dict[str, Any]:
    """The settings that options of the command line change, by key. Raises: BadInputError, ConfigError."""
    from simulations.jobs import coherent

    given = [item for group in options for item in group.settings().items()]
    return coherent({key: value for key, value in given if value is not None})


def run_job(job: Job, *, as_json: bool) -> int:
    """Run a simulation with its screen, write its report. Returns the exit code. Raises: FedcartError."""
    from simulations.workers import begin_imports

    begin_imports()  # before anything else: the workers' imports are what a run waits for
    from simulations.jobs import in_its_folder

    with in_its_folder(job) as mine:
        return _run_there(mine, as_json=as_json)


def _run_there(job: Job, *, as_json: bool) -> int:
    from cli.screen import Screen

    screen = Screen(job.config, job.out, to_stderr=as_json, latest=job.latest)
    with screen:
        screen.opening(resume=job.resume)
        for note in job.notes:
            screen.note(note)
        from simulations.run import simulate as run_simulation  # flwr, polars: after the first line is out

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


def _write_report(folder: Path) -> None:
    from cli.report import write_report
    from common.run import RunFolder

    if RunFolder.is_one(folder):
        write_report(folder)


def _exit_code(summary: Summary, screen: Screen) -> int:
    if summary.completed:
        return 0
    return 3 if screen.refusals else 1
