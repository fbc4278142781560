"""``fedcart compare``: runs side by side, as a table, a page or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cli.show as show

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: fedcart compare runs/epsilon-8 runs/epsilon-3 runs/epsilon-1 --html sweep.html")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="run folders", show_default=False)],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page")] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON value")] = False,
) -> None:
    """Show what differs between runs: settings, quality, epsilon, time.

    released is noised and charged, oracle the simulation's own test, public follows from settings or attestations.
    """
    from common.atomic import write_atomic
    from fedcart.comparison import compare as side_by_side

    comparison = side_by_side(*runs)
    if html is not None:
        write_atomic(html, comparison.to_html().encode())
    if json:
        show.print_json(comparison.to_json())
        return
    rows = [(f"{name} ({kind})", *cells) for kind, name, cells in comparison.rows()]
    show.table("", ("", *comparison.names), rows)
    if html is not None:
        show.note(f"written: {html}")
