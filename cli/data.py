"""``fedcart data``: check, describe or synthesise event logs; build a catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from common.data import CleaningReport, EventLog
    from common.data.describe import Description
    from common.data.store.logs import OpenedLog
    from simulations.synthetic import SyntheticSpec

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Check, describe or synthesise event logs; build a catalogue. The formats are in docs/data.md.",
)

_SHOWN_SITES = 40

_EVENTS = typer.Argument(
    metavar="FILE...", help="event log: files, folders or patterns; - for standard input", show_default=False
)
Events = Annotated[list[str], _EVENTS]
NoEvents = Annotated[list[str] | None, _EVENTS]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="A=B", help="what a column is, as in consumer=user_id; or a setting of a mapping"
    ),
]
Source = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="TOML file with a table [source]: a database, or SQL over files"),
]
Limit = Annotated[int, typer.Option(metavar="N", help="lines that are read of a source; 0: all", min=0)]
Format = Annotated[
    str, typer.Option(metavar="NAME", help="preset or TOML mapping; left out: recognised by the columns")
]
SplitBy = Annotated[str, typer.Option(metavar="COLUMN", help="column of the file that names the site")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value")]


@app.command(epilog="Example: fedcart data check online_retail.csv.gz --format online-retail")
def check(
    file: NoEvents = None,
    source: Source = None,
    limit: Limit = 10_000,
    format: Format = "",
    map_: Map = None,
    write_mapping: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write what the file was taken for: .toml, for site.toml")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
    json: Json = False,
) -> None:
    """Read and clean an event log; say what it was taken for, what was dropped or changed, and why."""
    if write_mapping is not None:
        from common.data.writing import check_writable

        check_writable(write_mapping, (".toml",))
        _refuse_to_replace((write_mapping,), force)
    from common.atomic import write_atomic
    from common.data.store.logs import Tally

    tally = Tally()
    with show.reading("lines read") as step, _files(file, source, limit, step) as files:
        log = _opened(files, format, "", map_)
        for _ in log.pieces(os.urandom(32), tally, step):
            pass  # counted as it goes by
    report = log.report(tally)
    if write_mapping is not None:
        write_atomic(write_mapping, log.mapping.to_toml().encode())
    if json:
        show.print_json(report.to_json())
        return
    _print_report(report)
    if write_mapping is not None:
        typer.echo(f"the mapping: {write_mapping}")


@contextmanager
def _files(
    named: list[str] | None, source: Path | None, limit: int, step: Callable[[int], None]
) -> Iterator[list[str]]:
    """The files that are named, or what a source gives. Raises: BadInputError unless there is one of both."""
    if bool(named) == (source is not None):
        raise BadInputError("name either files or --source", hint="fedcart data check FILE, or --source shop.toml")
    if source is None:
        yield named or []
        return
    from common.data.store.source_log import spooled

    with spooled(source, limit, step) as path:
        yield [str(path)]


@app.command(epilog="Example: fedcart data describe online_retail.csv.gz --split-by country")
def describe(
    file: NoEvents = None,
    source: Source = None,
    format: Format = "",
    map_: Map = None,
    split_by: SplitBy = "",
    json: Json = False,
) -> None:
    """Statistics per site. True counts of your own data: for your eyes, never part of a release."""
    from common.data.describe import describe_pieces
    from common.data.store.logs import Tally

    tally = Tally()
    with show.reading("lines read") as step, _files(file, source, 0, step) as files:
        log = _opened(files, format, split_by, map_)
        description = describe_pieces(log.pieces(os.urandom(32), tally, step))
    report = log.report(tally)
    if json:
        show.print_json(description.to_json())
        return
    typer.echo(f"{report.source} · format {report.format} · {report.kept:,} of {report.lines:,} lines usable\n")
    _print_description(description)


@app.command(epilog="Example: fedcart data synth market.parquet --events 1000000 --sites 8 --seed 7")
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="file to write: .csv, .csv.gz or .parquet")],
    events: Annotated[int, typer.Option(metavar="N", help="about this many events", min=100)] = 350_000,
    sites: Annotated[int, typer.Option(metavar="S", help="number of unequal merchants", min=1)] = 8,
    seed: Annotated[int, typer.Option(metavar="S", help="same seed, same events", min=0)] = 1,
    items: Annotated[int, typer.Option(metavar="N", help="items over all sites", min=20)] = 1_000,
    anomalies: Annotated[
        float, typer.Option(metavar="F", help="share of consumers with one labelled anomaly", min=0, max=1)
    ] = 0.02,
    overlap: Annotated[
        float, typer.Option(metavar="F", help="share of a site's consumers also drawn elsewhere", min=0, max=1)
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="replace files that exist")] = False,
    json: Json = False,
) -> None:
    """Write a synthetic marketplace: events, the public catalogue, and the labels of injected anomalies."""
    from common.data.writing import SUFFIXES, check_writable

    check_writable(out, SUFFIXES)
    stem = out.name.split(".")[0]
    files = out, out.with_name(f"{stem}.labels.csv"), out.with_name(f"{stem}.catalogue.json")
    _refuse_to_replace(files, force)

    from simulations.synthetic import SyntheticSpec

    people = max(1, round(events / SyntheticSpec.events_per_consumer))
    spec = SyntheticSpec(sites=sites, consumers=people, items=items, anomalies=anomalies, overlap=overlap)
    counts = _write_market(spec, seed, files)
    if json:
        show.print_json({**counts, "files": [str(file) for file in files]})
        return
    typer.echo(f"{counts['events']:,} events of {counts['consumers']:,} consumers at {sites} sites")
    typer.echo(f"  events     {files[0]}  (format fedcart)")
    typer.echo(f"  anomalies  {files[1]}  ({counts['anomalies']:,} labelled)")
    typer.echo(f"  catalogue  {files[2]}")


def _write_market(spec: SyntheticSpec, seed: int, files: tuple[Path, Path, Path]) -> dict[str, int]:
    """Write events, labels and catalogue; what there is of each."""
    from common.data import write_catalogue
    from common.data.writing import write_frame
    from simulations.synthetic import generate

    market = generate(spec, seed)
    write_frame(_with_text_ids(market.log.frame), files[0])
    write_frame(_with_text_ids(market.labels), files[1])
    write_catalogue(market.catalogue, files[2])
    consumers = len(market.log.consumers)
    facts = {"events": len(market.log), "consumers": consumers, "sites": spec.sites}
    return {**facts, "anomalies": market.labels.height}


@app.command(epilog="Example: fedcart data catalogue online_retail.csv.gz --split-by country --out retail.json")
def catalogue(
    file: Events,
    format: Format = "",
    map_: Map = None,
    split_by: SplitBy = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="file to write: .json")] = None,
    max_items: Annotated[int, typer.Option(metavar="N", help="most frequent items; 0: all", min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
    json: Json = False,
) -> None:
    """Write the catalogue of an event log. It shows what consumers touched: an uncharged release, labelled so."""
    from common.data.writing import check_writable

    target = out or Path(f"{Path(file[0]).name.split('.')[0] or 'events'}.catalogue.json")
    check_writable(target, (".json",))
    _refuse_to_replace((target,), force)

    from common.data import catalogue_from_events, write_catalogue
    from common.data.product_names import product_names

    log, _ = _load(file, format, split_by, map_)
    names = product_names(_source_of(file), _format_of(format), map_ or ())
    built = catalogue_from_events(log, max_items=max_items, names=names)
    write_catalogue(built, target)
    if json:
        counts = {"items": len(built.items), "categories": len(built.categories), "sites": len(built.stock)}
        show.print_json({**counts, "source": built.source, "warning": built.warning, "file": str(target)})
        return
    typer.echo(
        f"{len(built.items):,} items, {len(built.categories):,} categories, {len(built.stock)} sites: {target}"
    )
    show.warning(built.warning)


def _format_of(named: str) -> str:
    return named or "auto"


def _source_of(files: list[str]) -> str:
    return os.pathsep.join(files)


def _opened(files: list[str], format_name: str, split_by: str, known: list[str] | None) -> OpenedLog:
    from common.data import said_of
    from common.data.store.logs import OpenedLog

    return OpenedLog.of(
        _source_of(files), _format_of(format_name), site_column=split_by, said=said_of(known or ())
    )


def _load(
    files: list[str], format_name: str, split_by: str, known: list[str] | None = None
) -> tuple[EventLog, CleaningReport]:
    from common.data import load_events, said_of

    # ids are compared within this command only: a secret that nobody keeps is the safest
    secret = os.urandom(32)
    said = said_of(known or ())
    return load_events(_source_of(files), _format_of(format_name), secret=secret, site_column=split_by, said=said)


def _refuse_to_replace(paths: tuple[Path, ...], force: bool) -> None:
    taken = [str(path) for path in paths if path.exists()]
    if taken and not force:
        raise BadInputError(f"already there: {', '.join(taken)}", hint="--force replaces, or choose another name")


def _with_text_ids(frame: Any) -> Any:
    import polars as pl

    ids = frame["consumer"].unique()
    text = pl.Series([f"c{number:016x}" for number in ids], dtype=pl.String)
    return frame.with_columns(frame["consumer"].replace_strict(ids, text, return_dtype=pl.String))


def _print_report(report: CleaningReport) -> None:
    from common.plain_text import shown

    share = report.kept / report.lines
    typer.echo(f"{report.status}: {report.kept:,} of {report.lines:,} lines usable ({share:.1%})")
    for note in report.notes:
        typer.echo(f"  {shown(note, 300)}")
    typer.echo("")
    rows = [
        (
            rule.rule,
            f"{rule.found:,}",
            f"{rule.dropped:,}",
            f"{rule.action}: {rule.reason}",
            shown(rule.example, 100),
        )
        for rule in report.rules
        if rule.found
    ]
    if rows:
        show.table("", ("rule", "lines", "dropped", "what was done", "for example"), rows)
        typer.echo("")
    else:
        typer.echo("no rule found anything to drop or change\n")
    site_note = f", {report.sites:,} sites" if report.sites else ""
    typer.echo(
        f"{report.consumers:,} consumers, {report.items:,} items{site_note}; {report.first} to {report.last}"
    )
    if report.sites_lost:
        typer.echo(f"sites without a usable line: {', '.join(report.sites_lost)}")


def _print_description(description: Description) -> None:
    columns = ("site", "consumers", "events", "per consumer", "items", "purchases", "shared", "first", "last")
    rows = [
        (
            site.site,
            f"{site.consumers:,}",
            f"{site.events:,}",
            f"{site.events_per_consumer:.1f}",
            f"{site.items:,}",
            f"{site.purchases:,}",
            f"{site.shared_events:.0%}",
            site.first[:10],
            site.last[:10],
        )
        for site in description.sites[:_SHOWN_SITES]
    ]
    show.table("", columns, rows)
    if len(description.sites) > _SHOWN_SITES:
        typer.echo(f"and {len(description.sites) - _SHOWN_SITES} smaller sites (all of them with --json)")
    total = f"{description.consumers:,} consumers, {description.events:,} events, {description.items:,} items"
    typer.echo(f"\nin all: {total}, {description.categories:,} categories")
    typer.echo("events: " + ", ".join(f"{name} {count:,}" for name, count in description.event_types.items()))
    low, middle, high = description.per_consumer
    typer.echo(f"events of a consumer: {low:,} at 10 %, {middle:,} at 50 %, {high:,} at 90 %; "
               f"{description.learnable:.1%} have two or more")  # fmt: skip
    time = description.time
    typer.echo(f"time: {time.first} to {time.last}, {time.days:,} days, {time.empty:,} of them without an event")
    for before, after, days in time.gaps:
        typer.echo(f"  nothing for {days:,} days between {before} and {after}")
    if len(description.sites) > 1:
        typer.echo(f"consumers seen at more than one site: {description.overlap:.1%}; items at three or more: "
                   f"{description.shared_items:,}")  # fmt: skip
    typer.echo("this log can serve:")
    for task, why_not in description.tasks:
        typer.echo(f"  {task:<16} {'no: ' + why_not if why_not else 'yes'}")
    if description.advice:
        typer.echo(description.advice)
    show.note("true counts of your own data, for your eyes: they are not released")
