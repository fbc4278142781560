"""``fedcart report``: the picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cli.show as show

app = typer.Typer(add_completion=False)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="folder of a run, finished or not", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="print the path as JSON")] = False,
) -> None:
    """Write report.html into a run folder: one page, no network, every number labelled."""
    from cli.report import write_report

    path = write_report(run_dir)
    if json:
        show.print_json({"report": str(path)})
    else:
        typer.echo(path)
