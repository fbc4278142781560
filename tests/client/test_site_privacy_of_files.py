"""What a site keeps on its disk is its owner's alone, and its key is made once."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.site import Site
from common.atomic import create_atomic
from common.deployment import SiteKit
from common.errors import BadInputError


def site_in(folder: Path) -> Site:
    facts = SimpleNamespace(name="shop", scope="shop", ledger="")
    return Site(SiteKit(folder), SimpleNamespace(site=facts), None, None, simulated=False)  # type: ignore[arg-type]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_diagnostics_and_state_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        site = site_in(tmp_path)
        site.note_locally({"round": 1})
        site.secret()
    finally:
        os.umask(before)
    assert mode(tmp_path / "state") == 0o700
    assert {mode(path) for path in (tmp_path / "state").iterdir()} == {0o600}


def test_what_an_older_version_left_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    notes = tmp_path / "state" / "diagnostics.jsonl"
    notes.write_text("")
    notes.chmod(0o644)
    site_in(tmp_path).note_locally({"round": 1})
    assert (mode(tmp_path / "state"), mode(notes)) == (0o700, 0o600)


def test_two_processes_that_start_at_once_hold_the_same_key(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        children = [_fork_and_keep_the_key(folder, name) for name in "abcd"]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
        assert len({(folder / name).read_bytes() for name in "abcd"} | {site_in(folder).secret()}) == 1


def _fork_and_keep_the_key(folder: Path, name: str) -> int:
    child = os.fork()
    if child:
        return child
    try:
        (folder / name).write_bytes(site_in(folder).secret())
        os._exit(0)
    finally:
        os._exit(1)


def test_whoever_comes_second_never_replaces_a_key(tmp_path: Path) -> None:
    create_atomic(tmp_path / "key", b"first", mode=0o600)
    create_atomic(tmp_path / "key", b"second", mode=0o600)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"first")]


def test_a_damaged_key_is_refused_not_replaced(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    site.secret()
    (tmp_path / "state" / "consumers.key").write_bytes(b"short")
    with pytest.raises(BadInputError, match="5 bytes"):
        site.secret()


def test_the_digest_of_the_split_key_follows_the_key_and_does_not_show_it(tmp_path: Path) -> None:
    a, b = site_in(tmp_path / "a"), site_in(tmp_path / "b")
    assert a.split_key() == a.split_key() != b.split_key()
    assert a.secret().hex() not in a.split_key() and len(a.split_key()) == 64
