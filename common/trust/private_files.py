"""Private keys are their owner's alone: as ssh does, a key that others can read is not used."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from common.errors import BadInputError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def is_private(path: Path) -> bool:
    """Whether nobody but its owner can read or write a file; one that is not there is nobody's."""
    try:
        return not stat.S_IMODE(path.stat().st_mode) & OTHERS
    except FileNotFoundError:
        return True


def require_private(paths: Iterable[Path]) -> None:
    """Return if none of these files can be read or written by group or others. Raises: BadInputError naming them."""
    loose = [str(path) for path in paths if not is_private(path)]
    if loose:
        raise BadInputError(
            f"private key that others can read: {', '.join(Path(name).name for name in loose)}",
            hint=f"chmod 600 {' '.join(loose)}; if others use this machine, make new keys",
        )
