"""``compare``: runs side by side: the settings that differ, quality, epsilon, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.errors import BadInputError
from common.privacy import show_epsilon
from common.run import INTERRUPTED, RunFolder, Summary, never_attested
from common.strict_json import finite
from fedcart.places import Place, flat, path_of

if TYPE_CHECKING:
    import polars as pl

_NOT_COMPARED = ("name", "data.events")  # names of runs and of files say nothing of what was done
KINDS = ("released", "oracle")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. ``settings``: key -> values in the order of ``names``, only of keys that differ.

    ``metrics``: (kind, name) -> values, None where a run did not measure it; ``bars``: half the width of each released value's
    95 % bar, from its public noise, nan where it has none; ``epsilon``: at the worst site, public;
    ``unknown``: sites of each run that never attested, so what they spent is in no figure.
    """

    names: tuple[str, ...]
    settings: dict[str, tuple[Any, ...]]
    metrics: dict[tuple[str, str], tuple[float | None, ...]]
    epsilon: tuple[float | None, ...]
    seconds: tuple[float, ...]
    status: tuple[str, ...]
    unknown: tuple[tuple[str, ...], ...] = ()
    bars: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def table(self) -> pl.DataFrame:
        """A line per run."""
        import polars as pl

        columns: dict[str, Any] = {"run": self.names, "status": self.status}
        columns |= {key: [_cell(value) for value in values] for key, values in self.settings.items()}
        columns |= {f"{kind}_{name}": values for (kind, name), values in self.metrics.items()}
        return pl.DataFrame(columns | {"epsilon_worst": self.epsilon, "seconds": self.seconds}, strict=False)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = [
            {
                "run": name,
                "status": self.status[i],
                "settings": {key: values[i] for key, values in self.settings.items()},
                "metrics": {
                    kind: {n: values[i] for (k, n), values in self.metrics.items() if k == kind} for kind in KINDS
                },
                "bars": {name: widths[i] for name, widths in self.bars.items()},
                "epsilon": self.epsilon[i],
                "never_attested": list(self.unknown[i]),
                "seconds": self.seconds[i],
            }
            for i, name in enumerate(self.names)
        ]
        return {"runs": finite(plain)}

    def to_html(self) -> str:
        """A page of its own."""
        from common.pages.rendering import templates

        return templates().get_template("compare.html.j2").render(comparison=self, rows=self.rows())

    def rows(self) -> list[tuple[str, str, list[str]]]:
        """(kind, name, a cell per run): kind is setting, released, oracle or public."""
        rows = [("setting", key, [_cell(value) for value in values]) for key, values in self.settings.items()]
        rows += [(kind, name, self._figures(kind, name)) for kind, name in self.metrics]
        rows.append(("public", "ε at the worst site", [_spent_words(value) for value in self.epsilon]))
        if any(self.unknown):
            rows.append(("public", "never attested", [", ".join(sites) or "–" for sites in self.unknown]))
        rows.append(("public", "seconds", [f"{value:.1f}" for value in self.seconds]))
        return [*rows, ("public", "status", list(self.status))]

    def _figures(self, kind: str, name: str) -> list[str]:
        """Values of a metric, released ones with their bars."""
        cells = [_number(value) for value in self.metrics[kind, name]]
        if kind != "released" or name not in self.bars:
            return cells
        widths = self.bars[name]
        told = ["" if math.isnan(w) else f" ± {_number(w) if math.isfinite(w) else '?'}" for w in widths]
        return [cell + bar for cell, bar in zip(cells, told, strict=True)]

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        body = "".join(
            f"<tr><td>{escape(kind)}</td><td>{escape(name)}</td>{''.join(f'<td>{escape(c)}</td>' for c in cells)}</tr>"
            for kind, name, cells in self.rows()
        )
        return f"<table><tr><th></th><th></th>{head}</tr>{body}</table>"


def compare(*runs: Place | Sequence[Place]) -> Comparison:
    """Compare runs by their folders, one by one or in a list. Raises: BadInputError for fewer than two, or what is not a run.

    Example:
        >>> compare("runs/first", "runs/second").table  # doctest: +SKIP
    """
    named = [
        one for run in runs for one in (run if isinstance(run, Sequence) and not isinstance(run, str) else (run,))
    ]
    opened = [RunFolder.open(path_of(run)) for run in named]
    if len(opened) < 2:
        raise BadInputError(f"{len(opened)} run is nothing to compare", hint="name two runs or more")
    settings = [flat(run.settings_as_written()) for run in opened]
    summaries = [run.summary() or Summary(INTERRUPTED) for run in opened]
    keys = sorted(set().union(*settings) - set(_NOT_COMPARED))
    asked = {key: tuple(one.get(key) for one in settings) for key in keys}
    different = {key: values for key, values in asked.items() if len({repr(value) for value in values}) > 1}
    metrics: dict[tuple[str, str], tuple[float | None, ...]] = {}
    for kind in KINDS:
        known = dict.fromkeys(name for s in summaries for name in s.metrics.get(kind, {}))
        metrics |= {(kind, name): tuple(s.metrics.get(kind, {}).get(name) for s in summaries) for name in known}
    return Comparison(
        names=_names(opened),
        settings=different,
        metrics=metrics,
        epsilon=tuple(_spent(run, summary) for run, summary in zip(opened, summaries, strict=True)),
        seconds=tuple(
            s.seconds or sum(r.seconds for r in run.metrics()) for run, s in zip(opened, summaries, strict=True)
        ),
        status=tuple(s.status for s in summaries),
        unknown=tuple(never_attested(run.metrics()) for run in opened),
        bars=_bars(opened, [name for kind, name in metrics if kind == "released"]),
    )


def _bars(runs: list[RunFolder], names: list[str]) -> dict[str, tuple[float, ...]]:
    """Half widths of the last released value of each metric at each run."""
    from server.bars import Bars

    known = [(Bars.of(run), run.metrics()) for run in runs]
    return {name: tuple(bars.width(records, name) for bars, records in known) for name in names}


def _spent(run: RunFolder, summary: Summary) -> float | None:
    """Epsilon at the worst site: of a run that has not ended, what its rounds have cost so far, sum or none."""
    if summary.epsilon:
        return max(summary.epsilon.values())
    rounds = [record.worst_epsilon for record in run.metrics() if record.worst_epsilon is not None]
    return max(rounds, default=None)


def _names(runs: list[RunFolder]) -> tuple[str, ...]:
    """The shortest ends of the paths that tell the runs apart."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return tuple(names)
    return tuple(str(path) for path in paths)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def _spent_words(epsilon: float | None) -> str:
    """Rounded up: no output ever shows less than was spent."""
    return "–" if epsilon is None else show_epsilon(epsilon, 3)


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
