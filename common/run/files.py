"""``RunFolder`` writes and reads the files of a run, but for locks (``hold``) and checkpoints (``server.state``).

Their names are in ``common.run.paths``.

Every file is written under a temporary name, synced, and renamed; ``metrics.jsonl`` is append-only and
a torn last line was never written.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from common.atomic import disk_errors, make_durable, write_atomic
from common.errors import BadInputError
from common.plain_text import shown
from common.run.config import RunConfig
from common.run.facts import RunFacts
from common.run.loading import load_config, read_toml
from common.run.paths import (
    CARD_FILE,
    COUNTERSIGNED_FILE,
    DELIVERED_FILE,
    FACTS_FILE,
    INITIAL_FILE,
    ITEM_OF_FILE,
    LEAVING_FILE,
    LEFT_OUT_FILE,
    MANIFEST_FILE,
    MARKET_FILE,
    MASKS_FILE,
    METADATA_FILE,
    METRICS_FILE,
    NOTES_FILE,
    OWN_DATA_FILE,
    PLAN_FILE,
    PROGRESS_FILE,
    REPORT_FILE,
    SESSIONS_FILE,
    SETTINGS_FILE,
    SUMMARY_FILE,
    WEIGHTS_FILE,
    RunPaths,
    round_file,
)
from common.run.plain_files import no_files, require_free
from common.run.plan import RunPlan
from common.run.records import (
    RUNNING,
    RoundRecord,
    Summary,
)
from common.strict_json import one_line, read, readable
from common.trust import ROSTER_FILE, Roster

_LARGEST = 1 << 28
_INCOMPLETE = "the run folder is incomplete or damaged"


@dataclass(frozen=True)
class Progress:
    """What a run does just now: ``done`` of ``total`` sites have answered to ``phase`` of a round (0: before)."""

    round: int
    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class RunFolder(RunPaths):
    """A run folder by path. Example: ``RunFolder(Path("runs/x")).metrics()``."""

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a run folder is there."""
        return (path / SETTINGS_FILE).is_file()

    @staticmethod
    def create(path: Path) -> RunFolder:
        """Make a new, empty run folder. Raises: BadInputError if it exists with content or cannot be written."""
        require_free(path)
        folder = RunFolder(path)
        try:
            for part in (folder.checkpoints, folder.ledgers, folder.evidence, folder.proofs, folder.oracle):
                part.mkdir(parents=True, exist_ok=True)
            write_atomic(path / METRICS_FILE, b"")
        except OSError as error:
            raise BadInputError(f"cannot write to {path}: {error.strerror}", hint="choose another --out") from None
        return folder

    @staticmethod
    def open(path: Path) -> RunFolder:
        """Open an existing run folder. Raises: BadInputError if it is not one, or holds what is no file."""
        if not RunFolder.is_one(path):
            raise BadInputError(
                f"{path} is not a run folder: no {SETTINGS_FILE}",
                hint="name the folder that `fedcart simulate --out` made",
            )
        for name, kind in no_files(path):
            raise BadInputError(
                f"{path}: {shown(name)} is {kind}, and no file of a run", hint="do not trust this folder"
            )
        return RunFolder(path)

    @staticmethod
    def all_in(folder: Path) -> list[RunFolder]:
        """The run folders in a folder, oldest first."""
        runs = sorted(folder.glob(f"*/{SETTINGS_FILE}"), key=lambda path: path.stat().st_mtime_ns)
        return [RunFolder(path.parent) for path in runs]

    # settings, plan, roster, item rows: fixed before round 1

    def write_settings(self, config: RunConfig) -> None:
        """Write all settings."""
        write_atomic(self.path / SETTINGS_FILE, config.to_toml().encode())

    def settings(self) -> RunConfig:
        """All settings, validated. Raises: ConfigError, BadInputError."""
        return load_config(self.path / SETTINGS_FILE)

    def settings_as_written(self) -> dict[str, Any]:
        """The sections of the settings file as they are there. Raises: BadInputError."""
        return read_toml(self.path / SETTINGS_FILE)

    def write_plan(self, plan: RunPlan) -> None:
        """Write the plan."""
        write_atomic(self.path / PLAN_FILE, plan.to_json().encode())

    def plan(self) -> RunPlan:
        """The run's plan. Raises: BadInputError, ConfigError."""
        try:
            return RunPlan.from_json((self.path / PLAN_FILE).read_text("utf-8"))
        except OSError:
            raise BadInputError(f"cannot read {self.path / PLAN_FILE}", hint=_INCOMPLETE) from None

    def write_roster(self, roster: Roster) -> None:
        """Write who takes part, with public keys."""
        roster.save(self.path / ROSTER_FILE)

    def roster(self) -> Roster:
        """Who takes part. Raises: BadInputError."""
        return Roster.load(self.path / ROSTER_FILE)

    def write_item_rows(self, masks: Mapping[str, NDArray[np.bool_]], item_of: NDArray[np.int32]) -> None:
        """Write each site's public item mask, and the catalogue row of each coordinate (-1: none)."""
        rows, layout = io.BytesIO(), io.BytesIO()
        arrays: dict[str, Any] = dict(masks)
        np.savez_compressed(rows, **arrays)
        np.save(layout, item_of, allow_pickle=False)
        write_atomic(self.path / MASKS_FILE, rows.getvalue())
        write_atomic(self.path / ITEM_OF_FILE, layout.getvalue())

    def item_masks(self) -> dict[str, NDArray[np.bool_]]:
        """Each site's public item mask ``bool[items]``; empty without a catalogue. Raises: BadInputError."""
        if not (self.path / MASKS_FILE).exists():
            return {}
        try:
            with np.load(self.path / MASKS_FILE, allow_pickle=False) as stored:
                return {name: np.asarray(stored[name], dtype=np.bool_) for name in stored.files}
        except (OSError, ValueError, BadZipFile):
            raise BadInputError(f"{self.path / MASKS_FILE} is damaged", hint=_INCOMPLETE) from None

    def item_of(self) -> NDArray[np.int32]:
        """The catalogue row of each coordinate: ``int32[d]``. Raises: BadInputError."""
        try:
            rows: NDArray[np.int32] = np.load(self.path / ITEM_OF_FILE, allow_pickle=False)
        except (OSError, ValueError):
            raise BadInputError(f"{self.path / ITEM_OF_FILE} is damaged", hint=_INCOMPLETE) from None
        return rows

    def write_facts(self, facts: RunFacts) -> None:
        """Write what is known before round 1."""
        self._write(FACTS_FILE, facts.to_json())

    def facts(self) -> RunFacts | None:
        """What was known before round 1, None if it is not written yet. Raises: BadInputError."""
        made: RunFacts | None = self._read_as(FACTS_FILE, RunFacts.from_json)
        return made

    def write_initial(self, vector: NDArray[np.float32]) -> None:
        """Keep the parameters before round 1, for reference runs: ``float32[d]``. Simulations only."""
        write_atomic(self.oracle / INITIAL_FILE, vector.tobytes())

    def initial(self) -> NDArray[np.float32]:
        """The parameters before round 1: ``float32[d]``."""
        return np.frombuffer((self.oracle / INITIAL_FILE).read_bytes(), dtype=np.float32).copy()

    def write_own_data(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the sites of a simulation make of the model with their own data."""
        write_atomic(self.oracle / OWN_DATA_FILE, readable([dict(row) for row in rows]).encode())

    def own_data(self) -> list[dict[str, Any]]:
        """The same, the smallest site first; empty if it was not asked for, or is damaged: a picture goes without it."""
        try:
            return [dict(row) for row in json.loads((self.oracle / OWN_DATA_FILE).read_bytes())]
        except (OSError, ValueError, TypeError):
            return []

    # rounds

    def last_record(self) -> str:
        """The digest of the last round's record, which the next one names; that of the plan if there is none."""
        path = self.path / METRICS_FILE
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return RoundRecord.from_json(lines[-1].decode()).digest if lines else self.plan().digest().hex()

    def append_round(self, record: RoundRecord) -> None:
        """Append one line to the metrics, durable before returning. Raises: WorkFailedError (disk full)."""
        line = (record.to_json() + "\n").encode()
        with disk_errors(self.path):
            fd = os.open(self.path / METRICS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(28, "no space left on device")
                make_durable(fd)
            finally:
                os.close(fd)

    def metrics(self) -> list[RoundRecord]:
        """All rounds, in order. Raises: BadInputError naming the first damaged line."""
        path = self.path / METRICS_FILE
        records = []
        lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
        for number, line in enumerate(lines[:-1], start=1):  # after the last newline: torn, never written
            try:
                records.append(RoundRecord.from_json(line.decode()))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise BadInputError(
                    f"{path}, line {number}: not a round record", hint="restore the file from a backup"
                ) from None
        return records

    def truncate_metrics(self, rounds: int) -> None:
        """Keep the records of the first ``rounds`` rounds, for a resume from an earlier checkpoint."""
        kept = [r for r in self.metrics() if r.round <= rounds]
        write_atomic(self.path / METRICS_FILE, "".join(r.to_json() + "\n" for r in kept).encode())

    def write_evidence(self, number: int, text: str) -> None:
        """Write what the secure sum of a round leaves to be verified."""
        write_atomic(round_file(self.evidence, number, "json"), text.encode())

    def write_proofs(self, number: int, text: str) -> None:
        """Write what proves the faults of a round."""
        self.proofs.mkdir(exist_ok=True)  # a run that an older version began has none
        write_atomic(round_file(self.proofs, number, "json"), text.encode())

    def write_countersigned(self, last: str, signatures: Mapping[str, str]) -> None:
        """Write who signed the record as it stood at the close: ``last`` is the digest of its last round."""
        known = self.countersigned()
        before = known["sites"] if known.get("last") == last else {}
        self._write(COUNTERSIGNED_FILE, {"last": last, "sites": {**before, **signatures}})

    def countersigned(self) -> dict[str, Any]:
        """``last`` and ``sites``: name -> signature (hex); empty if nobody has. Raises: BadInputError."""
        there = (self.path / COUNTERSIGNED_FILE).exists()
        return dict(self._read(COUNTERSIGNED_FILE)) if there else {}

    def add_delivered(self, models: Mapping[str, str]) -> None:
        """Note which site keeps which model now: site -> SHA-256 of its ``model.json``."""
        known = self.delivered()
        self._write(DELIVERED_FILE, known | {site: [*known.get(site, []), one] for site, one in models.items()})

    def delivered(self) -> dict[str, list[str]]:
        """The models that each site has said it keeps. Raises: BadInputError."""
        return dict(self._read(DELIVERED_FILE)) if (self.path / DELIVERED_FILE).exists() else {}

    def write_left_out(self, folders: Sequence[str]) -> None:
        """Say which files and folders of the run an export does not have."""
        self._write(LEFT_OUT_FILE, {"left_out": list(folders)})

    def left_out(self) -> list[str]:
        """Files and folders that an export says it does not have; empty for a run folder. Raises: BadInputError."""
        names = self._read_as(LEFT_OUT_FILE, lambda plain: plain["left_out"]) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadInputError(f"{self.path / LEFT_OUT_FILE} lists no names", hint=_INCOMPLETE)
        return names

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write what the coordinator signed of the whole run."""
        self._write(MANIFEST_FILE, dict(manifest))

    def manifest(self) -> dict[str, Any]:
        """What the coordinator signed of the whole run; empty while it is not over. Raises: BadInputError."""
        return dict(self._read_as(MANIFEST_FILE, dict) or {})

    def mark_leaving(self, mark: Mapping[str, Any]) -> None:
        """Say, durably, that contributions of a round may have left their sites."""
        write_atomic(self.checkpoints / LEAVING_FILE, one_line(dict(mark)).encode())

    def leaving(self) -> dict[str, Any]:
        """The newest mark that contributions may have left; empty if there is none."""
        path = self.checkpoints / LEAVING_FILE
        mark: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return mark

    def next_session(self) -> int:
        """A number that no session of this run has had, also across restarts: durable before it is used."""
        path = self.checkpoints / SESSIONS_FILE
        number = int(json.loads(path.read_text())) + 1 if path.exists() else 1
        write_atomic(path, one_line(number).encode())
        return number

    def write_market(self, market: Mapping[str, Any]) -> None:
        """Write the released series of a sales run."""
        self._write(MARKET_FILE, dict(market))

    def market(self) -> dict[str, Any]:
        """The released series of a sales run; empty if there are none. Raises: BadInputError."""
        return dict(self._read(MARKET_FILE)) if (self.path / MARKET_FILE).exists() else {}

    # while it runs, and its end

    def write_progress(self, progress: Progress) -> None:
        """Say what is under way; not synced: it is worth nothing after a crash, nor is a full disk found here."""
        temporary = self.path / f".{PROGRESS_FILE}"
        with suppress(OSError):
            temporary.write_text(one_line(vars(progress)))
            temporary.replace(self.path / PROGRESS_FILE)

    def progress(self) -> Progress | None:
        """What is under way, None if nothing is known."""
        try:
            return Progress(**json.loads((self.path / PROGRESS_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def add_note(self, message: str) -> None:
        """Append a remark."""
        with (self.path / NOTES_FILE).open("a", encoding="utf-8") as file:
            file.write(one_line({"time": round(time.time(), 1), "note": shown(message)}) + "\n")

    def notes(self) -> list[str]:
        """All remarks so far."""
        path = self.path / NOTES_FILE
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [str(json.loads(line)["note"]) for line in lines]

    def begin(self) -> None:
        """A run starts, or starts again. Raises: WorkFailedError (disk full)."""
        for name in (PROGRESS_FILE, MANIFEST_FILE):  # of an earlier life
            (self.path / name).unlink(missing_ok=True)
        self.write_summary(Summary(RUNNING))

    def write_summary(self, summary: Summary) -> None:
        """Write how the run stands or ended. Raises: WorkFailedError (disk full)."""
        self._write(SUMMARY_FILE, summary.to_json())

    def summary(self) -> Summary | None:
        """How the run stands or ended, None if it has not begun. Raises: BadInputError."""
        made: Summary | None = self._read_as(SUMMARY_FILE, Summary.from_json)
        return made

    def written(self) -> dict[str, str]:
        """Where what a person looks for lies: name -> path, of what is there; report and card are written last."""
        names = (SETTINGS_FILE, METRICS_FILE, WEIGHTS_FILE, METADATA_FILE)
        there = {name: str(self.path / name) for name in names if (self.path / name).exists()}
        there |= {CARD_FILE: str(self.path / CARD_FILE)} if METADATA_FILE in there else {}
        folders = {part.name: str(part) for part in (self.ledgers, self.evidence)}
        return {"folder": str(self.path)} | there | folders | {REPORT_FILE: str(self.report_file)}

    def _write(self, name: str, value: object) -> None:
        write_atomic(self.path / name, readable(value).encode())

    def _read(self, name: str) -> Any:
        try:
            return read((self.path / name).read_text("utf-8"), largest=_LARGEST, what=name)
        except (OSError, ValueError):
            raise BadInputError(f"cannot read {self.path / name}", hint=_INCOMPLETE) from None

    def _read_as(self, name: str, make: Any) -> Any:
        """The value in a file, None without it; a run that begins again may take it away between look and read."""
        try:
            return make(self._read(name))
        except BadInputError:
            if not (self.path / name).exists():
                return None
            raise
        except (TypeError, KeyError, AttributeError):
            raise BadInputError(
                f"{self.path / name} is not what this version writes", hint="restore the file, or delete it"
            ) from None
