"""``fedcart forecast``: sales of the next days or weeks per category, from a site's own log and the shared model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.forecast import Forecast, SharedSalesModel
    from client.scoring.place import ModelPlace
    from common.data import EventLog

app = typer.Typer(add_completion=False)
PICTURES = (".svg", ".html")
_SHOWN = 24
Until = Annotated[
    str, typer.Option(metavar="DATE", help="last whole day of the log [its last day]; later events are left out")
]
Holidays = Annotated[
    Path | None, typer.Option(metavar="FILE", help="dates (YYYY-MM-DD), one a line or in CSV or TOML")
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="draw a picture: .svg or .html")]


@app.command(epilog="Example: fedcart forecast runs/latest shop.csv --out next-week.csv --plot next-week.svg")
def forecast(
    model: options.Model,
    events: options.Events,
    category: Annotated[str, typer.Option(metavar="NAME", help="only this category, period by period")] = "",
    until: Until = "",
    holidays: Holidays = None,
    format: options.Format = "",
    out: options.Out = None,
    plot: Plot = None,
    state: options.State = None,
    shared_only: options.SharedOnly = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Forecast quantity, revenue and mean price per category, with intervals and the accuracy on your own past.

    Nothing leaves this machine. The shared model was learnt from noised series; your own are read exactly here.
    """
    from client.scoring.forecast import forecast_table

    options.check_out(out, force)
    options.check_out(plot, force, PICTURES)
    reading = options.ReadOptions(format, state=state, shared=shared_only)
    opened = open_sales(model, events, reading, Calendar(until, holidays))
    result, shared = forecast_of(opened), opened.shared
    if category and category not in result.categories:
        known = ", ".join(result.categories[:_SHOWN])
        raise BadInputError(f"the model knows no category {category!r}", hint=f"known: {known}")
    columns = forecast_table(result, category)
    if out is not None:
        options.write_rows(out, columns, private=False)
    if plot is not None:
        _draw(plot, result, shared)
    if json:
        show.print_json(_facts(result, shared, columns, out, plot))
        return
    _print(result, shared, category)
    for path in (out, plot):
        if path is not None:
            typer.echo(f"written: {path}")


@dataclass(frozen=True)
class Calendar:
    """``until``: last whole day of the log, empty: its last; ``holidays``: file of dates."""

    until: str
    holidays: Path | None


@dataclass(frozen=True)
class OpenedSales:
    """A sales model, the log to use it on, and the last day that counts (None: the log's)."""

    shared: SharedSalesModel
    log: EventLog
    until: date | None


def open_sales(model: Path, events: Path, reading: options.ReadOptions, asked: Calendar) -> OpenedSales:
    """Open a sales model and load a log; what is odd about the log is said. Raises: BadInputError."""
    from dataclasses import replace

    from client.scoring import forecast as scoring
    from client.scoring.consumers import load_local, local_key
    from client.scoring.coverage import require_known_sales

    until = _date(asked.until, "--until") if asked.until else None
    dates = _read_holidays(asked.holidays) if asked.holidays else frozenset()
    place = options.place_of(model, reading)
    shared = _with_choice(scoring.open_sales_model(place.folder), place, reading)
    shared = replace(shared, spec=replace(shared.spec, holidays=shared.spec.holidays | dates))
    log = load_local(events, place.format, local_key(place.state))
    if log.dropped:
        show.note(f"{log.dropped:,} unusable lines left out, `fedcart data check {events}` says why")
    if remark := require_known_sales(shared.spec, log.log):
        show.warning(remark)
    if until is None and (remark := scoring.gap_remark(log.log)):
        show.warning(f"{remark}; --until names the last day that counts")
    if remark := scoring.ending_remark(log.log, until):
        show.warning(remark)
    return OpenedSales(shared, log.log, until)


def forecast_of(opened: OpenedSales) -> Forecast:
    """Forecast the log's own series. Raises: BadInputError for a log that is too short."""
    from client.scoring import forecast as scoring

    series, spec = scoring.own_series(opened.shared, opened.log, opened.until)
    return scoring.forecast(opened.shared, series, spec)


def _with_choice(shared: SharedSalesModel, place: ModelPlace, reading: options.ReadOptions) -> SharedSalesModel:
    """The model, or the forecast that the site found to be better on its own past."""
    from dataclasses import replace

    from client.personal.file import load_method

    own = options.personal_file(place, reading)
    return shared if own is None else replace(shared, method=load_method(own))


def _date(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise BadInputError(f"{where}: {text.strip()!r} is not a date", hint="write it as 2024-12-25") from None


def _read_holidays(path: Path) -> frozenset[date]:
    """Every date in a text, CSV or TOML file. Raises: BadInputError for a file without one."""
    import re

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot read {path}: {error}", hint="give a text file with one date a line") from None
    dates = frozenset(_date(word, path.name) for word in re.findall(r"\b\d{4}-\d\d-\d\d\b", text))
    if not dates:
        raise BadInputError(f"{path} holds no date", hint="write dates as 2024-12-25")
    return dates


def _facts(
    found: Forecast, shared: SharedSalesModel, columns: dict[str, list[Any]], out: Path | None, plot: Path | None
) -> dict[str, Any]:
    trends = dict(zip(found.categories, map(float, found.trends), strict=True))
    rows = (
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if out is None
        else []
    )
    return {
        "granularity": shared.spec.granularity,
        "horizon": len(found.periods),
        "begins": found.periods[0].isoformat(),
        "backtest_origins": found.origins,
        "accuracy": found.accuracy,
        "trend": trends,
        "market_trend": shared.market,
        **({"forecast": rows} if out is None else {"file": str(out)}),
        **({"picture": str(plot)} if plot else {}),
    }


def _draw(path: Path, found: Forecast, shared: SharedSalesModel) -> None:
    from client.scoring.forecast_picture import draw

    title = f"sales of the next {show.count(len(found.periods), shared.spec.granularity)}"
    write_picture(path, title, draw(found, title))


def write_picture(path: Path, title: str, picture: str) -> None:
    """Write a drawing by the end of the name: as it is, or as a page. Raises: WorkFailedError (disk)."""
    from common.atomic import write_atomic
    from common.pages.drawing import html_page

    write_atomic(path, (html_page(title, picture) if path.suffix == ".html" else picture).encode(), mode=0o644)


def _print(found: Forecast, shared: SharedSalesModel, category: str) -> None:
    if category:
        _print_periods(found, category)
    else:
        _print_categories(found, shared)
    _print_accuracy(found, category)


def _print_categories(found: Forecast, shared: SharedSalesModel) -> None:
    period = show.count(len(found.periods), shared.spec.granularity)
    rows = []
    order = total_first(found)
    for place in order[: _SHOWN + 1]:
        quantity, revenue = found.sums[:, place]
        name = found.categories[place]
        market = [_percent(shared.market.get(name))] if shared.market else []
        rows.append(
            (
                name, f"{quantity:,.0f}", _between(found.sum_bands[0, :, 0, place]), f"{revenue:,.2f}",
                _between(found.sum_bands[0, :, 1, place]),
                show.number(revenue / quantity if quantity > 0 else None, 2), _percent(found.trends[place]), *market,
            )
        )  # fmt: skip
    heads = ("category", "pieces", "80 %", "revenue", "80 %", "mean price", "trend")
    show.table(f"next {period}, from {found.periods[0]}", (*heads, *(("market",) if shared.market else ())), rows)
    if len(order) > _SHOWN + 1:
        show.note(f"and {len(order) - _SHOWN - 1} more categories: write them with --out FILE")
    words = "trend: pieces of the last four weeks against the four before, your own"
    show.note(words + ("; market: all sites together, from the released series" if shared.market else ""))


def total_first(found: Forecast) -> list[int]:
    """Places of the categories in reading order; the total only where there is something to add up."""
    last = len(found.categories) - 1
    return [last, *range(last)] if last > 1 else [0]


def _print_periods(found: Forecast, category: str) -> None:
    place, prices = found.categories.index(category), found.prices()
    rows = []
    for step, day in enumerate(found.periods):
        cells = []
        for channel, digits in ((0, 1), (1, 2)):
            value = f"{found.values[channel, place, step]:,.{digits}f}"
            cells += [value, *(_between(found.bands[level, :, channel, place, step]) for level in range(2))]
        rows.append((day.strftime("%a %Y-%m-%d"), *cells, show.number(float(prices[place, step]), 2)))
    heads = ("begins", "pieces", "80 %", "95 %", "revenue", "80 %", "95 %", "mean price")
    show.table(category, heads, rows)


def _print_accuracy(found: Forecast, category: str) -> None:
    name = category or found.categories[-1]
    names = ("wape", "rmse", "mase")
    rows = [(who, *(show.number(of[name][figure]) for figure in names)) for who, of in found.accuracy.items()]
    show.table(
        f"pieces of {name}, measured on your own last {show.count(found.origins, 'forecast')}", ("", *names), rows
    )
    model, *others = (of[name]["wape"] for of in found.accuracy.values())
    if model > min(others):
        show.warning("a trivial forecast was better on your own past: prefer it for this category")


def _between(pair: Any) -> str:
    low, high = pair
    return f"{low:,.0f} to {high:,.0f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:+.0%}"
