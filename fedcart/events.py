"""Events from wherever a data scientist has them: a path, any data frame, or a dataset registered by name."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import BadInputError
from fedcart.places import path_of

if TYPE_CHECKING:
    import polars as pl

    from client.scoring.consumers import LocalLog
    from common.data import CleaningReport, EventLog

_datasets: dict[str, Callable[[], Any]] = {}


def register_dataset(name: str, load: Callable[[], Any]) -> None:
    """Give events a name that ``simulate`` and the models take in place of a path.

    ``load`` is called when the name is used and returns a path or a data frame.
    Raises: BadInputError for a name that could be mistaken for a path, or a ``load`` that cannot be called.

    Example:
        >>> register_dataset("tiny-shop", lambda: "shop.csv")
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        raise BadInputError(f"{name!r} is not a name for a dataset", hint="letters, digits and hyphens only")
    if not callable(load):
        raise BadInputError(
            f"{type(load).__name__} is not called for events", hint="give a function: lambda: events"
        )
    _datasets[name] = load


def load_events(
    events: Any,
    format: str = "",  # noqa: A002 the word of the command line
    *,
    secret: bytes | None = None,
) -> tuple[EventLog, CleaningReport]:
    """Read, clean and pseudonymise events; every line is in the log or counted in the report.

    ``events``: a path, a data frame or a registered name. ``format`` "" recognises the preset by the columns.
    ``secret``: key of the pseudonyms; left out, a fresh one, so that two calls give different pseudonyms.
    Raises: BadInputError for events that cannot be read or have no usable line.

    Example:
        >>> log, report = load_events("shop.csv")  # doctest: +SKIP
    """
    from common.data import load_events as load

    with file_of(events) as path:
        return load(path, format or "auto", secret=secret or os.urandom(32))


def local_log(events: Any, format_name: str, *, with_ids: bool) -> LocalLog:
    """Events for local use under the user's own key. Raises: BadInputError."""
    from client.scoring.consumers import load_local, local_key, state_folder

    with file_of(events) as path:
        return load_local(path, format_name, local_key(state_folder(None)), with_ids=with_ids)


@contextmanager
def file_of(events: Any) -> Iterator[Path]:
    """A file with the events, for as long as it is needed: data frames are written to a private temporary one."""
    if isinstance(events, str) and events in _datasets:
        with file_of(_datasets[events]()) as path:
            yield path
        return
    if isinstance(events, str | os.PathLike):
        yield path_of(events)
        return
    frame = as_frame(events)
    with tempfile.TemporaryDirectory(prefix="fedcart-") as folder:  # readable by its owner only
        path = Path(folder) / "events.parquet"
        frame.write_parquet(path)
        yield path


def as_frame(events: Any) -> pl.DataFrame:
    """A polars frame of polars or pandas frames, or of columns by name. Raises: BadInputError."""
    import polars as pl

    if isinstance(events, pl.LazyFrame):
        return events.collect()
    if isinstance(events, pl.DataFrame):
        return events
    columns: Any = events
    if hasattr(events, "to_dict") and hasattr(events, "columns"):  # pandas, without needing it here
        columns = {str(name): _plain(events[name]) for name in events.columns}
    try:
        return pl.DataFrame(columns, strict=False)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadInputError(
            f"cannot read events from {type(events).__name__}: {error}",
            hint="give a path, a data frame of polars or pandas, or a dict of columns",
        ) from None


def _plain(column: Any) -> list[Any]:
    """A column of pandas as Python values; its own missing values (NaN, NaT) become None."""
    values = column.tolist()
    return [None if value != value or type(value).__name__ == "NaTType" else value for value in values]
