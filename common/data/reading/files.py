"""From what a user names to files: one file, a folder, a pattern, several, standard input; packed or not.

Every fault is a BadInputError.
"""

from __future__ import annotations

import atexit
import glob
import gzip
import io
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal, cast

import polars as pl

from common.errors import BadInputError

Kind = Literal["parquet", "arrow", "json", "text"]
STDIN = "-"
PEEK_BYTES = 1 << 16
_WHOLE_FILE_HINT = "the file is damaged or was cut off; copy it again"
_FOREIGN = {
    b"SQLite format 3\0": ("a SQLite database", "name it as a source, see docs/data.md: [source] in site.toml"),
    b"Obj\x01": ("an Avro file", "export Parquet or CSV"),
    b"ORC": ("an ORC file", "export Parquet or CSV"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV UTF-8"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it first"),
    b"Rar!": ("a RAR archive", "unpack it first"),
    b"BZh": ("a bzip2 file", "unpack it first: bunzip2 FILE"),
    b"\xfd7zXZ": ("an xz file", "unpack it first: unxz FILE"),
}


@dataclass(frozen=True)
class Member:
    """One table of a source: a file, or a file in a ZIP archive. ``partitions``: columns that its folders name."""

    path: Path
    entry: str = ""
    partitions: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"{self.path.name}:{self.entry}" if self.entry else self.path.name


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn every way in which reading ``path`` can fail into a BadInputError."""
    try:
        yield
    except FileNotFoundError:
        raise BadInputError(f"no such file: {path}", hint="check the path") from None
    except PermissionError:
        raise BadInputError(f"not allowed to read {path}", hint="check the file's permissions") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInputError(f"{path} is not a complete gzip file: {error}", hint=_WHOLE_FILE_HINT) from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BadInputError(f"{path} is not a readable ZIP archive: {error}", hint=_WHOLE_FILE_HINT) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadInputError(f"cannot read {path}: {reason}", hint=_WHOLE_FILE_HINT) from None


def members(source: Path | str) -> tuple[Member, ...]:
    """The tables that a path, a folder, a pattern, ``-`` or several paths with the system's separator name, in order.

    Raises: BadInputError if there is none.
    """
    text = os.fspath(source)
    if text == STDIN:
        return _one(_spooled())
    path = Path(text)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return _one(path)
    if os.pathsep in text:
        return tuple(member for part in text.split(os.pathsep) if part for member in members(part))
    if glob.has_magic(text):
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            raise BadInputError(f"no file fits {text}", hint="check the pattern; quote it if the shell expands it")
        return tuple(member for name in found for member in members(name))
    return _one(path)


def _one(path: Path) -> tuple[Member, ...]:
    with readable(path):
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"PK\x03\x04":
            return (Member(path),)
        with zipfile.ZipFile(path) as archive:
            entries = [info.filename for info in archive.infolist() if not info.is_dir()]
    if any(name.startswith(("xl/", "[Content_Types]")) for name in entries):
        raise BadInputError(f"{path} is an Excel workbook", hint="save the sheet as CSV UTF-8")
    wanted = [Member(path, name) for name in sorted(entries) if not _passed_over(Path(name))]
    if not wanted:
        raise BadInputError(f"{path} is empty", hint="a ZIP archive with event files is needed")
    return tuple([member for member in wanted if not _is_empty(member)] or wanted)


def _in_folder(folder: Path) -> tuple[Member, ...]:
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_dir() or _passed_over(inside):
            continue
        hive = tuple(cast(tuple[str, str], tuple(part.split("=", 1))) for part in inside.parts[:-1] if "=" in part)
        found += [Member(one.path, one.entry, hive) for one in _one(path)]
    if len(found) > 1:
        found = [member for member in found if not _is_empty(member)] or found
    if not found:
        raise BadInputError(f"{folder} is a folder without a file", hint="name a folder that holds event files")
    return tuple(found)


def _is_empty(member: Member) -> bool:
    """Whether a table holds nothing but blanks, and is small enough to tell at once."""
    start = head(member)
    return not start.strip() and len(start) < PEEK_BYTES


def _passed_over(path: Path) -> bool:
    """Marks that other systems leave beside data: hidden files, ``_SUCCESS``, checksums."""
    return any(part.startswith((".", "_")) for part in path.parts) or path.suffix in (".crc", ".md5", ".sha256")


@cache
def _spooled() -> Path:
    """Standard input as a private file, for as long as this process lives."""
    folder = tempfile.mkdtemp(prefix="fedcart-")  # readable by its owner only
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


@contextmanager
def opened(member: Member) -> Iterator[IO[bytes]]:
    """The bytes of a table, unpacked: gzip and zstd by their magic bytes. Raises what ``readable`` turns around."""
    with _raw(member) as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(raw, "rb") as unpacked:
                yield cast(IO[bytes], unpacked)
        elif magic == b"\x28\xb5\x2f\xfd":
            yield _zstd(raw.read())
        else:
            yield raw


@contextmanager
def _raw(member: Member) -> Iterator[IO[bytes]]:
    if not member.entry:
        with member.path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(member.path) as archive, archive.open(member.entry) as inner:
        yield inner


def _zstd(packed: bytes) -> IO[bytes]:
    """Zstandard through polars, which brings it: one column of lines, put together again."""
    lines = pl.read_csv(
        packed, has_header=False, new_columns=["line"], separator="\x1f", quote_char=None, infer_schema=False,
        encoding="utf8-lossy", truncate_ragged_lines=True,
    )["line"]  # fmt: skip
    return io.BytesIO(("\n".join(lines.fill_null("")) + "\n").encode())


def head(member: Member) -> bytes:
    """The first bytes of a table, unpacked."""
    with readable(member.path), opened(member) as file:
        return file.read(PEEK_BYTES)


def is_blank(source: Path | str) -> bool:
    """True if nothing but blanks is in a text file."""
    for member in members(source):
        with readable(member.path), opened(member) as file:
            if any(part.strip() for part in iter(lambda: file.read(PEEK_BYTES), b"")):
                return False
    return True


def member_suffix(member: Member) -> str:
    """The end of a table's name, what packs it left out."""
    return suffix_of(member.entry or member.path.name)


def suffix_of(name: str) -> str:
    """The end of a file's name, what packs it left out."""
    name = name.lower()
    for packed in (".gz", ".zst", ".gzip"):
        name = name.removesuffix(packed)
    return Path(name).suffix


def kind_of(member: Member, start: bytes) -> Kind:
    """What a table is, by its first bytes. Raises: BadInputError for what no reading helps."""
    if start[:4] == b"PAR1":
        return "parquet"
    if start[:6] == b"ARROW1" or start[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    for magic, (what, hint) in _FOREIGN.items():
        if start.startswith(magic):
            raise BadInputError(f"{member.path} is {what}", hint=hint)
    if member_suffix(member) in (".json", ".jsonl", ".ndjson"):
        return "json"  # by its name: its first line is a consumer's
    first = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:2]
    if first[:1] == b"{" or (
        first[:1] == b"[" and start.lstrip(b"\xef\xbb\xbf \t\r\n[")[:1] in (b"{", b"]", b"[")
    ):
        return "json"
    return "text"
