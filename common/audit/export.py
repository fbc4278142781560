"""``fedcart audit export``: the part of a run folder that may be handed to an auditor.

Everything that ``audit verify`` and ``audit show`` read, and nothing that a site has not released: no consumers, no keys, no
figures that a simulation computed from all data, no paths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from common.atomic import write_atomic
from common.errors import BadInputError
from common.run import HEADS_FILE, LEFT_OUT, MANIFEST_FILE, RunFolder, sealed_paths


@dataclass(frozen=True)
class Exported:
    """Where the records are, their files, and how many figures were left out because only a simulation knows them."""

    folder: Path
    files: tuple[str, ...]
    oracle_left_out: int


def export_records(run: Path, out: Path) -> Exported:
    """Copy the records of a run into a new folder.

    Raises: BadInputError if there is no run, or something in ``out``; WorkFailedError (disk).
    """
    source = RunFolder.open(run)
    rounds, settings = source.metrics(), source.settings()
    if not rounds:
        raise BadInputError(f"{run} has no rounds yet", hint="export it when something has happened")
    target = RunFolder.create(out)
    for folder in (target.checkpoints, target.oracle):
        folder.rmdir()
    for path in (*sealed_paths(source), *(source.path / name for name in (HEADS_FILE, MANIFEST_FILE))):
        inside = path.relative_to(source.path)
        if not {str(inside), inside.parts[0]} & set(LEFT_OUT):
            _copy(path, target.path / inside)
    target.write_left_out(LEFT_OUT)
    for path in sorted(source.ledgers.glob("*.json*")) if source.ledgers.is_dir() else ():
        _copy(path, target.ledgers / path.name)
    for record in rounds:
        target.append_round(replace(record, oracle={}))
    summary = source.summary()
    if summary is not None:
        figures = {kind: values for kind, values in summary.metrics.items() if kind != "oracle"}
        target.write_summary(replace(summary, metrics=figures, baselines={}, paths={}))
    target.write_settings(settings.model_copy(update={"data": type(settings.data)(), "start_from": ""}))
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return Exported(out, tuple(files), sum(len(record.oracle) for record in rounds))


def _copy(source: Path, target: Path) -> None:
    if source.is_file() and not source.is_symlink():
        write_atomic(target, source.read_bytes())
