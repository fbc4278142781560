"""Run folder in, HTML out: pure functions, and the templates they fill."""

from __future__ import annotations

from pathlib import Path


def render_report(run_dir: Path) -> str:
    """The report of a run folder as one HTML page. Raises: BadInputError."""
    from cli.report.page import render_report as render

    return render(run_dir)


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder. Raises: BadInputError, WorkFailedError."""
    from cli.report.page import write_report as write

    return write(run_dir)
