"""What may lie in a site's kit: an allow-list of names. A kit is delivered, and what is delivered is data, never code.

Names are compared letter by letter, and nothing is followed: a link, a folder where a file belongs, a pipe or a device
is as strange as a file that nobody knows.
"""

from __future__ import annotations

import glob
import importlib.machinery
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from common.atomic import has_holes
from common.deployment import SiteFile, SiteKit
from common.errors import BadInputError, FedcartError
from common.trust.keyfiles import PUBLIC_SUFFIX

README_FILE = "README.txt"
STATE_SUFFIXES = (
    ".jsonl",
    ".json",
    ".npz",
    ".safetensors",
    ".html",
    ".rows",
    ".snapshot",
    ".part",
    ".key",
    ".txt",
    ".pid",
    ".ring",
    ".contribution",
    ".lock",
    ".tmp",
)
CODE_SUFFIXES = (
    *importlib.machinery.all_suffixes(), ".pth", "._pth", ".pyw", ".zip", ".egg", ".whl", ".dll", ".dylib", ".exe", ".sh",
    ".service", ".fab", "pyvenv.cfg", ".env",
)  # fmt: skip
DELIVERED_ONCE = ("start.sh", "fedcart-site.service")  # by older versions
MOST_NAMED = 5
SPECIAL, HOLES = "special file", "file of nothing but holes"
ELSEWHERE = "file with another name elsewhere"
_PLAIN = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)  # of all that our programs name in the state folder


def require_known_files(kit: SiteKit) -> None:
    """Return if a kit holds nothing but what belongs there. Raises: BadInputError naming what does not."""
    strange = sorted(strange_files(kit))
    if not strange:
        return
    named = ", ".join(ascii(name) for name in strange[:MOST_NAMED])
    more = f" and {len(strange) - MOST_NAMED} more" if len(strange) > MOST_NAMED else ""
    hint = "move them out of the kit, and ask the coordinator why they were in it; data may also lie elsewhere"
    if any(name.split(":")[0] in DELIVERED_ONCE for name in strange):
        hint = "remove start.sh and fedcart-site.service: fedcart site unit KIT writes a unit on your machine"
    raise BadInputError(f"not part of a kit: {named}{more}", hint=hint)


def strange_files(kit: SiteKit) -> list[str]:
    """Every path under the kit, relative to it, that does not belong there, with a word on what it is."""
    data, found, own_keys = _named_data(kit), list[str](), _public_key_file(kit)
    delivered = (kit.settings, kit.policy, kit.roster, kit.authority, kit.catalogue)
    files = {path.name for path in (*delivered, kit.identity_key, kit.node_key)}
    for path in sorted(kit.path.iterdir()):
        name = path.name
        if path == kit.state:
            found += _strange_state(kit, path)
        elif name in {*files, README_FILE, own_keys}:
            found += _unless_file(kit.path, path)
        else:
            found += _strange_data(kit.path, path, data)
    named = {name.split(": ")[0] for name in found}
    return found + [name for name in _linked_elsewhere(kit, files) if name.split(": ")[0] not in named]


def _linked_elsewhere(kit: SiteKit, files: set[str]) -> list[str]:
    """Files of ours that are another name of a file outside of the kit: what is written here would change that one.

    An operator's data may be: they are only read. Two names inside are what a crash leaves of a file that was just made.
    """
    ours = [path for path in kit.path.iterdir() if path.name in files]
    ours += [path for path in kit.state.rglob("*") if not {kit.flower_home, kit.work} & set(path.parents)]
    known = [(path, path.lstat()) for path in ours]
    inside = Counter(status.st_ino for _, status in known)
    linked = [p for p, of in known if stat.S_ISREG(of.st_mode) and of.st_nlink > inside[of.st_ino]]
    return [f"{path.relative_to(kit.path)}: a {ELSEWHERE}" for path in sorted(linked)]


def _public_key_file(kit: SiteKit) -> str:
    """``NAME.keys.json`` of this very site, which `site keygen` leaves beside its keys; empty if site.toml names none."""
    try:
        return f"{kit.read().site.name}{PUBLIC_SUFFIX}"
    except FedcartError:
        return ""  # whoever opens the site says what is wrong with site.toml


def _named_data(kit: SiteKit) -> set[Path]:
    """Events, mapping and catalogue that site.toml names inside the kit."""
    try:
        facts: SiteFile = kit.read()
    except FedcartError:
        return set()  # whoever opens the site says what is wrong with site.toml
    named = [facts.site.events, facts.site.mapping, facts.site.catalogue, *_of_source(facts)]
    paths = {Path(os.path.normpath(kit.path / name)) for name in named if name and "\0" not in name}
    return {path for path in paths if kit.path in path.parents}


def _fixed_part(pattern: str) -> str:
    """The folder in which a pattern begins to look; empty for the kit itself."""
    parts = Path(pattern).parts
    return os.path.join(*takewhile(lambda part: not glob.has_magic(part), parts), "")


def _of_source(facts: SiteFile) -> list[str]:
    """Files that ``[source]`` names: its query, its password, a database of SQLite, files without a pattern."""
    from common.source_settings import sqlite_name

    source = facts.source
    if source is None:
        return []
    files = [
        name for places in source.files.values() for name in ([places] if isinstance(places, str) else places)
    ]
    database = sqlite_name(source.uri) if source.driver == "sqlite" else ""
    whole = [name if not glob.has_magic(name) else _fixed_part(name) for name in files]
    return [source.query_file, source.password_file, database, *whole]


def _strange_data(kit: Path, path: Path, data: set[Path]) -> Iterator[str]:
    """A file that site.toml names, a folder of files that it names, or a folder on the way to one."""
    kind = _kind(path)
    belongs = any(path == named or named in path.parents for named in data)
    if kind == "file" and belongs and not path.name.lower().endswith(CODE_SUFFIXES):
        return
    if kind == "folder" and (belongs or any(path in named.parents for named in data)):
        for inner in sorted(path.iterdir()):
            yield from _strange_data(kit, inner, data)
        return
    yield _said(kit, path, kind)


def _strange_state(kit: SiteKit, path: Path) -> Iterator[str]:
    """The programs write the state folder; whatever they write is data, and known by how its name ends."""
    kind = _kind(path)
    if kind != "folder":
        yield _said(kit.path, path, kind)
        return
    for inner in sorted(path.iterdir()):
        kind = _kind(inner)
        if kind == "folder":
            if inner not in (kit.flower_home, kit.work):  # emptied at every start
                yield from _strange_state(kit, inner)
        elif kind != "file" or not _is_state(inner.name):
            yield _said(kit.path, inner, kind)


def _is_state(name: str) -> bool:
    """A name that our programs give; what a crash left of an atomic write is called ``.NAME.letters``."""
    whole = name[1:].rpartition(".")[0] if name.startswith(".") else name
    if not _PLAIN.fullmatch(name):
        return False
    return whole.endswith(STATE_SUFFIXES) and not name.lower().endswith(CODE_SUFFIXES)


def _unless_file(kit: Path, path: Path) -> Iterator[str]:
    kind = _kind(path)
    if kind != "file":
        yield _said(kit, path, kind)


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return HOLES if has_holes(path) else "file"
    return "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else SPECIAL


def _said(kit: Path, path: Path, kind: str) -> str:
    name = str(path.relative_to(kit))
    return name if kind == "file" else f"{name}: a {kind}"
