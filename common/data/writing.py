"""Write files whole or not at all: a temporary name in the same folder, synced, renamed."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import polars as pl

from common.errors import BadInputError, WorkFailedError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path`` if the block ends well and leaves nothing behind if not.

    Raises: WorkFailedError if the disk or the folder does not take it.
    """
    from common.atomic import make_durable

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            make_durable(file.fileno())
        partial.replace(path)
    except (OSError, pl.exceptions.PolarsError) as error:  # polars wraps a full disk in an error of its own
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WorkFailedError(
            f"cannot write {path}: {reason}", hint="check the folder and the free space"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as CSV, CSV.GZ or Parquet, by the end of the name. Raises: BadInputError, WorkFailedError."""
    check_writable(path, SUFFIXES)
    with atomic(path) as file:
        if path.name.endswith(".parquet"):
            frame.write_parquet(file)
        elif path.name.endswith(".gz"):
            with gzip.open(file, "wb", compresslevel=4) as packed:
                frame.write_csv(cast(IO[bytes], packed))
        else:
            frame.write_csv(file)


def check_writable(path: Path, suffixes: tuple[str, ...]) -> None:
    """Find out before the work whether ``path`` can be written.

    Raises: BadInputError for another suffix, a missing or unwritable folder, or a folder of that name.
    """
    if not path.name.endswith(suffixes):
        raise BadInputError(
            f"{path} does not end in {' or '.join(suffixes)}", hint="the end of the name is the format"
        )
    if path.is_dir():
        raise BadInputError(f"{path} is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise BadInputError(f"no such folder: {path.parent}", hint="make the folder first")
    if not os.access(path.parent, os.W_OK):
        raise BadInputError(f"not allowed to write to {path.parent}", hint="choose another folder")
    from common.atomic import unwritable

    if why := unwritable(path.parent):
        raise BadInputError(f"cannot write to {path.parent}: {why}", hint="choose another folder")
