"""The half of ``fedcart forecast`` that tells the coming mean price: ``--what price``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import cli.options as options
import cli.sales_log as sales
import cli.show as show

if TYPE_CHECKING:
    from client.scoring.forecast import Forecast
    from client.scoring.price import PriceForecast

_SHOWN = 24


def tell_price(
    opened: sales.OpenedSales, like: Forecast, category: str, target: options.Target, plot: Path | None
) -> None:
    """Forecast, write, draw and print the mean price of every category. Raises: BadInputError for a log that is too short."""
    from client.scoring.forecast import own_series
    from client.scoring.price import forecast_price, price_table, with_prices

    series, spec = own_series(opened.shared, with_prices(opened.log), opened.until)
    found = forecast_price(opened.shared, series, spec)
    columns = price_table(found, category)
    if plot is not None:
        _draw(plot, found, like)
    facts: dict[str, Any] = {
        "what": "price",
        "granularity": spec.granularity,
        "horizon": found.horizon,
        "begins": like.periods[0].isoformat(),
        "backtest_origins": found.origins,
        "inside_80": found.inside,
        **({"picture": str(plot)} if plot else {}),
    }
    if options.delivered(columns, facts, target, private=False):
        return
    _print(
        found,
        columns,
        f"mean price of the next {show.count(found.horizon, spec.granularity)}, from {like.periods[0]}",
    )
    for path in (target.out, plot):
        if path is not None:
            typer.echo(f"written: {path}")


def _print(found: PriceForecast, columns: dict[str, list[Any]], title: str) -> None:
    rows = []
    for line in options.lines_of(columns)[:_SHOWN]:
        cells = [show.number(line[name], 2) for name in ("last_price", "mean_price")]
        cells += [f"{show.number(line[f'low{n}'], 2)} to {show.number(line[f'high{n}'], 2)}" for n in (80, 95)]
        cells += [show.number(line[name]) for name in ("error", "error_of_last_price")]
        rows.append((line["category"], *cells, line["forecast_by"]))
    heads = ("category", "last", "coming", "80 %", "95 %", "error", "last price's", "forecast by")
    show.table(title, heads, rows, words=("forecast by",))
    show.note(
        f"errors: mean over your own last {show.count(found.origins, 'forecast')}; the way was chosen on those before; "
        f"{show.number(100 * found.inside, 0)} % were inside the 80 %"
    )


def _draw(path: Path, found: PriceForecast, like: Forecast) -> None:
    from client.scoring.forecast_picture import draw
    from client.scoring.price import as_drawn

    about = "mean price; line: past, dots: forecast of the whole horizon, bands: 80 % and 95 % of the backtest's errors"
    sales.write_picture(path, "the coming mean price", draw(as_drawn(found, like), "the coming mean price", about))
