"""A file is there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from common import atomic
from common.atomic import disk_errors, unwritable, write_atomic
from common.errors import BadInputError, WorkFailedError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(WorkFailedError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_folder_in_which_no_file_can_be_made_says_why(tmp_path):
    assert unwritable(tmp_path) == "" and not list(tmp_path.iterdir())
    assert unwritable(tmp_path / "none")
    if Path("/proc/self").exists():
        assert unwritable(Path("/proc"))  # open to its owner by its mode, and takes no file


@pytest.mark.parametrize(
    ("number", "space"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False), (errno.ENOENT, False)]
)
def test_the_hint_fits_the_cause_of_what_cannot_be_written(number, space):
    with pytest.raises(WorkFailedError) as failed, disk_errors(Path("run/model")):
        raise OSError(number, "why")
    assert ("free some space" in (failed.value.hint or "")) == space


def test_where_a_disk_keeps_what_fsync_says_is_there_the_full_sync_is_asked_for(tmp_path, monkeypatch):
    """macOS: no fdatasync, and F_FULLFSYNC."""
    asked = []
    monkeypatch.setattr(atomic, "FULL_SYNC", 51)
    monkeypatch.setattr(atomic.fcntl, "fcntl", lambda fd, command: asked.append(command))
    monkeypatch.delattr(atomic.os, "fdatasync")
    monkeypatch.setattr(atomic.os, "fsync", lambda _: asked.append("fsync"))
    write_atomic(tmp_path / "a", b"x")
    atomic.make_durable(0, length_only=True)
    assert asked == [51, 51, 51]

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(atomic.fcntl, "fcntl", unknown)
    atomic.make_durable(0, length_only=True)
    assert asked[-1] == "fsync", "a share that does not know it"


def test_a_system_without_locks_says_what_works_there(monkeypatch, tmp_path):
    """Windows."""
    monkeypatch.setattr(atomic, "fcntl", None)
    write_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    with pytest.raises(BadInputError, match="Linux or macOS"), open(tmp_path / "a") as file:
        atomic.lock(file)
