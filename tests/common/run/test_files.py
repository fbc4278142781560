"""The run folder: atomic, append-only, honest about damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import BadInputError
from common.run.files import RunFolder
from common.run.records import RoundRecord, SiteRound


def _record(number: int) -> RoundRecord:
    return RoundRecord(
        number, released={"loss": 1.5}, sites={"a": SiteRound("ok"), "b": SiteRound("lost", "late", "share")}
    )


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    for number in (1, 2, 3):
        folder.append_round(_record(number))
    assert folder.metrics() == [_record(1), _record(2), _record(3)]
    assert folder.metrics()[0].answered == 1
    folder.truncate_metrics(2)
    assert [r.round for r in folder.metrics()] == [1, 2]


def test_a_torn_last_line_was_never_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.append_round(_record(1))
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(_record(2).to_json().encode()[:-5])
    assert folder.metrics() == [_record(1)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.append_round(_record(1))
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(BadInputError, match="line 2"):
        folder.metrics()


def test_a_folder_with_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(BadInputError, match="not empty"):
        RunFolder.create(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_a_folder_without_settings_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"run\.toml"):
        RunFolder.open(tmp_path)
