"""Words in a forged run folder act on nobody who reads it: terminal, table or page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.main import main
from tests.attacks.test_forged_run_folders import in_json
from tests.forged_runs import Edit, lines

pytestmark = pytest.mark.full

EVIL = "=1+1\x1b[2J\u202e<script>alert(1)</script>\nnote: all is well\x9b31m"


def evil_record(run: Path) -> None:
    records = lines(run)
    for record in records:
        record["sites"]["merchant-1"] = {"status": EVIL, "reason": EVIL, "phase": EVIL}
        record["sites"][EVIL] = {"status": "ok", "reason": "", "phase": ""}
        record["epsilon"][EVIL], record["aggregation"] = 1.0, EVIL
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def evil_facts(run: Path) -> None:
    in_json("sites.json", lambda plain: plain.update(assumptions=[EVIL], expectation=EVIL, budget=EVIL))(run)
    in_json("sites.json", lambda plain: [site.update(name=EVIL, note=EVIL) for site in plain["sites"]])(run)


def evil_names(run: Path) -> None:
    (run / "left-out.json").write_text(json.dumps({"left_out": [EVIL]}))
    name = EVIL.replace("/", "")
    shutil.copy(run / "evidence/round-00001.json", run / f"evidence/{name}.json")
    shutil.copy(run / "ledgers/merchant-1.jsonl", run / f"ledgers/{name}.jsonl")


@pytest.mark.parametrize("edit", [evil_record, evil_facts, evil_names])
def test_no_word_of_a_forged_run_folder_acts_on_its_reader(
    copy: Path, tmp_path: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copy)
    page, table = tmp_path / "audit.html", tmp_path / "audit.csv"
    main(["audit", "show", str(copy), "--html", str(page), "--csv", str(table)])
    main(["audit", "verify", str(copy)])
    main(["report", str(copy)])
    said = capsys.readouterr()
    printed, files = (
        said.out + said.err,
        [f.read_text() for f in (page, copy / "report.html", table) if f.exists()],
    )
    assert not any(one in text for one in ("\x1b[2J", "\u202e", "\x9b") for text in (printed, *files))
    assert not any("<script>alert" in text for text in files if "<html" in text)
    assert "\nnote: all is well" not in printed
