"""Is the ``state`` folder of a kit this site's own? A kit is delivered without one, and what was planted in it would pass for ours.

A key for the pseudonyms that somebody else knows, rows that hold out whom they like, an outbox, models, a newer roster: none of it is
told from the site's own later. So a state is begun once, in an empty folder, with a mark that only ``identity.key`` can make. It
goes wherever the folder goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.atomic import MOST_SETTINGS, private_folder, read_small, write_atomic
from common.errors import BadInputError, VerificationError
from common.privacy import parse_line, verify_entry_signature
from common.trust import Identity, verify_signature

if TYPE_CHECKING:
    from common.deployment import SiteKit

MARK_FILE = "own.json"
STATEMENT = b"fedcart/own-state/1\0"
MOST_NAMED = 5
# A ledger is checked line by line against this site's keys wherever it is opened: it may come alone, into a new kit. And a
# log is read by people only.
_HARMLESS = re.compile(
    r"(moved-)?ledger(\.lost-\d+)?\.jsonl|(moved-)?ledger\.head\.json|log(\.\d+)?\.txt", re.ASCII
)


def require_own_state(kit: SiteKit, identity: Identity) -> None:
    """Return if the state folder was begun by this site; an empty one, or one with nothing but ledgers, is begun now.

    One without a mark, of an earlier version, is known by a ledger that this site's key began.
    Raises: BadInputError naming what lies in a folder that is somebody else's.
    """
    if _is_marked(kit, identity.public_key):
        return
    strange = sorted(_content(kit))
    if strange and not _began_ledger(kit, identity.public_key):
        named = ", ".join(ascii(name) for name in strange[:MOST_NAMED])
        more = f" and {len(strange) - MOST_NAMED} more" if len(strange) > MOST_NAMED else ""
        raise BadInputError(
            f"state/ was not begun by this site, and holds {named}{more}",
            hint="a kit is delivered without it: move the folder out, and ask the coordinator why it was there; a state "
            "of your own belongs to the identity.key it was begun with (after new keys: site recover --old-keys)",
        )
    begin_state(kit, identity)


def begin_state(kit: SiteKit, identity: Identity) -> None:
    """Mark the state folder as begun by this site."""
    said = {"site": identity.name, "signature": identity.sign(_statement(identity.name)).hex()}
    write_atomic(private_folder(kit.state) / MARK_FILE, json.dumps(said, allow_nan=False).encode(), mode=0o600)


def adopt_state(kit: SiteKit, former: bytes) -> None:
    """Mark it anew after this site has changed its keys, if it was begun with the ``former`` one. Raises: as ``require_own_state``."""
    identity = Identity.load(kit.read().site.name, kit.identity_key)
    if _is_marked(kit, former) or _began_ledger(kit, former):
        begin_state(kit, identity)
    require_own_state(kit, identity)


def _statement(name: str) -> bytes:
    return STATEMENT + name.encode()


def _is_marked(kit: SiteKit, key: bytes) -> bool:
    mark = kit.state / MARK_FILE
    try:
        if not mark.is_file():  # a pipe would keep us for ever
            return False
        said = json.loads(read_small(mark))
        verify_signature(key, _statement(kit.read().site.name), bytes.fromhex(said["signature"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, VerificationError):
        return False
    return True


def _began_ledger(kit: SiteKit, key: bytes) -> bool:
    """Whether the first line of the kit's ledger, or of one that was moved away, is this key's."""
    return any(_first_line_is_by(kit.state / name, key) for name in (kit.ledger.name, f"moved-{kit.ledger.name}"))


def _first_line_is_by(path: Path, key: bytes) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            verify_entry_signature(parse_line(file.readline(MOST_SETTINGS).rstrip(b"\n")), key)
    except (OSError, VerificationError):
        return False
    return True


def _content(kit: SiteKit) -> Iterator[str]:
    """Files of the folder, relative to the kit, but ledgers, logs, and what is emptied at every start."""
    for path in kit.state.rglob("*") if kit.state.is_dir() else ():
        swept = any(folder in path.parents for folder in (kit.flower_home, kit.work))
        file = path.is_file() and not path.is_symlink()
        harmless = file and path.parent == kit.state and _HARMLESS.fullmatch(path.name)
        if not (swept or harmless) and (path.is_symlink() or not path.is_dir()):
            yield str(path.relative_to(kit.path))
