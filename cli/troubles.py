"""``status --check``: the status, then a line for each thing that is wrong; exit code 1 if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import cli.show as show

if TYPE_CHECKING:
    from common.deployment.trouble import Trouble

Status = TypeVar("Status")


def check_status(
    read: Callable[[], Status],
    look: Callable[[Status | None], Sequence[Trouble]],
    tell: Callable[[Status], None],
    *,
    plain: Callable[[Status], Mapping[str, Any]] | None,
) -> int:
    """Read a status and look for troubles, also where it cannot be read; print both and return the exit code.

    ``plain``: the status as JSON values, None: for people.
    """
    from common.deployment.trouble import Trouble
    from common.errors import FedcartError

    current, unread = None, []
    try:
        current = read()
    except FedcartError as error:
        unread = [Trouble("status", error.message, error.hint)]
    except OSError as error:
        unread = [
            Trouble("status", f"{error.filename}: {error.strerror}", "take the file from your backup of the kit")
        ]
    found = list(look(current))
    if not any(one.found == another.found for one in unread for another in found):
        found += unread
    if plain is not None:
        known = {} if current is None else dict(plain(current))
        show.print_json(known | {"ok": not found, "troubles": [asdict(one) for one in found]})
        return 1 if found else 0
    if current is not None:
        tell(current)
    for one in found:
        show.line(f"WRONG         {one}")
    if not found:
        show.line("ok            nothing is wrong")
    return 1 if found else 0
