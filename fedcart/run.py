"""``Run``: a run folder as tables, for a notebook; ``Sweep``: several of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from common.errors import BadInputError
from common.run import INTERRUPTED, RoundRecord, RunFolder, Summary
from fedcart.places import Place, flat, path_of

if TYPE_CHECKING:
    import polars as pl

    from common.audit.verdict import VerifyReport
    from fedcart.comparison import Comparison
    from fedcart.model import BehaviourModel, SalesForecaster
    from fedcart.picture import Picture


@dataclass(frozen=True)
class Run:
    """A run by its folder, finished or under way. Nothing is kept in memory but what was asked for."""

    path: Path

    @property
    def folder(self) -> RunFolder:
        """Typed reads of every file."""
        return RunFolder(self.path)

    @property
    def summary(self) -> Summary:
        """How it stands or ended."""
        return self.folder.summary() or Summary(INTERRUPTED)

    @property
    def status(self) -> str:
        """completed, failed, stopped, interrupted or running."""
        return self.summary.status

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as ``section.key`` -> value."""
        return flat(self.folder.settings_as_written())

    @property
    def rounds(self) -> list[RoundRecord]:
        """One record per round, as in ``metrics.jsonl``."""
        return self.folder.metrics()

    @property
    def metrics(self) -> pl.DataFrame:
        """A line per round: its numbers as ``released_*``, ``public_*`` and ``oracle_*``, sites, bytes, seconds.

        *released* is noised and charged, *public* follows from settings or released sums, *oracle* is a simulation's
        own knowledge.
        """
        import polars as pl

        return pl.DataFrame([_line(record) for record in self.rounds], infer_schema_length=None)

    @property
    def epsilon(self) -> pl.DataFrame:
        """Epsilon spent so far: a line per round, a column per site; from the sites' signed attestations (public).

        What a site was asked and did not attest counts as spent; null: nothing of the site is known yet.
        """
        import polars as pl

        rounds = self.rounds
        sites = sorted(
            {site for record in rounds for site in (*record.epsilon, *record.sites)}
            if any(record.private for record in rounds)
            else ()
        )
        columns: dict[str, list[Any]] = {"round": [record.round for record in rounds]}
        values = {site: [record.epsilon.get(site) for record in rounds] for site in sites}
        return pl.DataFrame(columns | values, schema_overrides=dict.fromkeys(sites, pl.Float64))

    def audit(self, *, every_round: bool = False) -> VerifyReport:
        """Verify the record offline: every finding, ``.ok``, ``.raise_if_broken()``."""
        from fedcart.verification import verify

        return verify(self, every_round=every_round)

    def model(self) -> BehaviourModel | SalesForecaster:
        """The trained model. Raises: BadInputError if the run gave none."""
        from fedcart.model import open_model

        return open_model(self)

    def plot(self, metric: str = "") -> Picture:
        """A metric over rounds, released and oracle; left out: the first of the usual ones that was measured.

        ``epsilon`` plots what was spent at the worst site. Raises: BadInputError for a metric that was not measured.
        """
        from common.pages.charts import Axis, Series, line_chart
        from fedcart.picture import Picture

        rounds, name = self.rounds, metric or self._usual_metric
        if name == "epsilon":
            spent = [(float(r.round), r.worst_epsilon) for r in rounds if r.worst_epsilon is not None]
            drawing = line_chart([Series("epsilon", "public", spent)], Axis(from_zero=True), label="epsilon spent")
            return Picture("epsilon spent at the worst site (public)", str(drawing))
        lines = [
            Series(
                kind, kind, [(float(r.round), r.metrics[kind][name]) for r in rounds if name in r.metrics[kind]]
            )
            for kind in ("oracle", "released")
        ]
        if not any(line.finite for line in lines):
            known = sorted({key for r in rounds for kind in ("oracle", "released") for key in r.metrics[kind]})
            raise BadInputError(
                f"this run has not measured {name!r}", hint=f"measured: {', '.join(known) or 'nothing'}"
            )
        return Picture(f"{name} over rounds", str(line_chart(lines, Axis(), label=f"{name} over rounds")))

    @cached_property
    def _usual_metric(self) -> str:
        known = {name for record in self.rounds for values in record.metrics.values() for name in values}
        usual = ("recall@20", "intent_auc", "wape", "loss")
        return next((name for name in usual if name in known), next(iter(sorted(known)), "loss"))

    def _repr_html_(self) -> str:
        from html import escape

        head = f"<p><b>{escape(self.path.name)}</b>: {escape(self.status)}, {len(self.rounds)} records</p>"
        return head + (self.metrics._repr_html_() if self.rounds else "")


class Sweep(Sequence[Run]):
    """The runs of a sweep, in the order in which they were asked for."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> Sweep: ...

    def __getitem__(self, index: int | slice) -> Run | Sweep:
        return Sweep(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"Sweep({', '.join(run.path.name for run in self._runs)})"

    def compare(self) -> Comparison:
        """What differs between the runs: settings, quality, epsilon, time."""
        from fedcart.comparison import compare

        return compare(*self)

    def _repr_html_(self) -> str:
        return self.compare()._repr_html_()


def open_run(path: Place) -> Run:
    """Open a run folder, finished or under way. Raises: BadInputError if it is not one.

    Example:
        >>> open_run("runs/latest").epsilon  # doctest: +SKIP
    """
    return Run(RunFolder.open(path_of(path)).path)


def _line(record: RoundRecord) -> dict[str, Any]:
    numbers = {
        f"{kind}_{name}": value for kind, values in record.metrics.items() for name, value in values.items()
    }
    return {
        "round": record.round,
        "kind": record.kind,
        "aborted": record.aborted,
        "sites": record.answered,
        **numbers,
        "epsilon_worst": record.worst_epsilon,
        "bytes": record.bytes_up + record.bytes_down,
        "seconds": record.seconds,
    }
