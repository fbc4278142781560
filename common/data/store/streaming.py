"""An event source in batches: memory for one batch, whatever its size. The reader is the one of every other reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import common.data.reading as reading
from common.data.formats import Mapping
from common.data.reading import Lines


def file_batches(path: Path, mapping: Mapping) -> Iterator[Lines]:
    """The well-formed lines of a source, in batches in its order.

    Raises: BadInputError if the file is cut off or cannot be read.
    """
    for _, batch in reading.open_files(path, (mapping,)).batches():
        yield batch
