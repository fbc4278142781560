"""Are the records of a run letter by letter what was signed? A line in which a name stands twice says one thing to this reader
and another to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.run.files import RunFolder
from common.run.paths import MANIFEST_FILE, METRICS_FILE
from common.run.records import RoundRecord


def strange_lines(folder: RunFolder, records: Sequence[RoundRecord]) -> Iterator[tuple[int, str]]:
    """(line number, what is wrong) of the lines of the records that are not letter by letter what was signed."""
    path = folder.path / METRICS_FILE
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    for number, (line, record) in enumerate(zip(lines[:-1], records, strict=False), start=1):
        if line != record.to_json().encode():
            yield number, "is not written as a record is: a name stands twice, or other letters say the same"
    if lines[-1] and (folder.path / MANIFEST_FILE).exists():
        yield len(lines), "is half a line, in a run that is over"
