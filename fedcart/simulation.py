"""``simulate`` and ``resume``: a whole federation on this machine, from a notebook or a script without a main guard."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, overload

from common.atomic import link_atomic
from common.errors import ConfigError
from fedcart.events import file_of
from fedcart.places import Place, path_of
from fedcart.run import Run, Sweep, open_run
from fedcart.settings import as_settings
from fedcart.watching import Lines

if TYPE_CHECKING:
    from common.run import Observer
    from simulations.jobs import Job

KEYS = {
    "epsilon": "privacy.epsilon",
    "split_by": "data.split_by",
    "sites": "data.sites",
    "rounds": "training.rounds",
    "aggregation": "aggregation.mode",
    "trust": "privacy.trust",
    "catalogue": "data.catalogue",
    "seed": "seed",
    "baselines": "baselines",
    "workers": "performance.workers",
}
"""Keyword -> the setting that it stands for; ``settings={...}`` takes every other one by its key."""


@overload
def simulate(events: Any = None, *, epsilon: float | None = None, **options: Any) -> Run: ...


@overload
def simulate(events: Any = None, *, epsilon: Sequence[float], **options: Any) -> Sweep: ...


def simulate(  # type: ignore[misc]  # the overloads only say when a list gives a Sweep
    events: Any = None,
    *,
    epsilon: float | Sequence[float] | None = None,
    rounds: int | Sequence[int] | None = None,
    sites: int | Sequence[int] | None = None,
    split_by: str | None = None,
    trust: str | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | Sequence[int] | None = None,
    out: str | int | os.PathLike[str] | None = None,
    scenario: str | os.PathLike[str] | None = None,
    format: str = "",  # noqa: A002 the word of the command line
    catalogue: str | os.PathLike[str] | None = None,
    aggregation: str | None = None,
    baselines: bool | None = None,
    workers: int | None = None,
    progress: bool | Observer = True,
) -> Run | Sweep:
    """Run a private federation on this machine; return it when it has ended.

    ``events``: a path, a data frame (polars, pandas, a dict of columns) or a registered dataset; left out: a synthetic
    marketplace. ``epsilon=None`` keeps the scenario's; ``epsilon=math.inf`` trains without privacy. ``settings`` takes
    every setting by its key, as in ``{"model.hidden": 64}``. ``trust``: ``"local"``, each site's own noise is enough, or
    ``"quorum"``, the sum holds it, see docs/privacy.md. A list for epsilon, rounds, sites or seed sweeps: one run
    for each combination, in folders below ``out`` (left out: ``runs/sweep-TIME``). ``progress``: lines on stderr, or an Observer of your own.
    Ctrl-C leaves a run that ``resume(path)`` continues.
    Raises: ConfigError, BadInputError before the work; WorkFailedError if it cannot be finished.

    Example:
        >>> run = simulate(epsilon=[8, 3, 1], rounds=4)  # doctest: +SKIP
    """
    _check_words(progress)
    chosen_by_key = as_settings({} if settings is None else settings)
    single: dict[str, Any] = {"recipe": recipe, "split_by": split_by, "aggregation": aggregation, "trust": trust}
    single |= {"baselines": baselines, "workers": workers, "catalogue": catalogue and str(catalogue)}
    swept = {"epsilon": epsilon, "rounds": rounds, "sites": sites, "seed": seed}
    lists = {name: _listed(name, value) for name, value in swept.items() if _is_list(value)}
    single |= {name: _plain(name, value) for name, value in swept.items() if name not in lists}
    fixed = {name: value for name, value in single.items() if value is not None}
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    named = None if scenario is None else str(scenario)
    with (
        _sweep_folder() if lists and out is None else nullcontext(out) as place,
        _Given(events, format) as given,
    ):
        jobs = [
            _job(named, given | fixed | chosen, chosen_by_key, _place(place, chosen)) for chosen in combinations
        ]
        _require_free(jobs)  # all is checked before the first run starts
        runs = [_run(job, progress) for job in jobs]
    return Sweep(runs) if lists else runs[0]


def resume(path: Place, *, progress: bool | Observer = True) -> Run:
    """Go on with an interrupted simulation; one that has ended is shown again.

    Raises: BadInputError if it is not a run folder; WorkFailedError if it cannot be finished.
    """
    from simulations.jobs import resumed_job

    _check_words(progress)
    return _run(resumed_job(path_of(path), {}), progress)


def _is_list(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether a keyword was given several values: any iterable but a text."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _listed(name: str, values: Iterable[Any]) -> list[Any]:
    """The values of a sweep as Python's own numbers. Raises: ConfigError if there is none."""
    plain = [_plain(name, value) for value in values]
    if not plain:
        raise ConfigError(f"{name} is an empty list, so there is nothing to run", hint="give at least one value")
    twice = [value for n, value in enumerate(plain) if value in plain[:n]]
    if twice:
        raise ConfigError(f"{name} is {twice[0]} twice", hint="sweep over seeds to repeat a run")
    return plain


def _plain(name: str, value: Any) -> Any:
    """A number of numpy as Python's own. Raises: ConfigError for a yes or no, which counts as 1 or 0 elsewhere."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bool):
        raise ConfigError(f"{name} is {plain}, not a number", hint=f"for example {name}=3")
    return plain


def _require_free(jobs: Sequence[Job]) -> None:
    """Return if no folder of these runs is taken. Raises: BadInputError, before the first of them costs an hour."""
    from common.run import require_free

    for job in jobs:
        if job.latest is None:  # somebody has named it
            require_free(job.out)


def _check_words(progress: Any) -> None:
    """What is neither a yes, a no nor an observer is refused by name. Raises: ConfigError."""
    from common.run import Observer

    if not isinstance(progress, bool | Observer):
        raise ConfigError(
            f"progress is {progress!r:.60}", hint="True, False, or an object of a class made from fedcart.Observer"
        )


class _Given:
    """The events as settings, their temporary file for as long as the runs last."""

    def __init__(self, events: Any, format_name: str) -> None:
        if format_name and events is None:
            raise ConfigError(
                f"format={format_name!r} is of events, and none are given", hint="give events, or leave it out"
            )
        self._file = None if events is None else file_of(events)
        self._format = format_name

    def __enter__(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        path = self._file.__enter__()
        return {
            "data.events": str(path),
            "data.format": self._format or "auto",
        }

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.__exit__(*error)


def _job(scenario: str | None, chosen: Mapping[str, Any], settings: Mapping[str, Any], out: Path | None) -> Job:
    from simulations.jobs import coherent, new_job

    by_key = {KEYS.get(name, name): value for name, value in chosen.items()}
    if by_key.get("privacy.epsilon") == float("inf"):
        del by_key["privacy.epsilon"]
        by_key["privacy.enabled"] = False
    return new_job(scenario, coherent(by_key | dict(settings)), (), out)


def _sweep_folder() -> AbstractContextManager[Path]:
    """A folder for the runs of a sweep that nobody has named."""
    from common.run import own_folder
    from simulations.jobs import RUNS

    return own_folder(RUNS / f"sweep-{datetime.now():%Y%m%d-%H%M%S}")


def _place(out: str | int | os.PathLike[str] | None, chosen: Mapping[str, Any]) -> Path | None:
    if out is None:
        return None
    if not isinstance(out, str | int | os.PathLike):
        raise ConfigError(f"out is a {type(out).__name__}, not a folder", hint='for example out="first"')
    folder = Path(str(out) if isinstance(out, int) else out)
    return folder if not chosen else folder / "-".join(f"{name}-{value}" for name, value in chosen.items())


def _run(job: Job, progress: bool | Observer) -> Run:
    from simulations.jobs import in_its_folder

    with in_its_folder(job) as mine:
        return _run_there(mine, progress)


def _run_there(job: Job, progress: bool | Observer) -> Run:
    from common.run import Observer, RunFolder
    from simulations.run import simulate as run_simulation

    watcher = progress if isinstance(progress, Observer) else Lines(job) if progress else Observer()
    try:
        run_simulation(job.config, job.out, watcher, resume=job.resume)
    except KeyboardInterrupt:
        begun = (
            f"; to go on: fedcart.resume({str(job.out)!r})" if RunFolder.is_one(job.out) else ", nothing had begun"
        )
        print(f"interrupted{begun}", file=sys.stderr)  # noqa: T201
        raise
    if job.latest is not None:
        link_atomic(job.latest, job.out)
    return open_run(job.out)
