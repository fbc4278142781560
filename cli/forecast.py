"""``fedcart forecast``: sales of the next days or weeks per category, from a site's own log and the shared model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import cli.options as options
import cli.sales_log as sales
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.forecast import Forecast, SharedSalesModel

app = typer.Typer(add_completion=False)
_SHOWN = 24
What = Annotated[
    Literal["sales", "price"], typer.Option(help="pieces and revenue, or the mean price of the whole horizon")
]


@app.command(epilog="Example: fedcart forecast runs/latest shop.csv --out next-week.csv --plot next-week.svg")
def forecast(
    model: options.Model,
    events: options.Events,
    what: What = "sales",
    category: Annotated[str, typer.Option(metavar="NAME", help="only this category, period by period")] = "",
    until: sales.Until = "",
    holidays: sales.Holidays = None,
    format: options.Format = "",
    out: options.Out = None,
    plot: sales.Plot = None,
    state: options.State = None,
    shared_only: options.SharedOnly = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Forecast quantity, revenue and mean price per category, with intervals and the accuracy on your own past.

    Nothing leaves this machine. The shared model was learnt from noised series; your own are read exactly here.
    """
    from cli.price import tell_price

    options.check_out(out, force)
    options.check_out(plot, force, sales.PICTURES)
    reading = options.ReadOptions(format, state=state, shared=shared_only)
    opened = sales.open_sales(model, events, reading, sales.Calendar(until, holidays))
    found = forecast_of(opened)
    if category and category not in found.categories:
        known = ", ".join(found.categories[:_SHOWN])
        raise BadInputError(f"the model knows no category {category!r}", hint=f"known: {known}")
    _warn_of_prices(opened, what)
    tell = tell_price if what == "price" else tell_sales
    tell(opened, found, category, options.Target(out, json, "forecast"), plot)


def _warn_of_prices(opened: sales.OpenedSales, what: str) -> None:
    from client.scoring.coverage import cut_remark, unpriced_remark

    if remark := unpriced_remark(opened.log):
        does = (
            "they are left out" if what == "price" else "they add pieces and no revenue, which lowers mean prices"
        )
        show.warning(f"{remark}: {does}")
    if remark := cut_remark(opened.log, "price", opened.shared.config.sales.price_cap):
        show.warning(remark)


def tell_sales(
    opened: sales.OpenedSales, found: Forecast, category: str, target: options.Target, plot: Path | None
) -> None:
    """Write, draw and print quantity and revenue of every category, or of one."""
    from client.scoring.forecast import forecast_table

    shared, out = opened.shared, target.out
    columns = forecast_table(found, category)
    if out is not None:
        options.write_rows(out, columns, private=False)
    if plot is not None:
        _draw(plot, found, shared)
    if target.json:
        show.print_json(_facts(found, shared, columns, out, plot))
        return
    _print(found, shared, category)
    for path in (out, plot):
        if path is not None:
            typer.echo(f"written: {path}")


def forecast_of(opened: sales.OpenedSales) -> Forecast:
    """Forecast the log's own series. Raises: BadInputError for a log that is too short."""
    from client.scoring import forecast as scoring

    series, spec = scoring.own_series(opened.shared, opened.log, opened.until)
    return scoring.forecast(opened.shared, series, spec)


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
    sales.write_picture(path, title, draw(found, title))


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
