"""The files of a run, and the only code that writes or reads them.

    run.toml            all settings             metrics.jsonl       one object per round
    model.safetensors   final parameters         model.json          what the parameters mean
    checkpoints/        ServerState per round    ledgers/SITE.jsonl  privacy ledgers
    roster.json         sites and public keys    evidence/           aggregation evidence per round
    summary.json        result and status        report.html         the picture of it all
    sites.json          site facts (public)      oracle/             simulation only: what no server sees

Every file is written under a temporary name, synced, and renamed; ``metrics.jsonl`` is append-only and
a torn last line was never written.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.atomic import disk_errors, write_atomic
from common.errors import BadInputError
from common.run.records import RoundRecord


@dataclass(frozen=True)
class RunFolder:
    """A run folder by path. Example: ``RunFolder(Path("runs/x")).metrics()``."""

    path: Path

    @staticmethod
    def require_free(path: Path) -> None:
        """Return if a run folder could be made there. Raises: BadInputError if something is there already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BadInputError(f"output folder {path} is not empty", hint="choose a new --out, or --resume it")

    @staticmethod
    def create(path: Path) -> RunFolder:
        """Make a new, empty run folder. Raises: BadInputError if it exists with content or cannot be written."""
        RunFolder.require_free(path)
        try:
            for part in ("checkpoints", "ledgers", "evidence", "oracle"):
                (path / part).mkdir(parents=True, exist_ok=True)
            write_atomic(path / "metrics.jsonl", b"")
        except OSError as error:
            raise BadInputError(f"cannot write to {path}: {error.strerror}", hint="choose another --out") from None
        return RunFolder(path)

    @staticmethod
    def open(path: Path) -> RunFolder:
        """Open an existing run folder. Raises: BadInputError if it is not one."""
        if not (path / "run.toml").is_file():
            raise BadInputError(
                f"{path} is not a run folder: no run.toml",
                hint="name the folder that `fedcart simulate --out` made",
            )
        return RunFolder(path)

    def append_round(self, record: RoundRecord) -> None:
        """Append one line to ``metrics.jsonl``, durable before returning. Raises: WorkFailedError (disk full)."""
        line = (record.to_json() + "\n").encode()
        with disk_errors(self.path):
            fd = os.open(self.path / "metrics.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(28, "no space left on device")
                os.fsync(fd)
            finally:
                os.close(fd)

    def metrics(self) -> list[RoundRecord]:
        """All rounds, in order. Raises: BadInputError naming the first damaged line."""
        path = self.path / "metrics.jsonl"
        records = []
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for number, line in enumerate(lines[:-1], start=1):  # after the last newline: torn, never written
            try:
                records.append(RoundRecord.from_json(line.decode()))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise BadInputError(
                    f"{path}, line {number}: not a round record", hint="restore the file from a backup"
                ) from None
        return records

    def truncate_metrics(self, rounds: int) -> None:
        """Keep the records of the first ``rounds`` rounds, for a resume from an earlier checkpoint."""
        kept = [r for r in self.metrics() if r.round <= rounds]
        write_atomic(self.path / "metrics.jsonl", "".join(r.to_json() + "\n" for r in kept).encode())

    def write_json(self, name: str, value: object) -> None:
        """Write one JSON file of the folder atomically. Raises: WorkFailedError (disk full)."""
        write_atomic(self.path / name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read one JSON file of the folder. Raises: BadInputError."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            raise BadInputError(
                f"cannot read {self.path / name}", hint="the run folder is incomplete or damaged"
            ) from None
