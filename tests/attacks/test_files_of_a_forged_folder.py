"""What stands in the place of a run's file and is none: named, never opened, never read whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cli.main import main
from common.errors import FedcartError
from common.trust.identity import Roster
from tests.attacks.test_forged_run_folders import READ, found

pytestmark = pytest.mark.full

SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_is_named_and_never_opened(copy: Path, name: str, kind: str) -> None:
    trusted = Roster.load(copy / "roster.json")
    (copy / name).unlink(missing_ok=True)
    SPECIAL[kind](copy / name)
    if name == "run.toml":  # without it the folder is none of a run
        with suppress(FedcartError):
            assert found(copy, trusted)
    else:
        assert f"{name}: is {kind}, and no file of a run" in found(copy, trusted)


@pytest.mark.parametrize("name", READ)
def test_a_file_of_nothing_but_holes_takes_nobodys_memory(copy: Path, name: str) -> None:
    """A terabyte that takes no place on the disk, nor in what it was packed in."""
    trusted = Roster.load(copy / "roster.json")
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).touch()
    os.truncate(copy / name, 1 << 40)
    with suppress(FedcartError):
        assert f"{name}: is a file of nothing but holes, and no file of a run" in found(copy, trusted)


@pytest.mark.parametrize("command", [("audit", "show"), ("audit", "verify"), ("report",), ("audit", "export")])
def test_no_command_opens_a_pipe(copy: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    (copy / "summary.json").unlink()
    os.mkfifo(copy / "summary.json")
    out = [str(tmp_path / "out")] if command[-1] == "export" else []
    assert main([*command, str(copy), *out]) in (1, 2)


@pytest.mark.parametrize("command", [("audit", "show"), ("audit", "verify"), ("report",), ("audit", "export")])
def test_no_command_reads_holes(
    copy: Path, tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(copy / "metrics.jsonl", 1 << 40)
    out = [str(tmp_path / "out")] if command[-1] == "export" else []
    assert main([*command, str(copy), *out]) in (1, 2)
    assert "metrics.jsonl" in capsys.readouterr().err
