"""``fedcart detect``: anomalous behaviour of a site's own consumers, with the shared model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import cli.options as options
import cli.show as show
from cli.stream import Limits
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.anomalies.detection import Detection
    from client.anomalies.evidence import Verdict
    from client.scoring.consumers import LocalLog
    from client.scoring.model import SharedModel
    from client.scoring.place import ModelPlace

app = typer.Typer(add_completion=False)
_SHOWN = 20
Columns = dict[str, list[Any]]

Past = Annotated[
    Path | None, typer.Argument(metavar="EVENTS", help="your event log; with --follow: what came before")
]
Reference = Annotated[
    Path | None, typer.Option(metavar="FILE", help="earlier events that count as usual; else the log itself")
]
Threshold = Annotated[
    Literal["adaptive", "fixed", "cross-validated"], typer.Option(help="how a score becomes an alarm")
]
At = Annotated[
    float, typer.Option(help="fixed threshold; 1: as odd as the oddest hundredth of the reference", min=0)
]
Rate = Annotated[float, typer.Option(help="adaptive: share of recent behaviour to report", min=1e-6, max=0.5)]
Days = Annotated[float, typer.Option(help="adaptive: how many days count as recent", min=1)]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="known anomalies (consumer,kind): quality per kind")
]
Feedback = Annotated[
    Path | None, typer.Option(metavar="FILE", help="your verdicts (consumer,verdict): evidence for the threshold")
]
Per = Annotated[Literal["consumer", "window", "event"], typer.Option(help="a line for each")]
Follow = Annotated[
    bool, typer.Option("--follow", help="score events from standard input: JSON lines in, JSON lines out")
]
Kept = Annotated[int, typer.Option(metavar="N", help="--follow: consumers kept in memory", min=1)]


@app.command(epilog="Example: fedcart detect runs/latest shop.csv --out alarms.csv --feedback verdicts.csv")
def detect(
    model: options.Model,
    events: Past = None,
    reference: Reference = None,
    threshold: Threshold = "adaptive",
    at: At = 1.0,
    rate: Rate = 0.01,
    days: Days = 30.0,
    labels: Labels = None,
    feedback: Feedback = None,
    per: Per = "consumer",
    follow: Follow = False,
    consumers: Kept = 100_000,
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    out: options.Out = None,
    with_ids: options.WithIds = False,
    shared_only: options.SharedOnly = False,
    state: options.State = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Find bots, takeovers, brushing and fake reviews in your own log. Nothing leaves this machine.

    A score of 0 is usual behaviour, 1 is as odd as the oddest hundredth of the reference. Verdicts given with
    --feedback are remembered in the state folder and count in later calls too: a no quietens that consumer for 30 days,
    many together move the threshold; `fedcart review MODEL --list` shows them.
    """
    reading = options.ReadOptions(format, catalogue, site, state, with_ids, shared_only)
    if follow:
        from cli.stream import follow_stream

        follow_stream(model, events, Limits(rate, consumers), reading)
        return
    if events is None:
        raise BadInputError("no event log given", hint="name one, or use --follow to read events as they come")
    options.check_out(out, force)
    _report(
        model,
        events,
        reading,
        DetectOptions((threshold, at, rate, days), reference, labels, feedback, per),
        options.Target(out, json, "scores"),
    )


@dataclass(frozen=True)
class DetectOptions:
    """What is to be detected. ``thresholding``: the fields of ``client.anomalies.detection.Thresholding``."""

    thresholding: tuple[str, float, float, float]
    reference: Path | None
    labels: Path | None
    feedback: Path | None
    per: str


def _report(
    model: Path, events: Path, reading: options.ReadOptions, asked: DetectOptions, target: options.Target
) -> None:
    from client.anomalies import tables

    shared, log = options.open_both(model, events, reading)
    detected, facts, verdicts = _detect(shared, log, asked, options.place_of(model, reading))
    if asked.per == "event":
        columns = tables.event_table(shared, log, detected)
    else:
        columns = tables.score_table(log, detected, verdicts, per_window=asked.per == "window")
    if not options.delivered(columns, facts, target, private=reading.with_ids):
        _print(facts, columns, asked.per, target.out)


def _detect(
    shared: SharedModel, log: LocalLog, asked: DetectOptions, place: ModelPlace
) -> tuple[Detection, dict[str, Any], dict[int, Verdict]]:
    from client.anomalies import detection, judging
    from client.anomalies.feedback import read_verdicts
    from client.anomalies.verdicts import VerdictBook
    from client.scoring.consumers import load_local

    labels = detection.read_labels(asked.labels, log) if asked.labels else None
    usual = load_local(asked.reference, place.format, log.key).log if asked.reference else None
    thresholding = detection.Thresholding(*asked.thresholding)
    detected = detection.detect(shared, log.log, thresholding, reference=usual, labels=labels)
    book = VerdictBook(place.home)
    if asked.feedback:
        book.say(read_verdicts(asked.feedback, log, judging.oddest(detected)))
    verdicts = book.standing()
    detected, notes, warning = judging.judged(detected, verdicts)
    if warning:
        show.warning(warning)
    facts: dict[str, Any] = {
        "consumers": len(detected.best),
        "windows": len(detected.scores),
        "alarms": int(detected.alarms().sum()),
        "threshold": {"kind": thresholding.kind, "level": detected.level},
        "verdicts": len(verdicts),
        "notes": [*detected.notes, *notes],
        "warnings": [warning] if warning else [],
    }
    if labels is not None:
        facts["quality"] = [asdict(row) for row in detection.evaluate(detected, labels)]
    return detected, facts, {one.consumer: one for one in sorted(verdicts, key=lambda one: one.number)}


def _print(facts: dict[str, Any], columns: Columns, per: str, out: Path | None) -> None:
    level = facts["threshold"]
    typer.echo(
        f"{facts['alarms']:,} of {facts['consumers']:,} consumers have an anomalous stretch "
        f"({level['kind']} threshold, {level['level']:.3f})"
    )
    for note in facts["notes"]:
        show.note(note)
    if "quality" in facts:
        _print_quality(facts["quality"])
    if out is not None:
        typer.echo(f"{len(columns['consumer']):,} lines: {out}")
    elif per != "event":
        order = sorted(range(len(columns["score"])), key=lambda i: -columns["score"][i])[:_SHOWN]
        rows = [_line(columns, i) for i in order]
        show.table(
            "highest scores", ("consumer", "score", "alarm", "from", "to", "events", "past", "verdict"), rows
        )
    else:
        order = sorted(range(len(columns["surprise"])), key=lambda i: -columns["surprise"][i])[:_SHOWN]
        rows = [
            (*(str(columns[n][i]) for n in ("consumer", "time", "event", "item")), f"{columns['surprise'][i]:.2f}")
            for i in order
        ]
        show.table("most surprising events", ("consumer", "time", "event", "item", "nats"), rows)


def _line(columns: Columns, i: int) -> tuple[str, ...]:
    cells = [columns["consumer"][i], f"{columns['score'][i]:.2f}", "yes" if columns["anomaly"][i] else ""]
    cells += [columns[name][i] for name in ("begin", "end")]
    cells += [f"{columns[name][i]:,}" for name in ("events", "past")]
    return (*cells, columns["verdict"][i])


def _print_quality(quality: list[dict[str, Any]]) -> None:
    methods = list(quality[0]["auc"])
    rows = [
        (
            row["kind"],
            f"{row['anomalies']:,}",
            *(show.number(row[name]) for name in ("precision", "recall", "f1")),
            *(show.number(row["auc"][method]) for method in methods),
        )
        for row in quality
    ]
    columns = ("kind", "known", "precision", "recall", "F1", "AUC", *(f"AUC {m}" for m in methods[1:]))
    show.table("quality on your labels", columns, rows)
