"""The book of verdicts: it only grows, keeps both sides of a contradiction, undoes, forgets, and survives a crash."""

import errno
import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.anomalies.evidence import Verdict
from client.anomalies.verdicts import FILE, LEGACY, VerdictBook
from client.guard.appendfile import hold
from common.errors import BadInputError, WorkFailedError


def test_conflicting_verdicts_are_both_kept_and_the_latest_counts(tmp_path):
    book = VerdictBook(tmp_path / "home")
    book.say([Verdict(7, True, 1.5, 1.0, 5, "alarm-1"), Verdict(9, False)])
    book.say([Verdict(7, False, 1.5, 1.0, 5, "alarm-1")])
    assert [(one.number, one.anomaly) for one in book.said()] == [(1, True), (2, False), (3, False)]
    assert {one.about: one.anomaly for one in book.standing()} == {"alarm-1": False, f"{9:016x}": False}
    assert all(one.said > 0 for one in book.said())
    assert stat.S_IMODE((tmp_path / "home" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_the_same_word_on_the_same_alarm_is_written_once(tmp_path):
    book = VerdictBook(tmp_path)
    for _ in range(3):
        book.say([Verdict(7, False, 1.5, 1.0, 5)])
    assert len(book.said()) == 1


def test_an_undone_verdict_stays_in_the_book_and_counts_no_more(tmp_path):
    book = VerdictBook(tmp_path)
    book.say([Verdict(7, True, 1.5, 1.0, 5, "x")])
    book.say([Verdict(7, False, 1.5, 1.0, 5, "x")])
    assert book.undo(2).undone
    assert [one.anomaly for one in book.standing()] == [True]
    assert len(book.said()) == 2
    for wrong in (2, 3):
        with pytest.raises(BadInputError, match=f"no verdict {wrong}"):
            book.undo(wrong)


def test_a_forgotten_consumer_is_in_the_file_no_more_and_numbers_go_on(tmp_path):
    book = VerdictBook(tmp_path)
    book.say([Verdict(7, True), Verdict(8, True), Verdict(7, False)])
    book.undo(2)
    assert book.forget(8) == 1
    assert book.forget(8) == 0
    assert book.forget(7) == 2
    assert f"{7:016x}" not in (tmp_path / FILE).read_text()
    assert book.say([Verdict(5, True)])[0].number == 4


def test_a_full_disk_while_somebody_is_forgotten_costs_no_other_verdict(tmp_path, monkeypatch):
    book = VerdictBook(tmp_path)
    book.say([Verdict(7, True), Verdict(8, False)])
    before = (tmp_path / FILE).read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no space left on the device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full), patch.setattr("tempfile.mkstemp", full)
        with pytest.raises(WorkFailedError):
            book.forget(7)
    assert (tmp_path / FILE).read_bytes() == before


def test_who_waits_for_the_book_writes_into_the_one_that_is_there_then(tmp_path):
    book = VerdictBook(tmp_path)
    book.say([Verdict(7, True), Verdict(8, False)])
    with ThreadPoolExecutor(1) as pool:
        with hold(tmp_path / FILE) as file:
            waiting = pool.submit(book.say, [Verdict(9, True)])
            time.sleep(0.05)
            file.replace(b"".join(file.read_from(0).splitlines(keepends=True)[1:]))
        waiting.result()
    assert [one.consumer for one in book.said()] == [8, 9]


def test_a_line_cut_off_by_a_crash_is_dropped_and_a_damaged_one_refused(tmp_path):
    book = VerdictBook(tmp_path)
    book.say([Verdict(7, True)])
    with (tmp_path / FILE).open("a") as file:
        file.write('{"consumer": "00')
    assert [one.consumer for one in book.said()] == [7]
    book.say([Verdict(8, True)])
    assert len(book.said()) == 2
    for damage in ("{nonsense\n", '{"consumer": 7}\n', "[]\n", '{"consumer": "zz", "anomaly": true}\n'):
        (tmp_path / FILE).write_text(damage)
        with pytest.raises(BadInputError, match="line 1 is damaged"):
            book.said()


def test_what_an_earlier_version_remembered_is_taken_over(tmp_path):
    lines = [{"consumer": f"{n:016x}", "anomaly": n == 1, "score": None} for n in (1, 2)]
    (tmp_path / LEGACY).write_text("".join(json.dumps(line) + "\n" for line in lines))
    book = VerdictBook(tmp_path)
    assert {one.consumer: one.anomaly for one in book.standing()} == {1: True, 2: False}
    assert not (tmp_path / LEGACY).exists()
    assert book.say([Verdict(3, True)])[0].number == 3


def test_two_that_write_at_once_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: VerdictBook(tmp_path).say([Verdict(n, True)]), range(40)))
    assert sorted(one.number for one in VerdictBook(tmp_path).said()) == list(range(1, 41))


def test_whoever_reads_along_hears_of_changes_only(tmp_path):
    reader, writer = VerdictBook(tmp_path), VerdictBook(tmp_path)
    assert reader.news() == []
    assert reader.news() is None
    writer.say([Verdict(7, True)])
    assert [one.consumer for one in reader.news()] == [7]
    assert reader.news() is None
    writer.undo(1)
    assert reader.news() == []
