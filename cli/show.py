"""How the program speaks. The rules, for every command:

- results go to stdout; progress, notes and errors go to stderr, so that pipes and ``> file`` stay clean
- with ``--json`` stdout holds exactly one JSON value, and nothing else; an error is one JSON object, the last line of stderr
- a terminal gets colour and moving progress; a file, a pipe or a CI log gets plain, complete lines
- colour never carries meaning alone; NO_COLOR is obeyed
- lower case, no final period in errors; every error has a hint that tells what to do
- a number that could be mistaken is labelled: released, public or oracle
- no question is ever asked: a command either does its work or says why not
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import typer

from common.plain_text import shown
from common.strict_json import SCHEMA, readable

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 500  # where there is no terminal: wide enough that no table is ever cut


@cache
def results() -> Console:
    """The console of stdout."""
    return _console(stderr=False)


@cache
def progress() -> Console:
    """The console of stderr, or that of stdout if both are one terminal, so that live parts do not collide."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        return results()
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def line(text: str = "") -> None:
    """One line to stdout, with words of others in it: see ``common.plain_text``."""
    typer.echo(shown(text))


def note(message: str) -> None:
    """One line to stderr."""
    typer.echo(shown(message), err=True)


def warning(message: str) -> None:
    """One line to stderr that must not be overlooked."""
    label = typer.style("warning:", fg="yellow", bold=True) if sys.stderr.isatty() else "warning:"
    typer.echo(f"{label} {shown(message)}", err=True)


def print_json(value: object) -> None:
    """Print one JSON value to stdout; numbers that JSON cannot hold (nan, inf) become null. An object says its ``schema``."""
    versioned = {"schema": SCHEMA} | value if isinstance(value, dict) else value
    typer.echo(readable(versioned, default=str), nl=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str] = ()) -> None:
    """Print a table to stdout: the first column and those named in ``words`` to the left, numbers to the right."""
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        wordy = index == 0 or column in words
        out.add_column(column, justify="left" if wordy else "right", header_style="dim", no_wrap=not wordy)
    for row in rows:
        out.add_row(*(Text(shown(cell)) for cell in row))
    results().print(out)


def size(count: float) -> str:
    """Bytes for people. Example: ``size(1_500_000)`` gives ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def count(number: int, noun: str) -> str:
    """A number of things. Example: ``count(1, "round")`` gives ``1 round``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds for people. Example: ``duration(75)`` gives ``1m 15s``."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"


def number(value: float | None, digits: int = 3) -> str:
    """A metric for people; a dash where it is missing."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def epsilon(value: float | None, digits: int = 3) -> str:
    """An epsilon for people, rounded up: never less than was computed; a dash where it is unknown."""
    from common.privacy import show_epsilon

    return "–" if value is None else show_epsilon(value, digits)


def budget_left(value: float | None, digits: int = 3) -> str:
    """What is left of a budget, rounded down: never more than there is; a dash where it is unknown."""
    if value is None:
        return "–"
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


SHORT_S, BETWEEN_S = (
    2.0,
    10.0,
)  # nothing is said of work that takes less; lines without a terminal are so far apart


@contextmanager
def reading(words: str) -> Iterator[Callable[[int], None]]:
    """Progress on stderr while the body runs, if it is long; call the value with how much is done: "2,000,000 lines read"."""
    console, started = progress(), time.monotonic()
    status, said = console.status("") if console.is_terminal else None, started + SHORT_S - BETWEEN_S

    def step(done: int) -> None:
        nonlocal said
        now, text = time.monotonic(), f"{done:,} {words}"
        if now - started < SHORT_S:
            return
        if status is not None:
            status.update(text)
            status.start()
        elif now - said >= BETWEEN_S:
            said = now
            note(text)

    try:
        yield step
    finally:
        if status is not None:
            status.stop()


@contextmanager
def working(words: str) -> Iterator[Callable[[str, int, int], None]]:
    """Progress on stderr while the body runs; call the value with (what, done, total). Quiet if it is short."""
    console = progress()
    if not console.is_terminal:
        yield lambda what, done, total: note(f"{words}: {what} ({done} of {total})")
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    parts = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*parts, console=console, transient=True) as bar:
        task = bar.add_task(words, total=None)
        yield lambda what, done, total: bar.update(
            task, description=f"{words}: {what}", completed=done, total=max(total, 1)
        )
