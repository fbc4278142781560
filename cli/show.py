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
from typing import TYPE_CHECKING, NamedTuple

import typer

from common.plain_text import shown
from common.strict_json import SCHEMA, readable

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 500  # where there is no terminal: wide enough that no table is ever cut
WORD, GAP = 24, 2  # letters that a column of words keeps of its longest; between two columns


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
    """Print a table to stdout: the first column and those named in ``words`` to the left, numbers to the right.

    Where it is too wide, the columns go below one another, the first one beside each part of them: no number loses a digit.
    """
    heads = [(name, index == 0 or name in words) for index, name in enumerate(columns)]
    cells = [[shown(cell) for cell in row] for row in rows]
    every = [_Column.of(*head, [row[index] for row in cells]) for index, head in enumerate(heads)]
    for part in _parts(every, results().width):
        _print_part(title, part, len(cells))
        title = ""


class _Column(NamedTuple):
    """A column that is to be shown. ``least``: the width that it needs; ``most``: what it takes where there is room."""

    name: str
    wordy: bool
    cells: list[str]
    least: int
    most: int

    @staticmethod
    def of(name: str, wordy: bool, cells: list[str]) -> _Column:
        from rich.cells import cell_len

        most = max(map(cell_len, [name, *cells]))
        longest = max((cell_len(word) for cell in (name, *cells) for word in cell.split()), default=1)
        return _Column(name, wordy, cells, min(longest, WORD) if wordy else most, most)


def _parts(columns: Sequence[_Column], width: int) -> Iterator[list[_Column]]:
    """Columns that fit beside one another, the first in each part."""
    part = list(columns[:1])
    for column in columns[1:]:
        if len(part) > 1 and sum(one.least + GAP for one in part) + column.least > width:
            yield part
            part = list(columns[:1])
        part.append(column)
    yield part


def _print_part(title: str, columns: Sequence[_Column], lines: int) -> None:
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    spare = results().width - sum(one.least + GAP for one in columns) + GAP
    wanting = sorted((one for one in columns if one.wordy), key=lambda one: one.most - one.least)
    widths = {}
    for left, one in zip(range(len(wanting), 0, -1), wanting, strict=True):
        more = min(one.most - one.least, max(spare, 0) // left)
        widths[id(one)], spare = one.least + more, spare - more
    for one in columns:
        if one.wordy:
            out.add_column(one.name, header_style="dim", width=widths[id(one)], overflow="fold")
        else:
            out.add_column(one.name, header_style="dim", justify="right", no_wrap=True)
    for line in range(lines):
        out.add_row(*(Text(one.cells[line]) for one in columns))
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


def exact(value: float | None) -> str:
    """A promise, a limit or a delta as it is, nothing rounded; a dash where there is none."""
    from common.privacy import show_exact

    return "–" if value is None else show_exact(value)


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
