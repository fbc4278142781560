"""Who is at work on a run folder, and how it is told to stop."""

import fcntl
import os
import threading
import time

import pytest

from common.errors import BadInputError
from common.run.files import RunFolder
from common.run.hold import (
    ask_to_stop,
    hold_run,
    hold_submission,
    holder,
    run_is_held,
    run_is_submitted,
    stop_is_asked,
    submitted,
)
from common.run.paths import LOCK_FILE


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


@pytest.fixture
def glance(monkeypatch) -> None:
    """Somebody who holds a folder does not let go in these tests: that need not be awaited for long."""
    monkeypatch.setattr("common.run.hold.GLANCE_S", 0.1)


def test_a_run_is_held_by_one_process_whose_id_others_can_read(folder, glance):
    assert (run_is_held(folder), holder(folder)) == (False, None)
    with hold_run(folder):
        assert (run_is_held(folder), holder(folder)) == (True, os.getpid())
        with pytest.raises(BadInputError, match="under way"), hold_run(folder):
            pass
    assert (run_is_held(folder), holder(folder)) == (False, None)


def test_somebody_who_looks_does_not_turn_the_holder_away(folder):
    looked = threading.Event()

    def look() -> None:
        with open(folder.path / LOCK_FILE, "a", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            looked.set()
            time.sleep(0.2)

    looker = threading.Thread(target=look)
    looker.start()
    looked.wait()
    with hold_run(folder):
        looker.join()
        assert holder(folder) == os.getpid()


def test_a_run_is_submitted_by_one_screen_at_a_time(folder, glance):
    assert not run_is_submitted(folder)
    with hold_submission(folder):
        assert (run_is_submitted(folder), run_is_held(folder)) == (True, False)
        with hold_run(folder):
            assert run_is_held(folder)
        with pytest.raises(BadInputError, match="under way"), hold_submission(folder):
            pass
    assert not run_is_submitted(folder)


def test_who_looks_at_a_new_submission_never_reads_the_number_of_an_earlier_one(folder):
    with hold_submission(folder) as tell:
        assert submitted(folder) is None
        tell(17)
        assert submitted(folder) == 17
    assert submitted(folder) == 17  # the screen is gone, the run may go on
    seen, over = set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            if run_is_submitted(folder):
                seen.add(submitted(folder))

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(200):
        with hold_submission(folder) as tell:
            tell(18)
    over.set()
    looker.join()
    assert 17 not in seen
    assert seen <= {None, 18}


def test_the_word_to_stop_is_for_one_life_of_a_run(folder):
    with hold_run(folder):
        assert not stop_is_asked(folder)
        ask_to_stop(folder)
        assert stop_is_asked(folder)
    with hold_run(folder):
        assert not stop_is_asked(folder)
