"""Folders that nobody has named: two runs begun in the same second have folders of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from common.errors import BadInputError
from common.run import taken_folder


def test_who_asks_at_the_same_time_gets_another_folder(tmp_path):
    wanted = tmp_path / "runs" / "market-20261128-064000"
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: taken_folder(wanted), range(40)))
    assert len(set(taken)) == 40
    assert all(path.is_dir() and path.name.startswith(wanted.name) for path in taken)


def test_a_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "a").write_text("mine")
    assert taken_folder(tmp_path / "a") == tmp_path / "a-2"
    with pytest.raises(BadInputError, match="cannot make"):
        taken_folder(tmp_path / "a" / "b")
