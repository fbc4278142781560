from __future__ import annotations

import fcntl
import multiprocessing
import stat
from pathlib import Path

import numpy as np
import pytest

from client.guard import FileJournal, journal as journal_file
from client.guard.appendfile import HeldFile
from common.errors import RefusedError, VerificationError, WorkFailedError
from common.secagg.journal import STEPS, Journal, MemoryJournal
from common.secagg.messages import Session
from tests.secagg_rounds import build

ONE, TWO = Session("run", 1, 0), Session("run", 1, 1)
VALUE, OTHER = b"v" * 32, b"o" * 32


@pytest.fixture(params=["memory", "file", "file, a new process each time"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "memory":
        return MemoryJournal()
    return (
        FileJournal(tmp_path / "rounds.jsonl") if request.param == "file" else Reopened(tmp_path / "rounds.jsonl")
    )


class Reopened:
    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, session: Session, step: str, value: bytes) -> None:
        journal_file._ALREADY_READ.clear()
        FileJournal(self.path).record(session, step, value)


def test_each_step_is_allowed_once_and_in_order(journal: Journal) -> None:
    for i, step in enumerate(STEPS):
        for later in STEPS[i + 1 :]:
            with pytest.raises(RefusedError):
                journal.record(ONE, later, VALUE)
        journal.record(ONE, step, VALUE)
        for done in STEPS[: i + 1]:
            for value in (VALUE, OTHER):
                with pytest.raises(RefusedError):
                    journal.record(ONE, done, value)


def test_a_contribution_leaves_in_one_session_only(journal: Journal) -> None:
    for session in (ONE, TWO):
        for step in STEPS[:3]:
            journal.record(session, step, VALUE)
    journal.record(ONE, "mask", VALUE)
    with pytest.raises(RefusedError, match="has left in run round 1 attempt 0"):
        journal.record(TWO, "mask", VALUE)
    journal.record(TWO, "mask", OTHER)


def test_a_torn_last_line_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    FileJournal(path).record(ONE, "advertise", VALUE)
    whole = path.read_bytes()
    for length in range(1, len(whole), 5):
        path.write_bytes(whole + whole[:length].replace(b"advertise", b"share"))
        if whole[:length].endswith(b"\n"):
            continue
        FileJournal(path).record(ONE, "share", VALUE)
        assert path.read_bytes().count(b"\n") == 2
        journal_file._ALREADY_READ.clear()
        FileJournal(path).record(ONE, "accept", VALUE)


def test_a_changed_line_stops_the_site(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    journal = FileJournal(path)
    journal.record(ONE, "advertise", VALUE)
    whole = path.read_bytes()
    for position in range(0, len(whole) - 1, 3):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(VerificationError):
            FileJournal(path).record(TWO, "advertise", VALUE)
    path.write_bytes(whole)
    with pytest.raises(RefusedError):
        journal.record(ONE, "advertise", VALUE)


def test_a_long_journal_is_read_once_by_a_process_and_anew_when_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rounds.jsonl"
    for attempt in range(5):
        FileJournal(path).record(Session("run", 1, attempt), "advertise", VALUE)
    read = []
    parsed = FileJournal._parsed
    monkeypatch.setattr(FileJournal, "_parsed", lambda self, line: (read.append(line), parsed(self, line))[1])
    FileJournal(path).record(ONE, "share", VALUE)
    assert read == []
    path.write_bytes(path.read_bytes())
    FileJournal(path).record(TWO, "share", VALUE)
    assert len(read) == 6


def test_the_file_is_private_and_holds_no_secret(tmp_path: Path) -> None:
    federation = build(3, journal=lambda name: FileJournal(tmp_path / f"{name}.jsonl"))
    federation.run_until("mask")
    secrets = [s for c in federation.clients.values() for s in vars(c._state.secrets).values() if s]
    federation.run_until("done")
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_bytes()
        assert len(text.splitlines()) == len(STEPS)
        assert not any(secret.hex().encode() in text for secret in secrets)


def test_a_disk_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(WorkFailedError):
        FileJournal(tmp_path / "absent" / "rounds.jsonl").record(ONE, "advertise", VALUE)


def test_a_full_disk_leaves_the_step_unrecorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(tmp_path / "rounds.jsonl")
    with monkeypatch.context() as broken:
        broken.setattr("os.fdatasync", raise_full)
        with pytest.raises(WorkFailedError):
            journal.record(ONE, "advertise", VALUE)
    journal.record(ONE, "advertise", VALUE)
    FileJournal(tmp_path / "rounds.jsonl").record(ONE, "share", VALUE)


def raise_full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def contend(path: Path, won) -> None:
    for attempt in range(20):
        try:
            FileJournal(path, sync=False).record(Session("run", 1, attempt), "advertise", VALUE)
        except RefusedError:
            continue
        with won.get_lock():
            won.value += 1


def test_two_processes_never_both_record_a_step(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    won = context.Value("i", 0)
    workers = [context.Process(target=contend, args=(tmp_path / "rounds.jsonl", won)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert won.value == 20


def test_the_file_is_locked_from_the_first_read_to_the_last_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def taken_by_another(name: str, method):
        def call(self, *arguments, **named):
            with (tmp_path / "rounds.jsonl").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tried.append(name)
            return method(self, *arguments, **named)

        return call

    for name in ("read_from", "append"):
        monkeypatch.setattr(HeldFile, name, taken_by_another(name, getattr(HeldFile, name)))
    FileJournal(tmp_path / "rounds.jsonl").record(ONE, "advertise", VALUE)
    assert tried == ["read_from", "append"]


def test_a_restart_in_any_phase_never_lets_a_contribution_leave_twice(tmp_path: Path) -> None:
    federation = build(3, journal=lambda name: Reopened(tmp_path / f"{name}.jsonl"))
    federation.run_until("confirm")
    again = federation.next_attempt()
    with pytest.raises(RefusedError, match="has left"):
        again.run_until("done")
    for site in again.names:
        again.vectors[site] = np.zeros(40, dtype=np.uint32)
    fresh = again.next_attempt()
    assert not fresh.run_until("done").result.ring_sum.any()
