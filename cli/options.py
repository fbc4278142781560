"""What the local commands share: their options, one value for how they read, opening model and log, writing results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.consumers import LocalLog
    from client.scoring.model import SharedModel
    from client.scoring.place import ModelPlace

SUFFIXES = (".csv", ".jsonl", ".parquet")

Model = Annotated[Path, typer.Argument(metavar="MODEL|KIT", help="run folder, model.safetensors, or a site's kit")]
Events = Annotated[Path, typer.Argument(metavar="EVENTS", help="your event log: CSV, CSV.GZ or Parquet")]
Format = Annotated[
    str, typer.Option(metavar="NAME", help="preset or TOML mapping; left out: recognised by the columns")
]
CatalogueFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="the run's catalogue, if it is not beside the model")
]
SiteName = Annotated[str, typer.Option(metavar="NAME", help="only items that this site stocks")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="write .csv, .jsonl or .parquet")]
WithIds = Annotated[bool, typer.Option("--with-ids", help="original consumer ids instead of pseudonyms")]
State = Annotated[
    Path | None, typer.Option(metavar="DIR", help="folder of the pseudonym key and feedback; a site kit's state")
]
SharedOnly = Annotated[
    bool, typer.Option("--shared", help="the model as it came, not your personal one on top of it")
]
Force = Annotated[bool, typer.Option("--force", help="replace a file that exists")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value")]


@dataclass(frozen=True)
class ReadOptions:
    """How a local command reads model and event log.

    ``format`` "" recognises the preset by its columns; ``site``: only items that this site stocks; ``state``: folder of
    the pseudonym key; ``with_ids``: original consumer ids in the output; ``shared``: the model as it came, although there
    is a personal one on top of it.
    """

    format: str = ""
    catalogue: Path | None = None
    site: str = ""
    state: Path | None = None
    with_ids: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Target:
    """Where a table goes. ``out`` None: to the screen; ``json``: as one JSON value, the table under ``key``."""

    out: Path | None
    json: bool
    key: str


def open_both(model: Path, events: Path, reading: ReadOptions) -> tuple[SharedModel, LocalLog]:
    """Open the model (of a kit: the one in use) and load the log.

    Raises: BadInputError, also for a log that the model knows next to nothing of.
    """
    from client.scoring.consumers import load_local, local_key
    from client.scoring.coverage import require_known

    place = place_of(model, reading)
    shared = open_at(place, reading)
    local = load_local(events, place.format, local_key(place.state), with_ids=reading.with_ids)
    if local.dropped:
        show.note(f"{local.dropped:,} unusable lines left out, `fedcart data check {events}` says why")
    if remark := require_known(shared, local.log):
        show.warning(remark)
    return shared, local


def place_of(model: Path, reading: ReadOptions) -> ModelPlace:
    """Where the model is, and what a kit says of format, site and key. Raises: BadInputError."""
    from client.scoring.place import model_place

    return model_place(model, site=reading.site, state=reading.state, format_name=reading.format)


def open_at(place: ModelPlace, reading: ReadOptions) -> SharedModel:
    """The model of a place, or the personal one on top of it where there is one. Raises: BadInputError."""
    from client.scoring.model import open_model

    own = personal_file(place, reading)
    return open_model(place.folder, catalogue=reading.catalogue, site=place.site, personal=own)


def personal_file(place: ModelPlace, reading: ReadOptions) -> Path | None:
    """The personal model on top of a place's, said once if it answers; None if there is none, or it is not wanted."""
    from client.personal.file import PERSONAL_FILE, personal_folder

    own = personal_folder(place.home, place.folder) / PERSONAL_FILE
    if reading.shared or not own.is_file():
        return None
    show.note("your personal model answers; --shared asks the model as it came")
    return own


def check_out(out: Path | None, force: bool, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Find out before the work whether the result can be written. Raises: BadInputError."""
    from common.data.writing import check_writable

    if out is None:
        return
    check_writable(out, suffixes)
    if out.exists() and not force:
        raise BadInputError(f"already there: {out}", hint="--force replaces, or choose another name")


def write_rows(out: Path, columns: Mapping[str, Sequence[Any]], *, private: bool) -> None:
    """Write a table by the end of the name; ``private`` files can be read by their owner only.

    Raises: WorkFailedError if the disk does not take it.
    """
    import io

    import polars as pl

    from common.atomic import write_atomic

    frame, buffer = pl.DataFrame(columns), io.BytesIO()
    if out.name.endswith(".parquet"):
        frame.write_parquet(buffer)
    elif out.name.endswith(".jsonl"):
        frame.write_ndjson(buffer)
    else:
        frame.write_csv(buffer)
    write_atomic(out, buffer.getvalue(), mode=0o600 if private else 0o644)


def delivered(
    columns: Mapping[str, Sequence[Any]], facts: dict[str, Any], target: Target, *, private: bool
) -> bool:
    """Write the table where it is wanted; whether that is all, and nothing is left to be shown to a person."""
    if target.out is not None:
        write_rows(target.out, columns, private=private)
        facts["file"] = str(target.out)
    if target.json:
        show.print_json(facts | ({} if target.out else {target.key: lines_of(columns)}))
    return target.json


def lines_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Columns of equal length as one object per line."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def share(value: float) -> str:
    """A probability for people."""
    return f"{value:.1%}"
