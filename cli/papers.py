"""``fedcart audit papers``: impact assessment, record of processing, statement and registry entry, out of a verified record."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from cli.report.papers import Papers

OUT = Path("papers")


def papers(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="run folder, ledger, site's kit; a coordinator's kit: all its runs",
            metavar="RUN...",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="new folder for the papers", metavar="FOLDER")] = OUT,
    details: Annotated[
        Path | None,
        typer.Option(help="what no record knows: controller, legal basis, retention, ...", metavar="FILE.toml"),
    ] = None,
    write_details: Annotated[
        Path | None,
        typer.Option(help="only write the file with all questions, to be filled by you", metavar="FILE"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace papers that are there already")] = False,
    json: Annotated[bool, typer.Option("--json", help="print files, figures and gaps as JSON")] = False,
) -> None:
    """Draw up the papers of a run: GDPR Article 35 and Article 30, NIST SP 800-226, OpenDP's registry of deployments.

    Every figure names the ledger entry or record it comes from. What no record knows is marked, listed at the end, and filled
    by --details. Verifies first: exit code 1, and no papers, if the record is not intact.
    """
    if write_details is not None:
        _write_questions(write_details, runs or [], force=force, json=json)
        return
    if not runs:
        raise BadInputError("no run is named", hint="fedcart audit papers RUN; --write-details FILE needs none")
    _draw_up(runs, out, details, force=force, json=json)


def _draw_up(runs: list[Path], out: Path, details: Path | None, *, force: bool, json: bool) -> None:
    _require_free(out, force=force)
    from cli.report.papers import make_papers
    from common.audit.papers import Details

    said = Details() if details is None else Details.read(details)
    with show.working("verifying"):
        made = make_papers(runs, said)
    files = made.files()
    _write(out, files, force=force)
    if json:
        show.print_json(_plain(made, out, files))
        return
    for name in files:
        show.line(str(out / name))
    for headline, words in made.facts.marks:
        show.warning(f"{headline}: {words}")
    if made.gaps:
        show.note(f"{show.count(len(made.gaps), 'gap')} that a person must fill: {', '.join(made.gaps)}")
        show.note(
            "fedcart audit papers --write-details details.toml writes the questions, --details details.toml fills them in"
        )


def _write_questions(path: Path, runs: list[Path], *, force: bool, json: bool) -> None:
    from common.atomic import write_atomic
    from common.audit.papers import QUESTIONS, details_template

    if runs:
        raise BadInputError("--write-details asks the same of every run", hint="leave the run out")
    if path.exists() and not force:
        raise BadInputError(f"already there: {path}", hint="--force replaces, or choose another name")
    write_atomic(path, details_template().encode())
    if json:
        show.print_json({"file": str(path), "questions": {one.key: one.asks for one in QUESTIONS}})
    else:
        show.line(str(path))


def _require_free(out: Path, *, force: bool) -> None:
    """Find out before the work whether the papers can be written. Raises: BadInputError."""
    from common.atomic import unwritable

    if out.exists() and not out.is_dir():
        raise BadInputError(f"{out} is no folder", hint="choose another --out")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise BadInputError(
            f"output folder {out} is not empty", hint="--force replaces the papers in it, or choose a new --out"
        )
    there = next(above for above in (out, *out.absolute().parents) if above.exists())
    if why := unwritable(there):
        raise BadInputError(f"cannot write to {out}: {why}", hint="choose another --out")


def _write(out: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """A new folder appears with all papers or not at all; in one that is there each file is replaced whole."""
    from common.atomic import disk_errors, write_atomic

    if out.is_dir() and any(out.iterdir()) and force:
        for name, content in files.items():
            write_atomic(out / name, content)
        return
    with disk_errors(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}."))
    try:
        for name, content in files.items():
            write_atomic(made / name, content)
        with disk_errors(out):
            made.chmod(0o755)
            os.rename(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _plain(made: Papers, out: Path, files: Mapping[str, bytes]) -> dict[str, object]:
    from dataclasses import asdict

    facts = made.facts
    return {
        "folder": str(out),
        "files": sorted(files),
        "intact": True,
        "private": facts.private,
        "simulated": facts.statement.simulated,
        "totals": [asdict(total) for total in facts.totals],
        "releases": [asdict(release) for release in facts.releases],
        "together": [{"who": who, "epsilon": epsilon, "delta": delta} for who, epsilon, delta in facts.together],
        "marks": [f"{headline}: {words}" for headline, words in facts.marks],
        "gaps": made.gaps,
        "answered": {item.key: item.words for paper in made.papers for item in paper.answered},
    }
