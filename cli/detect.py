"""``fedcart detect``: anomalous behaviour of a site's own consumers, with the shared model."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import local, show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.anomalies.detection import Detection
    from client.anomalies.feedback import Verdict
    from client.scoring.consumers import LocalLog
    from client.scoring.model import SharedModel

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
    Path | None, typer.Option(metavar="FILE", help="your verdicts (consumer,verdict): move the threshold")
]
Per = Annotated[Literal["consumer", "window", "event"], typer.Option(help="a line for each")]
Follow = Annotated[
    bool, typer.Option("--follow", help="score events from standard input: JSON lines in, JSON lines out")
]
Kept = Annotated[int, typer.Option(metavar="N", help="--follow: consumers kept in memory", min=1)]


@app.command(epilog="Example: fedcart detect runs/latest shop.csv --out alarms.csv --feedback verdicts.csv")
def detect(
    model: local.Model,
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
    format: local.Format = "",
    catalogue: local.CatalogueFile = None,
    site: local.SiteName = "",
    out: local.Out = None,
    with_ids: local.WithIds = False,
    state: local.State = None,
    force: local.Force = False,
    json: local.Json = False,
) -> None:
    """Find bots, takeovers, brushing and fake reviews in your own log. Nothing leaves this machine.

    A score of 0 is usual behaviour, 1 is as odd as the oddest hundredth of the reference. Verdicts given with
    --feedback are remembered in the state folder and apply to later calls too.
    """
    if follow:
        from cli.stream import follow_stream

        follow_stream(model, events, (rate, consumers), (format, catalogue, site, state, with_ids))
        return
    if events is None:
        raise BadInputError("no event log given", hint="name one, or use --follow to read events as they come")
    local.check_out(out, force)
    shared, log = local.open_both(model, events, format, (catalogue, site, state, with_ids))
    files = (reference, labels, feedback, state, format)
    found, facts, verdicts = _detect(shared, log, (threshold, at, rate, days), files)
    columns = _columns(shared, log, found, verdicts, per)
    if out is not None:
        local.write_rows(out, columns, private=with_ids)
        facts["file"] = str(out)
    if json:
        show.print_json(facts | ({} if out else {"scores": local.lines_of(columns)}))
    else:
        _print(facts, columns, per, out)


def _detect(
    shared: SharedModel,
    log: LocalLog,
    asked: tuple[str, float, float, float],
    files: tuple[Path | None, Path | None, Path | None, Path | None, str],
) -> tuple[Detection, dict[str, Any], dict[int, Verdict]]:
    from dataclasses import replace

    from client.anomalies import detection
    from client.anomalies.feedback import moved_threshold, read_verdicts, recall, remember
    from client.scoring.consumers import load_local, state_folder

    reference, label_file, feedback, state, format_name = files
    labels = detection.read_labels(label_file, log) if label_file else None
    usual = load_local(reference, format_name, log.key).log if reference else None
    found = detection.detect(shared, log.log, detection.Thresholding(*asked), reference=usual, labels=labels)
    scores = found.score_of()
    home = state_folder(state)
    verdicts = remember(home, read_verdicts(feedback, log, scores)) if feedback else recall(home)
    level = moved_threshold(found.level, verdicts, scores)
    notes = list(found.notes)
    if level != found.level:
        notes.append(
            f"{len(verdicts):,} remembered verdicts move the threshold from {found.level:.3f} to {level:.3f}"
        )
        found = replace(found, thresholds=found.thresholds + level - found.level, level=level)
    facts: dict[str, Any] = {
        "consumers": len(found.best),
        "windows": len(found.scores),
        "alarms": int(found.alarms().sum()),
        "threshold": {"kind": asked[0], "level": found.level},
        "verdicts": len(verdicts),
        "notes": notes,
    }
    if labels is not None:
        facts["quality"] = [asdict(row) for row in detection.evaluate(found, labels)]
    return found, facts, verdicts


def _columns(
    shared: SharedModel, log: LocalLog, found: Detection, verdicts: dict[int, Verdict], per: str
) -> Columns:
    if per == "event":
        return _event_columns(shared, log, found)
    windows, consumers = found.scored.windows, found.scored.sequences.consumers
    alarms = found.alarms()
    order = range(len(windows)) if per == "window" else [int(w) for w in found.which[found.which >= 0]]
    names = (
        "consumer",
        "score",
        "threshold",
        "anomaly",
        "begin",
        "end",
        "events",
        "past",
        "unlike_own_past",
        "verdict",
    )
    columns: Columns = {name: [] for name in names}
    for w in order:
        row = int(windows.row[w])
        who, verdict = int(consumers[row]), verdicts.get(int(consumers[row]))
        over = bool(found.scores[w] >= found.thresholds[w]) if per == "window" else bool(alarms[row])
        begin, end = int(windows.begin[w]), int(windows.end[w])
        stamps = found.scored.sequences.timestamps
        said = "" if verdict is None else "anomaly" if verdict.anomaly else "normal"
        line = (log.shown(who), float(found.scores[w]), float(found.thresholds[w]), over, _when(stamps[begin]))
        line2 = (_when(stamps[end - 1]), end - begin, int(windows.past[w]), float(windows.ratio[w]), said)
        for column, value in zip(columns.values(), line + line2, strict=True):
            column.append(value)
    return columns


def _event_columns(shared: SharedModel, log: LocalLog, found: Detection) -> Columns:
    import numpy as np

    sequences = found.scored.sequences
    nats = found.scored.nats
    owner = np.repeat(sequences.consumers, sequences.lengths)
    types = ("", *shared.spec.event_types)
    return {
        "consumer": [log.shown(int(who)) for who in owner],
        "time": [_when(t) for t in sequences.timestamps],
        "event": [types[int(e)] for e in sequences.column("event")],
        "item": [shared.item_name(int(i)) for i in sequences.column("item")],
        "surprise": np.nansum(nats, axis=1).astype(float).tolist(),
        **{name.replace("-", "_"): nats[:, i].astype(float).tolist() for i, name in enumerate(found.scored.heads)},
    }


def _when(stamp: Any) -> str:
    return datetime.fromtimestamp(int(stamp) / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")


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
