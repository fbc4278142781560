"""Encoded consumers in one file that is mapped and not read: the rows of each part, and the item mask.

    8 bytes "FEDROWS1", 8 bytes length, header of 4,080 bytes (JSON: name -> type, shape, place), arrays at multiples of 64

Written row by row, so that the whole need not fit into memory; opened without reading more than the header.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.atomic import CLOSE_ON_EXEC, disk_errors, make_durable, sync_directory
from common.data.sequences import ConsumerSequences
from common.data.split import Sides, parts_of
from common.errors import BadInputError

MAGIC = b"FEDROWS1"
_ALIGNED = 64
_HEADER_BYTES = 4_096
_COPY_BYTES = 16 << 20
_TYPES = {"consumers": "<u8", "offsets": "<i8", "integers": "<i4", "numeric": "<f4", "timestamps": "<i8"}
_SIDES = ("train", "validation", "holdout")


@dataclass(frozen=True)
class StoredRows:
    """What is in the file. The arrays are mapped: read-only, and in memory only where they are looked at."""

    sides: Sides
    mask: NDArray[np.bool_]


def write_rows(path: Path, pieces: Iterable[Sides], mask: NDArray[np.bool_]) -> None:
    """Write the rows of all pieces, one after another, atomically and readable by their owner only.

    Raises: WorkFailedError if the disk does not take them; what the pieces raise.
    """
    with disk_errors(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        folder = Path(name)
        sides = [_Side(folder, side) for side in _SIDES]
        for piece in pieces:
            for side, rows in zip(sides, parts_of(piece), strict=True):
                side.add(rows)
        arrays = [array for side in sides for array in side.closed()]
        whole = folder / "whole"
        fd = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOSE_ON_EXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            _assemble(file, arrays, np.ascontiguousarray(mask, dtype=np.bool_))
            file.flush()
            make_durable(file.fileno())
        os.replace(whole, path)
        sync_directory(path.parent)


def open_rows(path: Path) -> StoredRows:
    """Map a file of rows. Raises: BadInputError if it is damaged, cut off, or of another format."""
    try:
        with path.open("rb") as file:
            magic, length = file.read(8), int.from_bytes(file.read(8), "little")
            if magic != MAGIC or length != _HEADER_BYTES - 16:
                raise ValueError("not a file of rows")
            header = json.loads(file.read(length))
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {name: _mapped(whole, *place) for name, place in header.items()}
        sides = Sides(*(_sequences(arrays, side) for side in _SIDES))
        for side in parts_of(sides):
            if len(side.offsets) != len(side) + 1 or side.offsets[-1] != len(side.timestamps):
                raise ValueError("its rows do not add up")
        return StoredRows(sides, arrays["mask"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path} is damaged", hint="remove it: it is made again from the event log") from error


def _sequences(arrays: dict[str, NDArray[Any]], side: str) -> ConsumerSequences:
    consumers, offsets, integers, numeric, timestamps = (arrays[f"{side}.{name}"] for name in _TYPES)
    return ConsumerSequences(consumers, offsets, integers, numeric, timestamps)


class _Side:
    """The arrays of one side while they grow, each in a file of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._paths = {array: folder / f"{name}.{array}" for array in _TYPES}
        self._files = {array: path.open("wb") for array, path in self._paths.items()}
        self._name, self._rows, self._events = name, 0, 0
        self._width = {"integers": 0, "numeric": 0}
        self._files["offsets"].write(np.zeros(1, dtype="<i8").tobytes())

    def add(self, rows: ConsumerSequences) -> None:
        self._width = {"integers": rows.integers.shape[1], "numeric": rows.numeric.shape[1]}
        for name, kind in _TYPES.items():
            array = getattr(rows, name)
            values = array[1:] + self._events if name == "offsets" else array
            self._files[name].write(np.ascontiguousarray(values, dtype=kind).data)
        self._rows += len(rows)
        self._events += len(rows.timestamps)

    def closed(self) -> list[tuple[str, str, list[int], Path]]:
        """(name, type, shape, file) of each array."""
        for file in self._files.values():
            file.close()
        shapes = {"consumers": [self._rows], "offsets": [self._rows + 1], "timestamps": [self._events],
                  **{name: [self._events, width] for name, width in self._width.items()}}  # fmt: skip
        return [(f"{self._name}.{name}", _TYPES[name], shapes[name], path) for name, path in self._paths.items()]


def _assemble(file: IO[bytes], arrays: list[tuple[str, str, list[int], Path]], mask: NDArray[np.bool_]) -> None:
    places: dict[str, tuple[str, list[int], int]] = {}
    at = _HEADER_BYTES
    for name, kind, shape, size in [*((*one[:3], one[3].stat().st_size) for one in arrays), _told(mask)]:
        places[name] = (kind, shape, at)
        at += -(-size // _ALIGNED) * _ALIGNED
    header = json.dumps(places, allow_nan=False).encode().ljust(_HEADER_BYTES - 16)
    file.write(MAGIC + len(header).to_bytes(8, "little") + header)
    for name, _, _, path in arrays:
        file.write(bytes(places[name][2] - file.tell()))
        with path.open("rb") as part:
            shutil.copyfileobj(part, file, _COPY_BYTES)
        path.unlink()
    file.write(bytes(places["mask"][2] - file.tell()) + mask.tobytes())


def _told(mask: NDArray[np.bool_]) -> tuple[str, str, list[int], int]:
    return "mask", "|b1", [len(mask)], len(mask)


def _mapped(whole: mmap.mmap, kind: str, shape: list[int], place: int) -> NDArray[Any]:
    count = int(np.prod(shape, dtype=np.int64))
    if place < 0 or any(size < 0 for size in shape) or place + count * np.dtype(kind).itemsize > len(whole):
        raise ValueError("it is cut off")
    return np.frombuffer(whole, dtype=kind, count=count, offset=place).reshape(shape)
