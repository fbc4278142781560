"""``fedcart explain``: which events led to a prediction or an alarm, as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.consumers import LocalLog
    from client.scoring.explain import Explanation
    from client.scoring.model import SharedModel
    from common.data import ConsumerSequences

app = typer.Typer(add_completion=False)
_BAR = 24
PICTURES = (".svg", ".html")

Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", help="id as in the file, or a printed pseudonym")]
About = Annotated[
    Literal["item", "category", "event", "intent", "alarm"] | None,
    typer.Option(help="what to explain; left out: the next item, or intent for a model of intent"),
]
Choice = Annotated[str, typer.Option(metavar="NAME", help="this item, not the most probable one")]
Top = Annotated[
    int, typer.Option("--top", metavar="K", help="the K most probable choices side by side", min=1, max=12)
]
Method = Annotated[
    Literal["gradients", "occlusion"], typer.Option(help="integrated gradients, or leaving each event out")
]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="write a picture: .svg or .html")]


@app.command(epilog="Example: fedcart explain c1042 runs/latest shop.csv --about item --out why.svg")
def explain(
    consumer: Consumer,
    model: options.Model,
    events: options.Events,
    about: About = None,
    choice: Choice = "",
    top: Top = 1,
    method: Method = "gradients",
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    out: Picture = None,
    with_ids: options.WithIds = False,
    shared_only: options.SharedOnly = False,
    state: options.State = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Show which events drove an answer. A picture shows a consumer's events: it is written with mode 0600."""
    options.check_out(out, force, PICTURES)
    if top > 1 and choice:
        raise BadInputError("--choice names one, --top the most probable ones", hint="leave one of them out")
    shared, log = options.open_both(
        model, events, options.ReadOptions(format, catalogue, site, state, with_ids, shared_only)
    )
    from client.scoring.predict import available

    question = Question(consumer, about or (*available(shared), "intent")[0], choice, method)
    tell = _tell_one if top == 1 else partial(_tell_choices, top)
    tell(shared, log, question, out, json=json)


@dataclass(frozen=True)
class Question:
    """What is to be explained of whom."""

    consumer: str
    about: str
    choice: str
    method: str


def _tell_one(shared: SharedModel, log: LocalLog, asked: Question, out: Path | None, *, json: bool) -> None:
    from client.scoring.explain import explain as explained

    who = log.find(asked.consumer)
    sequences = shared.sequences(log.at(who))
    explanation = explained(shared, sequences, asked.about, asked.choice, asked.method, now_us=_latest(log))
    lines = _lines(shared, sequences, explanation)
    name = log.shown(who)
    title = f"consumer {name}: {_title(explanation)}"
    if out is not None:
        _draw(out, title, explanation, lines)
    if json:
        written = {"file": str(out)} if out else {}
        show.print_json({"consumer": name, **_facts(explanation), "events": lines, **written})
        return
    _print(title, explanation, lines)
    _say_beside(shared, explanation)
    if out is not None:
        typer.echo(f"picture: {out}")


def _tell_choices(
    top: int, shared: SharedModel, log: LocalLog, asked: Question, out: Path | None, *, json: bool
) -> None:
    """The most probable answers side by side."""
    from client.scoring.explain import explain_choices

    who = log.find(asked.consumer)
    sequences = shared.sequences(log.at(who))
    found = explain_choices(shared, sequences, asked.about, top, asked.method)
    lines = _lines(shared, sequences, found[0])
    for place, line in enumerate(lines):
        line.pop("contribution")
        line["contributions"] = {one.choice: float(one.contributions[place]) for one in found}
    name = log.shown(who)
    title = f"consumer {name}: the {len(found)} most probable next {asked.about}s"
    if out is not None:
        _draw_choices(out, title, found, [_label(line) for line in lines])
    if json:
        written = {"file": str(out)} if out else {}
        show.print_json({"consumer": name, "choices": [_facts(one) for one in found], "events": lines, **written})
        return
    rows = [
        (line["time"], line["event"], line["item"], *(f"{value:+.3f}" for value in line["contributions"].values()))
        for line in lines
    ]
    heads = [f"{one.choice} {one.probability:.1%}" for one in found]
    show.table(title, ("time", "event", "item", *heads), rows, words=("event", "item"))
    if out is not None:
        typer.echo(f"picture: {out}")


def _draw_choices(out: Path, title: str, found: list[Explanation], labels: list[str]) -> None:
    from client.scoring.choices_picture import draw

    _write(out, title, draw(title, found, labels))


def _latest(log: LocalLog) -> int:
    """A question about days is asked at the log's last event, as by `predict`. Units: microseconds since 1970."""
    return int(log.log.frame["timestamp"].to_physical().to_numpy().max())


def _say_beside(shared: SharedModel, found: Explanation) -> None:
    """What the picture leaves out: own counts have no gradient, only leaving events out shows what they say."""
    personal = shared.personal.kept.personal if shared.personal is not None else None
    share = personal.shares.get(f"next-{found.about}") if personal is not None else None
    if share is None or not share.counts or found.method != "gradients":
        return
    show.note(
        f"your own counts say {share.counts:.0%} of this answer, the rest is explained: --method occlusion shows both"
    )


def _facts(found: Explanation) -> dict[str, Any]:
    return {
        "about": found.about,
        "choice": found.choice,
        "probability": found.probability,
        "method": found.method,
        "score": found.total,
        "score_without_events": found.empty,
    }


def _title(found: Explanation) -> str:
    if found.about == "alarm":
        return f"mean surprise {found.total:.2f} nats per event"
    if found.about == "intent":
        return f"will buy, probability {found.probability:.1%}"
    return f"next {found.about} {found.choice}, probability {found.probability:.1%}"


def _lines(shared: SharedModel, sequences: ConsumerSequences, found: Explanation) -> list[dict[str, Any]]:
    types = ("", *shared.spec.event_types)
    columns = [sequences.column(name) for name in ("event", "item", "category")]
    lines = []
    for place, stamp in enumerate(sequences.timestamps):
        event, item, category = (int(column[place]) for column in columns)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(int(stamp) / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "event": types[event],
            "item": shared.item_name(item),
            "category": shared.category_name(category),
            "contribution": float(found.contributions[place]),
        }
        if found.attention is not None:
            line["attention"] = float(found.attention[place])
        lines.append(line)
    return lines


def _print(title: str, found: Explanation, lines: list[dict[str, Any]]) -> None:
    largest = max((abs(line["contribution"]) for line in lines), default=0.0) or 1.0
    columns = ["time", "event", "item", "category", "contribution", ""]
    rows = []
    for line in lines:
        length = round(_BAR * abs(line["contribution"]) / largest)
        bar = ("+" if line["contribution"] >= 0 else "-") * length
        cells = [line["time"], line["event"], line["item"], line["category"], f"{line['contribution']:+.3f}"]
        cells.append(bar.ljust(_BAR, "·"))
        if found.attention is not None:
            cells.append(f"{line['attention']:.0%}")
        rows.append(cells)
    show.table(title, columns + (["attention"] if found.attention is not None else []), rows)
    if found.method == "gradients":
        show.note(
            f"contributions add up to {found.total - found.empty:+.3f} nats, the difference that the events make"
        )


def _draw(out: Path, title: str, found: Explanation, lines: list[dict[str, Any]]) -> None:
    from client.scoring.picture import AttributionBar, svg

    bars = [
        AttributionBar(
            _label(line),
            line["contribution"],
            line.get("attention"),
        )
        for line in lines
    ]
    words = {"gradients": "integrated gradients", "occlusion": "leaving each event out", "surprise": "surprise"}
    _write(out, title, svg(title, f"{words[found.method]}, in nats", bars))


def _label(line: dict[str, Any]) -> str:
    return " · ".join(part for part in (line["time"], line["event"], line["item"] or line["category"]) if part)


def _write(out: Path, title: str, picture: str) -> None:
    """A picture shows a consumer's events: its owner only may read it."""
    from common.atomic import write_atomic
    from common.pages.drawing import html_page
    from common.pages.rendering import harmless

    content = html_page(title, picture) if out.suffix == ".html" else picture
    write_atomic(out, harmless(content).encode(), mode=0o600)
