"""``fedcart stock``: pieces of every item that will be sold, when to order again, and how much."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.options as options
import cli.sales_log as sales
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.stock import Stock

app = typer.Typer(add_completion=False)
_SHOWN = 20


@app.command(epilog="Example: fedcart stock runs/latest shop.csv --lead-time-days 10 --on-hand stock.csv")
def stock(
    model: options.Model,
    events: options.Events,
    lead_time_days: Annotated[int, typer.Option(metavar="N", help="days from an order to its arrival")] = 7,
    service_level: Annotated[
        float, typer.Option(metavar="SHARE", help="share of lead times without running out")
    ] = 0.95,
    cover_days: Annotated[int, typer.Option(metavar="N", help="days that one order is to last")] = 7,
    on_hand: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV with the columns item,stock: pieces on hand")
    ] = None,
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
    """Plan the stock of every item: forecast for the lead time with an interval, reorder point, order.

    Items add up to their categories and these to the site, exactly. Nothing leaves this machine.
    """
    from client.scoring.stock import StockQuestion, plan_stock, stock_table

    options.check_out(out, force)
    options.check_out(plot, force, sales.PICTURES)
    there = read_stock(on_hand) if on_hand else None
    asked = StockQuestion(lead_time_days, cover_days, service_level, there)
    reading = options.ReadOptions(format, state=state, shared=shared_only)
    opened = sales.open_sales(model, events, reading, sales.Calendar(until, holidays))
    found = plan_stock(opened.shared, opened.log, asked, opened.until)
    columns = stock_table(found)
    if plot is not None:
        _draw(plot, found, columns)
    facts = _facts(found) | ({"picture": str(plot)} if plot else {})
    if options.delivered(columns, facts, options.Target(out, json, "items"), private=False):
        return
    _print(found, columns)
    for path in (out, plot):
        if path is not None:
            typer.echo(f"written: {path}")


def read_stock(path: Path) -> dict[str, float]:
    """Pieces on hand of each item, from a CSV with the columns item and stock. Below zero: promised already.

    Raises: BadInputError for a file without these columns, an item named twice, or a stock that is no number.
    """
    hint = "a CSV file with the columns item,stock, one line per item"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"item", "stock"} <= set(reader.fieldnames or ()):
                raise BadInputError(f"{path} lacks the columns item and stock", hint=hint)
            lines = [(row["item"] or "", row["stock"] or "") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"cannot read {path}: {error}", hint=hint) from None
    found: dict[str, float] = {}
    for number, (item, text) in enumerate(lines, start=2):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not item.strip():
            raise BadInputError(f"{path}, line {number}: {item!r} has a stock of {text!r}", hint="write a number")
        if item.strip() in found:
            raise BadInputError(f"{path}, line {number}: {item!r} is there twice", hint="one line per item")
        found[item.strip()] = value
    if not found:
        raise BadInputError(f"{path} holds no item", hint=hint)
    return found


def _facts(found: Stock) -> dict[str, Any]:
    lead, whole = found.steps
    return {
        "granularity": found.spec.granularity,
        "begins": found.spec.first_day(found.spec.periods).isoformat(),
        "lead_time": lead,
        "order_lasts": whole - lead,
        "service_level": found.asked.level,
        "achieved_in_backtest": found.achieved,
        "backtest_origins": found.origins,
        "site": float(found.categories[:, :lead].sum()),
        "categories": {
            name: {"forecast": float(values[:lead].sum()), "trust_in_items": float(trust)}
            for name, values, trust in zip(found.names, found.categories, found.trust, strict=True)
        },
        "accuracy": found.accuracy,
        "notes": list(found.notes),
    }


def _print(found: Stock, columns: dict[str, list[Any]]) -> None:
    period = show.count(found.steps[0], found.spec.granularity)
    rows = []
    for line in options.lines_of(columns)[:_SHOWN]:
        cells = [
            line["item"],
            line["category"],
            f"{line['sold']:,.0f}",
            line["last_sale"],
            f"{line['forecast']:,.1f}",
        ]
        cells += [f"{line['low80']:,.1f} to {line['high80']:,.1f}", f"{line['reorder_point']:,}"]
        cells += [f"{line['on_hand']:,.0f}"] if "on_hand" in line else []
        rows.append((*cells, f"{line['order']:,}"))
    there = ("on hand",) if "on_hand" in columns else ()
    heads = ("item", "category", "sold", "last sale", "forecast", "80 %", "reorder at", *there, "order")
    begins = found.spec.first_day(found.spec.periods)
    show.table(f"demand of {period}, from {begins}", heads, rows, words=("category",))
    if len(columns["item"]) > _SHOWN:
        show.note(f"and {len(columns['item']) - _SHOWN:,} more items: write them with --out FILE")
    site, many = found.categories[:, : found.steps[0]].sum(), len(found.names)
    typer.echo(
        f"all items together: {site:,.1f} pieces, the sum of {many} {'category' if many == 1 else 'categories'}"
    )
    _print_accuracy(found)
    for words in found.notes:
        show.note(words)


def _print_accuracy(found: Stock) -> None:
    names = ("wape", "mase", "bias")
    rows = [(who, *(show.number(of[name]) for name in names)) for who, of in found.accuracy.items()]
    period = show.count(found.steps[0], found.spec.granularity)
    show.table(
        f"an item's pieces in {period}, measured on your own last {show.count(found.origins, 'forecast')}",
        ("", *names),
        rows,
    )
    ours, *others = (of["wape"] for of in found.accuracy.values())
    if ours > others[-1]:
        show.warning(
            "a single item sells so seldom here that zero is nearer than any forecast: order it when it is asked for"
        )
    elif ours > min(others):
        show.warning("a trivial forecast was nearer on your own past, compare the two before you rely on this one")
    show.note(
        f"the reorder point held in {show.number(100 * found.achieved, 1)} % of the later backtests, "
        f"asked were {100 * found.asked.level:g} %"
    )


def _draw(path: Path, found: Stock, columns: dict[str, list[Any]]) -> None:
    from client.scoring.stock_picture import draw

    lead, whole = (
        show.count(number, found.spec.granularity) for number in (found.steps[0], found.steps[1] - found.steps[0])
    )
    title = f"stock: demand of {lead}, service level {found.asked.level:.1%}"
    about = f"from {found.spec.first_day(found.spec.periods)}; an order lasts {whole}; intervals from your own backtest"
    sales.write_picture(path, title, draw(columns, title, about))
