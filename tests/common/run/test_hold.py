"""Who is at work on a run folder, and how it is told to stop."""

import os

import pytest

from common.errors import BadInputError
from common.run.files import RunFolder
from common.run.hold import ask_to_stop, hold_run, holder, run_is_held, stop_is_asked


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def test_a_run_is_held_by_one_process_whose_id_others_can_read(folder):
    assert (run_is_held(folder), holder(folder)) == (False, None)
    with hold_run(folder):
        assert (run_is_held(folder), holder(folder)) == (True, os.getpid())
        with pytest.raises(BadInputError, match="under way"), hold_run(folder):
            pass
    assert (run_is_held(folder), holder(folder)) == (False, None)


def test_the_word_to_stop_is_for_one_life_of_a_run(folder):
    with hold_run(folder):
        assert not stop_is_asked(folder)
        ask_to_stop(folder)
        assert stop_is_asked(folder)
    with hold_run(folder):
        assert not stop_is_asked(folder)
