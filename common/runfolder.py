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
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.errors import BadInputError, WorkFailedError

RUNNING = "running"
INTERRUPTED = "interrupted"
COMPLETED = "completed"
STOPPED = "stopped"  # gracefully, before the planned rounds: budget, policy, or too few sites


@dataclass(frozen=True)
class SiteRound:
    """What one site did in one round. ``status``: ok, lost, refused, stopped, not-invited; ``phase`` of a loss."""

    status: str
    reason: str = ""
    phase: str = ""


@dataclass(frozen=True)
class RoundRecord:
    """One line of ``metrics.jsonl``; the closing evaluation has ``kind = "evaluate"`` and the next number.

    ``released``: noised and charged (model at the start of the round); ``public``: follows from settings
    or released sums; ``oracle``: computed by the simulation from all data (model at the end of the round).
    ``epsilon``: spent per site so far, from the ledgers' signed attestations, a RESERVE counts as spent.
    Units: bytes over all sites, seconds of wall time.
    """

    round: int
    kind: str = "train"
    released: dict[str, float] = field(default_factory=dict)
    public: dict[str, float] = field(default_factory=dict)
    oracle: dict[str, float] = field(default_factory=dict)
    sites: dict[str, SiteRound] = field(default_factory=dict)
    epsilon: dict[str, float] = field(default_factory=dict)
    attestations: dict[str, Any] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    protocol_seconds: float = 0.0
    aggregation: str = "plain"
    private: bool = True
    aborted: str = ""

    @property
    def answered(self) -> int:
        """Number of sites whose contribution is in the sum."""
        return sum(site.status == "ok" for site in self.sites.values())

    @property
    def worst_epsilon(self) -> float | None:
        """Largest epsilon so far over the sites, None without a ledger."""
        return max(self.epsilon.values(), default=None)

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> RoundRecord:
        """Inverse of ``to_json``. Raises: ValueError, TypeError on foreign text."""
        plain = json.loads(text)
        plain["sites"] = {name: SiteRound(**site) for name, site in plain["sites"].items()}
        return RoundRecord(**plain)


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
        with _disk_errors(self.path):
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


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` so that a reader or a crash sees the old file or the new one, never a part.

    Raises: WorkFailedError if the disk is full or not writable; the old file is then untouched.
    """
    with _disk_errors(path):
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)


def create_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Make a file whole and durable, unless another process was first: then theirs stays as it is.

    Raises: WorkFailedError if the disk is full or not writable.
    """
    complete = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    write_atomic(complete, data, mode=mode)
    with _disk_errors(path):
        with suppress(FileExistsError):
            os.link(complete, path)
        complete.unlink()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkFailedError(
            f"cannot write {path}: {error.strerror}", hint="free some space, then resume"
        ) from error
