"""What a stranger, and a coordinator who signs anything, can do to a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.deployment import Kits
from common.run.files import RunFolder
from common.run.manifest import seal_run
from common.run.records import RoundRecord
from common.strict_json import one_line
from common.trust.identity import Identity

Edit = Callable[[Path], object]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def put(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "metrics.jsonl").write_text("".join(one_line(record) + "\n" for record in records))


def coordinator_of(run: Path) -> Identity:
    return Identity.load("coordinator", Kits(run).coordinator.identity_key)


def sign_again(run: Path, change: Callable[[list[RoundRecord]], list[RoundRecord]]) -> None:
    """What a coordinator can do: other records, all signed anew, and a manifest over them."""
    folder, coordinator = RunFolder.open(run), coordinator_of(run)
    records = change(folder.metrics())
    (run / "metrics.jsonl").write_bytes(b"")
    for record in records:
        record = replace(record, previous=folder.last_record())
        folder.append_round(replace(record, signature=coordinator.sign(bytes.fromhex(record.digest)).hex()))
    rounds = sum(record.kind == "train" for record in records)
    summary = replace(folder.summary(), rounds=rounds, sums=rounds, epsilon=records[-1].epsilon)
    summary = replace(summary, metrics={"released": records[-1].released, "public": records[-1].public})
    folder.write_summary(summary)
    seal_run(folder, summary, coordinator)
