"""The log in a kit's state folder: what happened there, in our own words, without data and without consumer ids."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from common.plain_text import shown


class _AppendingHandler(logging.Handler):
    """Opens the file for each line: several processes write to it, and one of them renames it when it is long."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a full disk must end neither an answer nor the one who starts the site again
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._path.open("a", encoding="utf-8") as file:
                first, *rest = self.format(record).split("\n")
                file.writelines([f"{shown(first)}\n", *(f"  {shown(line)}\n" for line in rest)])


def local_log(path: Path) -> logging.Logger:
    """The logger that writes to this file. Lines begin with the time in UTC; what the disk refuses is lost."""
    logger = logging.getLogger(f"fedcart:{path.absolute()}")
    if not logger.handlers:
        handler = _AppendingHandler(path)
        formatter = logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def rotate(path: Path, most_bytes: int) -> None:
    """Begin a new file if this one is longer; the one before it is kept as ``NAME.1.txt``."""
    if path.exists() and path.stat().st_size > most_bytes:
        path.replace(path.with_suffix(".1.txt"))
