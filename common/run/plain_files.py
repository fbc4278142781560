"""What lies in a run folder where files belong, and is none: asked before anything in it is opened.

A folder that comes from somebody else may hold a pipe, which keeps its reader for ever, a device, which has no end, a link,
which shows another file's content, or a file of terabytes that takes no place on the disk and all of its reader's memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.atomic import has_holes
from common.errors import BadInputError
from common.run.paths import BEST, CHECKPOINTS, EVIDENCE, LEDGERS, PROOFS

FOLDERS = (CHECKPOINTS, EVIDENCE, PROOFS, LEDGERS, BEST)
_KINDS = {
    stat.S_IFREG: "a file of nothing but holes",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def no_files(run: Path) -> list[tuple[str, str]]:
    """(path in the run, what it is) of all that lies where files of a run belong and is none."""
    found = list(_no_files_in(run, inner=set(FOLDERS)))
    for name in FOLDERS:
        part = run / name
        if part.is_dir() and not part.is_symlink():
            found += [(f"{name}/{path}", kind) for path, kind in _no_files_in(part, inner=set())]
    return sorted(found)


def _no_files_in(folder: Path, inner: set[str]) -> Iterator[tuple[str, str]]:
    """Folders of other names are nobody's concern as long as they have no ending, as the names of all files have."""
    for path in folder.iterdir():
        kind = stat.S_IFMT(path.lstat().st_mode)
        is_folder = kind == stat.S_IFDIR
        if (kind == stat.S_IFREG and not has_holes(path)) or (
            is_folder and (path.name in inner or not path.suffix)
        ):
            continue
        yield path.name, _KINDS.get(kind, "a device")


def taken_folder(path: Path) -> Path:
    """A new folder of this name, or of one like it: two that ask in the same second get two.

    Raises: BadInputError if none can be made.
    """
    candidate, count = path, 1
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            count += 1
            candidate = path.with_name(f"{path.name}-{count}")
        except OSError as error:
            raise BadInputError(
                f"cannot make {candidate}: {error.strerror}", hint="choose another folder"
            ) from None


@contextmanager
def own_folder(path: Path) -> Iterator[Path]:
    """The folder of ``taken_folder`` for a while: gone again in the end if nothing came into it. Raises: BadInputError."""
    folder = taken_folder(path)
    try:
        yield folder
    finally:
        with suppress(OSError):  # something lies there: so it should
            folder.rmdir()
            folder.parent.rmdir()


def require_free(path: Path) -> None:
    """Return if a run folder could be made there. Raises: BadInputError if something is there already, or nothing can be."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInputError(f"output folder {path} is not empty", hint="choose a new --out, or --resume it")
    there = next(above for above in (path, *path.absolute().parents) if above.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise BadInputError(f"cannot write to {path}: {there} is no folder of yours", hint="choose another --out")
    from common.atomic import unwritable

    if why := unwritable(there):
        raise BadInputError(f"cannot write to {path}: {there}: {why}", hint="choose another --out")
