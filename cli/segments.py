"""``fedcart segments``: kinds of consumers, named by what they buy; conversion; an audience to address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.consumers import LocalLog
    from client.scoring.segments import Segments

app = typer.Typer(add_completion=False)
UNSURE, _SHOWN = 0.8, 6

Page = Annotated[Path | None, typer.Option("--page", metavar="FILE", help="write everything with maps as .html")]


@app.command(
    epilog="Example: fedcart segments runs/latest shop.csv --audience 2 --out audience.csv --page segments.html"
)
def segments(
    model: options.Model,
    events: options.Events,
    k: Annotated[
        int, typer.Option("--k", metavar="N", help="how many; left out: what fits best of 3 to 8", min=0)
    ] = 0,
    days: Annotated[int, typer.Option(metavar="N", help="conversion: who bought in the last N days", min=1)] = 28,
    campaign: Annotated[str, typer.Option(metavar="COLUMN", help="conversion by this column of the log too")] = "",
    audience: Annotated[str, typer.Option(metavar="SEGMENT", help="--out: this one only, by number or name")] = "",
    page: Page = None,
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
    """Group consumers by how the model reads them. Nothing leaves this machine.

    --out carries pseudonyms, the same on every call, unless --with-ids (such files get mode 0600).
    """
    options.check_out(out, force)
    options.check_out(page, force, (".html",))
    if audience and out is None:
        raise BadInputError("an audience needs a file", hint="--out audience.csv")
    reading = options.ReadOptions(format, catalogue, site, state, with_ids, shared_only)
    shared, log = options.open_both(model, events, reading)
    from client.scoring.segments import audience_table, find_segments

    named = _campaigns(model, events, reading, campaign, log)
    found = find_segments(shared, log.log, k, days, named)
    only = found.named(audience) if audience else None
    if page is not None:
        _write_page(page, found, shared, log)
    if out is not None:
        options.write_rows(out, audience_table(found, log, only), private=with_ids)
    _tell(found, {name: str(path) for name, path in (("file", out), ("page", page)) if path}, json=json)


def _campaigns(
    model: Path, events: Path, reading: options.ReadOptions, column: str, log: LocalLog
) -> dict[int, str]:
    """The last campaign of each consumer, by a column of the log that is no part of any format."""
    if not column:
        return {}
    from client.scoring.segments import campaigns_of
    from common.data import load_events

    name = options.place_of(model, reading).format or "auto"
    try:
        found = campaigns_of(load_events(events, name, site_column=column, secret=log.key)[0])
    except BadInputError as error:
        message = error.message.replace(" to split by", "")
        raise BadInputError(message, hint="--campaign takes a column of the log") from None
    if not found:
        raise BadInputError(f"the column {column!r} is empty", hint="name the column that holds the campaign")
    return found


def _write_page(path: Path, found: Segments, shared: Any, log: LocalLog) -> None:
    from cli.segments_page import segments_page
    from client.scoring.maps import consumer_map, item_map
    from common.atomic import write_atomic

    maps = {
        "Consumers as the model reads them": consumer_map(found),
        "Items as the model knows them": item_map(shared, log.log),
    }
    write_atomic(path, segments_page(found, maps).encode(), mode=0o644)


def _tell(found: Segments, written: dict[str, str], *, json: bool) -> None:
    if json:
        show.print_json(_facts(found) | written)
        return
    from cli.segments_page import rate_words

    total = len(found.consumers)
    rows = [
        (f"{n}. {one.name}", f"{one.size:,}", options.share(one.size / total), rate_words(one.conversion), "; ".join(p.words for p in one.prefers))
        for n, one in enumerate(found.segments, start=1)
    ]  # fmt: skip
    heads = ("segment", "consumers", "share", f"bought since {found.since:%Y-%m-%d}", "prefers")
    show.table("", heads, rows, words=("prefers",))
    if found.campaigns:
        names = sorted({name for _, name in found.campaigns}, key=lambda name: -found.campaigns["", name].asked)[
            :_SHOWN
        ]
        lines = [
            (segment or "all", *(rate_words(found.campaigns[segment, one]) for one in names))
            for segment in ("", *(one.name for one in found.segments))
        ]
        show.table(
            "by campaign, the last that a consumer's events name", ("", *(one or "none" for one in names)), lines
        )
    rest = len({campaign for _, campaign in found.campaigns}) - _SHOWN
    if rest > 0:
        show.note(f"and {show.count(rest, 'campaign')} of fewer consumers: see --json or --page")
    show.note(f"the same from other seeds: agreement {found.agreement:.2f} (1: the same segments, 0: chance)")
    if found.agreement < UNSURE:
        show.warning("these segments depend on chance: ask for another number with --k")
    for words in written.values():
        typer.echo(f"written: {words}")


def _facts(found: Segments) -> dict[str, Any]:
    def rate(one: Any) -> dict[str, Any]:
        low, high = one.interval
        return {"consumers": one.asked, "bought": one.bought, "rate": one.rate, "low95": low, "high95": high}

    return {
        "consumers": len(found.consumers),
        "since": found.since.isoformat(),
        "agreement": found.agreement,
        "segments": [
            {
                "segment": n,
                "name": one.name,
                "consumers": one.size,
                "conversion": rate(one.conversion),
                "prefers": [
                    {"what": p.what, "share": p.here, "share_of_others": p.elsewhere} for p in one.prefers
                ],
            }
            for n, one in enumerate(found.segments, start=1)
        ],
        "campaigns": [
            {"segment": segment or None, "campaign": campaign or None, **rate(one)}
            for (segment, campaign), one in found.campaigns.items()
        ],
    }
