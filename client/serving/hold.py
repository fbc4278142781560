"""Who serves a state folder: one process at a time, and others can read where it listens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.atomic import lock, private_folder
from common.errors import BadInputError
from common.strict_json import one_line

HOLD_FILE = "serving.json"


@contextmanager
def hold(folder: Path) -> Iterator[Callable[[str], None]]:
    """Hold the state for this process; call the value with the address once it listens. Raises: BadInputError."""
    path = private_folder(folder) / HOLD_FILE
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            raise BadInputError(
                f"this state is already served by process {served_by(folder)[0]}",
                hint="stop that one first (SIGTERM), or give another folder with --state",
            ) from None

        def tell(address: str) -> None:
            file.seek(0)
            file.truncate()
            file.write(one_line({"pid": os.getpid(), "address": address}))
            file.flush()

        tell("")
        try:
            yield tell
        finally:
            file.truncate(0)


def served_by(folder: Path) -> tuple[int, str]:
    """Process id and address of who serves a state; (0, "") if nobody does."""
    try:
        with open(folder / HOLD_FILE, encoding="utf-8") as file:
            try:
                lock(file, shared=True, wait=False)
            except BlockingIOError:
                said = json.loads(file.read() or "{}")
                return int(said.get("pid", 0)), str(said.get("address", ""))
    except (OSError, ValueError):
        pass
    return 0, ""
