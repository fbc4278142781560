"""What the commands about sales share: their options, opening a sales model and a log, writing a picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.forecast import SharedSalesModel
    from client.scoring.place import ModelPlace
    from common.data import EventLog

PICTURES = (".svg", ".html")
Until = Annotated[
    str, typer.Option(metavar="DATE", help="last whole day of the log [its last day]; later events are left out")
]
Holidays = Annotated[
    Path | None, typer.Option(metavar="FILE", help="dates (YYYY-MM-DD), one a line or in CSV or TOML")
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="draw a picture: .svg or .html")]


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
    from client.scoring.coverage import cut_remark, require_known_sales

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
    if remark := cut_remark(log.log, "quantity", shared.config.sales.quantity_cap):
        show.warning(remark)
    if until is None and (remark := scoring.gap_remark(log.log)):
        show.warning(f"{remark}; --until names the last day that counts")
    if remark := scoring.ending_remark(log.log, until):
        show.warning(remark)
    return OpenedSales(shared, log.log, until)


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


def write_picture(path: Path, title: str, picture: str) -> None:
    """Write a drawing by the end of the name: as it is, or as a page. Raises: WorkFailedError (disk)."""
    from common.atomic import write_atomic
    from common.pages.drawing import html_page
    from common.pages.rendering import harmless

    content = html_page(title, picture) if path.suffix == ".html" else picture
    write_atomic(path, harmless(content).encode(), mode=0o644)
