"""``fedcart watch``: alarms as they happen, from events on standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.options as options
import cli.show as show

if TYPE_CHECKING:
    from client.scoring.place import ModelPlace

app = typer.Typer(add_completion=False)

Before = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="what came before: says what is usual, and what consumers did until now"),
]
Rate = Annotated[float, typer.Option(help="share of recent behaviour to report", min=1e-6, max=0.5)]
Kept = Annotated[int, typer.Option(metavar="N", help="consumers kept in memory", min=1)]
JsonLines = Annotated[bool, typer.Option("--json", help="print one JSON object per alarm")]
NONE_LEFT = (
    "verdicts leave no alarm: not one ordinary stretch is beyond the threshold; `fedcart review MODEL --list`"
)


@app.command(epilog="Example: tail -f events.jsonl | fedcart watch runs/latest --events shop.csv")
def watch(
    model: options.Model,
    events: Before = None,
    rate: Rate = 0.01,
    consumers: Kept = 100_000,
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    shared_only: options.SharedOnly = False,
    state: options.State = None,
    json: JsonLines = False,
) -> None:
    """Report bots, takeovers, brushing and fake reviews as they happen: events on standard input, a line per alarm.

    Events are JSON lines (consumer, timestamp, event; item, category, price where known) or CSV with a header. Alarms
    are kept in the state folder for `fedcart review`. Nothing leaves this machine.
    """
    from client.anomalies.alarms import AlarmBook
    from client.anomalies.words import one_alarm
    from client.scoring.lines import bounded
    from common.strict_json import one_line

    place = options.place_of(model, options.ReadOptions(format, catalogue, site, state, False, shared_only))
    reading = options.ReadOptions(place.format, catalogue, place.site, place.state, False, shared_only)
    ready = _ready(place, events, (rate, consumers), reading)
    live = ready.live
    book, found, wrong = AlarmBook(place.home), 0, 0
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a broken character must not end the stream
    show.note(f"alarms from a score of {live.threshold:.2f} on, {len(live):,} consumers known; reading events")
    for answer in ready.take(bounded(sys.stdin)):
        if isinstance(answer, tuple):
            wrong += 1
            show.note(f"line {answer[0]} left out: {answer[1].message}")
            continue
        book.add(answer)
        found += 1
        for line in [one_line(answer.to_json())] if json else one_alarm(answer):
            show.line(line)
        sys.stdout.flush()
    show.note(f"{found:,} alarms, {wrong:,} unusable lines, {len(live):,} consumers in memory")


def _ready(place: ModelPlace, events: Path | None, limits: tuple[float, int], reading: options.ReadOptions) -> Any:
    """Model and detector, warm, with what people said so far."""
    from client.anomalies.verdicts import VerdictBook
    from client.anomalies.watching import Watch
    from client.scoring.consumers import load_local, local_key

    shared, key = options.open_at(place, reading), local_key(place.state)
    past = None if events is None else (load_local(events, place.format, key).log, events.name)
    rate, capacity = limits
    ready = Watch.after(shared, past, key=key, news=VerdictBook(place.home).news, rate=rate, capacity=capacity)
    if ready.live.moved and not ready.live.left:
        show.warning(NONE_LEFT)
    return ready
