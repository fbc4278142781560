"""An event source in batches: memory for one batch, whatever its size. The reader is the one of every other reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import common.data.reading as reading
from common.data.formats import Mapping
from common.data.reading import Lines


def file_batches(path: Path, mapping: Mapping) -> Iterator[tuple[str, Lines]]:
    """The well-formed lines of a source, in batches in its order, as ``named_batches``.

    Raises: BadInputError if the file is cut off or cannot be read.
    """
    yield from named_batches(reading.open_files(path, (mapping,)))


def named_batches(opened: reading.EventFiles) -> Iterator[tuple[str, Lines]]:
    """The lines of opened files, each batch with what goes before an example of it: the name of the file, if there are several."""
    several = len(opened.tables) > 1
    for name, batch in opened.batches():
        yield (f"{name} " if several else ""), batch
