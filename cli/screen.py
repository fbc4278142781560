"""What a run shows, simulated or deployed: one line per round, progress in between, a box at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.markup import escape

import cli.show as show
from cli.opening import facts_lines
from cli.verdict import Standing, standings
from common.atomic import link_atomic
from common.contribution import STATISTICS
from common.run import (
    ENDED,
    FAILED,
    REPORT_FILE,
    WEIGHTS_FILE,
    Observer,
    RoundRecord,
    RunConfig,
    RunFacts,
    RunFolder,
    Summary,
)
from common.tasks import IN_ROUNDS, in_order, metric_named
from server.bars import LABEL, Bars

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

QUIET_S = 10.0  # between two progress lines where there is no terminal
METRICS_SHOWN = 5  # in the final box; the report has all
PHASES = {
    "advertise": "training at the sites",
    "share": "exchanging key shares",
    "accept": "checking key shares",
    "mask": "collecting masked updates",
    "confirm": "confirming who is in the sum",
    "unmask": "removing masks",
    "close": "telling the sites that it is over",
    "plain": "training at the sites",
}
OTHER_COLUMNS = {"epsilon": "ε worst", "signal": "signal/noise"}


@dataclass(frozen=True)
class Column:
    """One column of the table of rounds. ``keep``: the lowest go first where a terminal is narrow."""

    label: str
    group: str
    width: int
    keep: int
    cell: Callable[[RoundRecord], str]


class Screen(Observer):
    """The observer of a run that writes for a person.

    Guarantee: a table line is printed once and never rewritten, so that a log of the output is complete.
    """

    def __init__(self, config: RunConfig, out: Path, *, to_stderr: bool, latest: Path | None = None) -> None:
        self.config = config
        self.out = out
        self.latest = latest
        self.refusals = 0
        self.bars = Bars()
        self.resumed = False
        self._console: Console = show.progress() if to_stderr else show.results()
        self._columns: list[Column] = []
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said = (time.monotonic(), "")

    def __enter__(self) -> Screen:
        self._bar = progress_bar()
        self._task = self._bar.task_ids[0] if self._bar is not None else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def opening(self, *, resume: bool) -> None:
        """The first line, before anything heavy is imported; then the progress display."""
        config = self.config
        self.resumed = resume
        privacy = f"private, ε ≤ {show.exact(config.privacy.epsilon)}" if config.privacy.enabled else "NOT PRIVATE"
        verb = "resuming" if resume else "simulating"
        self._line(
            f"[bold]{verb} {config.name}[/]: {config.task}, {show.count(config.training.rounds, 'round')}, {privacy}, "
            f"aggregation: {config.aggregation.mode}"
        )
        self._line(f"[dim]run folder[/] {escape(str(self.out))}")

    def prepared(self, facts: RunFacts) -> None:
        """Show what is about to be trained, by whom, under which promise."""
        self.bars = Bars.of(RunFolder(facts.out))
        if self.latest is not None:
            link_atomic(self.latest, facts.out)
        self._line("")
        for line in facts_lines(facts):
            self._line(line)
        self._line("")
        for record in RunFolder(facts.out).metrics() if self.resumed else ():
            self.round_done(record)

    def progress(self, round_number: int, phase: str, done: int, total: int) -> None:
        """Move the bar; without a terminal, one line now and then, seldom the same one."""
        text = progress_words(round_number, self.config.training.rounds, phase)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text, completed=done, total=max(total, 1))
            return
        said, before = self._said
        if time.monotonic() - said >= (QUIET_S if text != before else 3 * QUIET_S):
            self._said = (time.monotonic(), text)
            show.note(f"{text} {done}/{total}")

    def round_done(self, record: RoundRecord) -> None:
        """One line of the table."""
        self._said = (time.monotonic(), "")
        self.refusals = sum(site.status in ENDED for site in record.sites.values())
        if record.kind == STATISTICS:
            self._line(released_line(record))
            return
        if not self._columns and not record.aborted:
            self._columns = fitting(columns(record, self.config, self.bars), self._console.width)
            for line in header(self._columns):
                self._line(f"[dim]{line}[/]")
        if record.aborted:
            self._line(
                f"{_round_name(record):>5}  [yellow]no sum: {escape(record.aborted)}[/], {_answered(record)} sites answered"
            )
        else:
            self._line("  ".join(f"{column.cell(record):>{column.width}}" for column in self._columns))

    def note(self, message: str) -> None:
        """A remark of the run, in its place between the rounds."""
        self._line(f"[yellow]note:[/] {escape(message)}")

    def finished(self, summary: Summary) -> None:
        """Nothing yet: ``closing`` comes when the report is written."""

    def interrupted(self) -> None:
        """How to go on."""
        self._stop_bar()
        self._line("")
        if RunFolder.is_one(self.out):
            self._line("interrupted; every finished round is kept. To go on:")
            self._line(f"  fedcart simulate --resume {escape(str(self.out))}")
        else:
            self._line("interrupted before anything was written")

    def closing(self, summary: Summary) -> None:
        """The final box: result beside trivial baselines, epsilon, files."""
        self._stop_bar()
        self._line("")
        title = f"{summary.status}: {show.count(summary.rounds, 'round')} in {show.duration(summary.seconds)}"
        if summary.status == FAILED:
            title += ", none gave a sum: there is no model"
        body = closing_lines(summary, self.config)
        if self._console.is_terminal:
            from rich.panel import Panel
            from rich.text import Text

            text = Text("\n").join(Text.from_markup(line) for line in body)
            self._console.print(
                Panel(text, title=f"[bold]{title}[/]", title_align="left", expand=False, padding=(1, 2))
            )
        else:
            self._line(title)
            for line in body:
                self._line(line)
        for message in summary.notes:
            self._line(f"[yellow]note:[/] {escape(message)}")

    def _line(self, text: str) -> None:
        self._console.print(text)

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def released_line(record: RoundRecord) -> str:
    """Round 0 of a sales run in words."""
    if record.aborted:
        return f"[yellow]no market series: {escape(record.aborted)}[/], {_answered(record)} sites answered"
    cost = f", ε {show.epsilon(record.worst_epsilon)} spent" if record.private else ""
    return (
        f"round 0      {_answered(record)} sites have released their series{cost}; training reads nothing else "
        f"[dim]({show.size(record.bytes_up + record.bytes_down)}, {show.duration(record.seconds)})[/]\n"
    )


def progress_bar() -> Progress | None:
    """A started progress line with one task, None where there is no terminal to move it on."""
    console = show.progress()
    if not console.is_terminal:
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
    )
    bar = Progress(*columns, console=console, transient=True)
    bar.add_task("loading", total=None)
    bar.start()
    return bar


def progress_words(round_number: int, rounds: int, phase: str) -> str:
    """What is going on, for the progress line."""
    doing = PHASES.get(phase, phase)
    if not round_number and phase.startswith("approval"):
        return f"waiting for {phase}"
    if not round_number:
        return f"preparing: {doing.replace('training at', 'summing up purchases at')}"
    return (
        f"round {round_number} of {rounds}: {doing}" if round_number <= rounds else f"closing evaluation: {doing}"
    )


def columns(record: RoundRecord, config: RunConfig, bars: Bars | None = None) -> list[Column]:
    """The columns that this run can fill, in reading order; released figures with their bars."""
    columns = [Column("round", "", 5, 99, _round_name), *_released_columns(record, bars or Bars())]
    for importance, name in _shown(record.oracle, 60):
        columns.append(Column(metric_named(name).short, "oracle", 6, importance, _metric("oracle", name)))
    if "clip_fraction" in record.oracle:
        columns.append(Column("clipped", "oracle", 7, 40, _metric("oracle", "clip_fraction", percent=True)))
    if "signal_to_noise" in record.oracle:
        columns.append(Column(OTHER_COLUMNS["signal"], "oracle", 12, 45, _metric("oracle", "signal_to_noise")))
    if config.privacy.enabled:
        columns.append(Column(OTHER_COLUMNS["epsilon"], "public", 7, 90, lambda r: show.epsilon(r.worst_epsilon)))
    return [
        *columns,
        Column("sites", "public", 7, 80, _answered),
        Column("bytes", "public", 7, 46, lambda r: show.size(r.bytes_up + r.bytes_down)),
        Column("time", "public", 6, 70, lambda r: show.duration(r.seconds)),
    ]


def _shown(values: Mapping[str, float], keep: int) -> list[tuple[int, str]]:
    """The first metrics of a group in reading order, each with how much it matters that it stays."""
    names = [name for name in (*IN_ROUNDS, *in_order(set(values) - set(IN_ROUNDS))) if name in values][:3]
    return [(keep + (5 if rank == 1 else -rank), name) for rank, name in enumerate(names)]


def _released_columns(record: RoundRecord, bars: Bars) -> list[Column]:
    barred = bars.any_in(record)
    group, width = (LABEL, 13) if barred else ("released", 6)
    return [
        Column(metric_named(name).short, group, width, importance, lambda r, name=name: bars.cell(r, name))  # type: ignore[misc]
        for importance, name in _shown(record.released, 50)
    ]


def fitting(found: list[Column], width: int) -> list[Column]:
    """As many columns as a line holds, the least important left out."""
    kept = sorted(found, key=lambda column: -column.keep)
    while len(kept) > 1 and sum(column.width + 2 for column in kept) - 2 > width:
        kept.pop()
    return [column for column in found if column in kept]


def header(shown: list[Column]) -> list[str]:
    """Two lines: what kind of number (released, oracle, public), then which."""
    groups = []
    previous = ""
    for column in shown:
        groups.append(column.group if column.group != previous else "")
        previous = column.group
    return [
        _group_line(shown, groups),
        "  ".join(f"{column.label:>{column.width}}" for column in shown),
    ]


def _group_line(shown: list[Column], groups: list[str]) -> str:
    """A rule over each group with its name in front, so that a wide group reads as one block."""
    spans: list[tuple[str, int]] = []
    for column, group in zip(shown, groups, strict=True):
        if group or not spans:
            spans.append((group, column.width))
        else:
            name, width = spans[-1]
            spans[-1] = (name, width + 2 + column.width)
    return "  ".join(f" {name} ".center(width, "─")[:width] if name else " " * width for name, width in spans)


def closing_lines(summary: Summary, config: RunConfig) -> list[str]:
    """The result beside the baselines, the price in privacy, and where the files are."""
    lines = _result_lines(_standings(summary, config)) if summary.status != FAILED else []
    if summary.private and summary.epsilon:
        site, worst = max(summary.epsilon.items(), key=lambda pair: pair[1])
        target = f"target {show.exact(config.privacy.epsilon)} at δ = {show.exact(config.privacy.delta)}"
        if worst > config.privacy.epsilon * (1 + 1e-3):
            target = f"this run's own {target}, the rest was spent before it"
        every = (
            "at every site" if summary.all_attested else f"at each of {len(summary.epsilon)} sites that attested"
        )
        where = every if min(summary.epsilon.values()) == worst else f"at {escape(site)}, the most"
        lines.append(f"ε spent      {show.epsilon(worst)} {where}; {target} [dim](public, from signed ledgers)[/]")
    if summary.alone:
        site, worst = max(summary.alone.items(), key=lambda pair: pair[1])
        where = "at every site" if min(summary.alone.values()) == worst else f"at {escape(site)}, the most"
        lines.append(f"ε alone      {show.epsilon(worst)} {where}, if no other site is honest [dim](public)[/]")
    if not summary.private:
        lines.append("[bold yellow]NOT PRIVATE[/]  no differential privacy in this run")
    lines.append(f"aggregation  {escape(summary.aggregation)}")
    lines.append("")
    for label, name in (("run folder", "folder"), ("model", WEIGHTS_FILE), ("report", REPORT_FILE)):
        if name in summary.paths:
            lines.append(f"[dim]{label:<12}[/] {escape(summary.paths[name])}")
    return lines


def _result_lines(rows: list[Standing]) -> list[str]:
    if not rows:
        return []
    names = list(rows[0].values)[:METRICS_SHOWN]
    width = max(len(row.name) for row in rows) + 2
    head = " " * width + "".join(f"{metric_named(name).short:>9}" for name in names)
    test = "the last periods of each site's exact series" if "wape" in names else "held-out consumers"
    lines = [f"[dim]{head}   (oracle: the simulation's own test on {test})[/]"]
    for row in rows:
        text = f"{row.name:<{width}}" + "".join(f"{show.number(row.values.get(name)):>9}" for name in names)
        lines.append(f"[bold]{text}[/]" if row.is_model else text)
    return [*lines, ""]


def _standings(summary: Summary, config: RunConfig) -> list[Standing]:
    return standings(summary.metrics.get("oracle", {}), summary.baselines, config.task)


def _metric(group: str, name: str, *, percent: bool = False) -> Callable[[RoundRecord], str]:
    def cell(record: RoundRecord) -> str:
        value = getattr(record, group).get(name)
        if value is not None and percent:
            return f"{value:.0%}"
        return show.number(value)

    return cell


def _round_name(record: RoundRecord) -> str:
    return str(record.round) if record.kind == "train" else "final"


def _answered(record: RoundRecord) -> str:
    invited = len(record.sites)
    return f"{record.answered}/{invited}"
