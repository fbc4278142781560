"""From a run folder to one self-contained HTML page: no network, no library, readable without JavaScript."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

import cli.show as show
from cli.report.facts import RunStory, flat_settings, read_story
from cli.report.top import verdict
from cli.verdict import Standing
from common import VERSION
from common.atomic import write_atomic
from common.pages.charts import Axis, Series, column_chart, line_chart, participation
from common.pages.rendering import templates
from common.run import BEST, CARD_FILE, ENDED, RoundRecord, RunFolder, unattested
from common.tasks import METRICS, in_order, metric_named, primary_metric

GRID_SITES = 60
BELOW = "trivial baseline"  # marks the remark that belongs beside the bars
EPSILON_LINES = 8
NO_CURVE = ("rmse", "intent_f1", "intent_precision", "intent_recall", "intent_accuracy")  # the table has them
STATUS_WORDS = {"ok": "in the sum"}


@dataclass(frozen=True)
class Figure:
    """A chart with its words; ``kinds`` are the labels of the numbers in it."""

    title: str
    kinds: tuple[str, ...]
    drawing: Markup
    text: str = ""


@dataclass(frozen=True)
class Tile:
    """One key figure of the head of the page."""

    label: str
    value: str
    kind: str
    text: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar of the comparison. ``share`` in percent of the longest."""

    name: str
    value: str
    share: float
    role: str


def render_report(run_dir: Path) -> str:
    """The report of a run folder as HTML, however far the run has come. Raises: BadInputError."""
    story = read_story(run_dir)
    page = templates().get_template("report.html.j2")
    own_data = RunFolder(run_dir).own_data()
    return page.render(
        story=story,
        version=VERSION,
        cards=[name for name in (CARD_FILE, f"{BEST}/{CARD_FILE}") if (run_dir / name).is_file()],
        tiles=_tiles(story),
        banners=banners(story),
        quality=[f for f in _quality(story) if f.drawing],
        bars=_bars(story),
        top=verdict(story, own_data),
        verdict=[n for n in story.summary.notes if BELOW in n],
        notes=[n for n in story.summary.notes if BELOW not in n],
        comparison=_comparison(story),
        own_data=own_data_rows(own_data),
        privacy=[f for f in _privacy(story) if f.drawing],
        sites=_site_rows(story),
        grid=_participation(story),
        grid_left_out=max(0, len(story.sites) - GRID_SITES),
        cost=[f for f in _cost(story) if f.drawing],
        data=_data_rows(story.facts.data if story.facts else {}),
        settings=flat_settings(story.settings),
    )


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path. Raises: BadInputError, WorkFailedError."""
    path = RunFolder(run_dir).report_file
    write_atomic(path, render_report(run_dir).encode())
    return path


def banners(story: RunStory) -> list[tuple[str, str, str]]:
    """What nobody may overlook: (tone, headline, explanation)."""
    banners = []
    if not story.private:
        banners.append(
            (
                "bad",
                "NOT PRIVATE",
                "This run trained without differential privacy. Its model may reveal consumers.",
            )
        )
    if story.aggregation == "plain":
        banners.append(
            (
                "warn",
                "aggregation: plain",
                "The server could read each site's own update; only the sum should be seen.",
            )
        )
    if not story.complete:
        done = f"{len(story.rounds)} of {story.planned_rounds} rounds are on disk."
        banners.append(("warn", story.status, f"{done} The figures below are of those rounds."))
    if story.simulated:
        banners.append(
            (
                "info",
                "simulated",
                "All sites ran on one machine. Oracle numbers exist only here, and no budget carries over.",
            )
        )
    if False in story.attested_as_simulated:
        banners.append(
            (
                "warn" if story.simulated else "info",
                "some budgets are real" if story.simulated else "deployed",
                "Signed by the sites' own ledgers: what was spent here stays spent, in every later run too.",
            )
        )
    return banners


def _primary(story: RunStory) -> str:
    return primary_metric(story.task)


def _tiles(story: RunStory) -> list[Tile]:
    primary = _primary(story)
    words = metric_named(primary).words
    tiles = []
    for kind, text in (
        ("oracle", "the final model, on held-out consumers"),
        ("released", "as the sites reported it, noised"),
    ):
        values = story.summary.metrics.get(kind) or story.last(kind)
        if primary in values:
            value = (
                story.bars.latest(story.records, primary) if kind == "released" else show.number(values[primary])
            )
            tiles.append(Tile(words, value, kind, text))
    worst = max((r.worst_epsilon or 0.0 for r in story.records), default=0.0)
    if story.private and worst:
        privacy = story.section("privacy")
        limit = f"at the worst site, of {show.exact(privacy.get('epsilon', 0))} at δ = {show.exact(privacy.get('delta', 0))}"
        tiles.append(Tile("ε spent", show.epsilon(worst), "public", limit))
    if alone := max((epsilon for r in story.records for epsilon in r.alone.values()), default=0.0):
        tiles.append(Tile("ε alone", show.epsilon(alone), "public", "if no other site is honest; see audit show"))
    tiles.append(Tile("Rounds", f"{len(story.rounds)}", "public", f"of {story.planned_rounds} planned"))
    if story.sites:
        people = sum(site.get("population", 0) for site in story.sites)
        tiles.append(
            Tile("Sites", f"{len(story.sites)}", "public", f"{people:,} consumers declared" if people else "")
        )
    moved = sum(r.bytes_up + r.bytes_down for r in story.records)
    if moved:
        spent = show.duration(sum(r.seconds for r in story.records))
        tiles.append(Tile("Traffic", show.size(moved), "public", f"in {spent}"))
    return tiles


def _quality(story: RunStory) -> list[Figure]:
    """Curves per metric. A released value of round r is of the model before it, an oracle value after it."""
    measured = {name for r in story.records for name in (*r.oracle, *r.released)}
    return [_metric_figure(story, name) for name in in_order(measured) if name not in NO_CURVE]


def _metric_figure(story: RunStory, name: str) -> Figure:
    told = [r for r in story.records if name in r.released]
    released = [(r.round - 1.0, r.released[name]) for r in told]
    oracle = [(float(r.round), r.oracle[name]) for r in story.rounds if name in r.oracle]
    series = [
        Series("oracle", "oracle", oracle),
        Series("released", "released", released, [story.bars.at(r, name) for r in told]),
    ]
    levels = [(s.name, s.values[name]) for s in story.standings[1:] if s.trivial and name in s.values]
    metric = metric_named(name)
    pick = max if metric.higher_is_better else min
    best = [pick(levels, key=lambda level: level[1])] if levels else []
    axis = Axis(ceiling=metric.ceiling, floor=0.0)
    kinds = tuple(line.name for line in series if line.points)
    text = "dashed level: the best baseline that needs no training" if best else ""
    title = f"{metric.words}, {metric.unit}" if metric.unit else metric.words
    return Figure(title, kinds, line_chart(series, axis, references=best, label=f"{title} over rounds"), text)


def _bars(story: RunStory) -> list[tuple[str, list[Bar]]]:
    """A group of bars per compared metric: the model first, then the baselines, best first."""
    rows = story.standings
    groups = []
    for metric in METRICS:
        name = metric.name if metric.compared else ""
        bars = [(row, row.values[name]) for row in rows if name in row.values]
        if len(bars) < 2 or not bars[0][0].is_model:
            continue
        longest = max(abs(value) for _, value in bars) or 1.0
        sign = -1 if metric.higher_is_better else 1
        ordered = [bars[0], *sorted(bars[1:], key=lambda pair: sign * pair[1])]
        groups.append((metric.words, [_bar(row, value, longest) for row, value in ordered]))
    return groups


def _bar(row: Standing, value: float, longest: float) -> Bar:
    role = "model" if row.is_model else "trivial" if row.trivial else "other"
    return Bar(row.name, show.number(value), max(0.0, 100 * value / longest), role)


def _comparison(story: RunStory) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """All metrics of the model and of its baselines, as a table."""
    rows = story.standings
    names = in_order({name for row in rows for name in row.values})
    return names, [(row.name, [show.number(row.values.get(name)) for name in names]) for row in rows]


def own_data_rows(rows: list[dict[str, Any]]) -> list[tuple[str, str, list[str], str]]:
    """What each site makes of the model with its own data: site, consumers, alone, shared, personal and gain, in words."""
    table = []
    for row in rows:
        cells, words = ["–"] * 4, str(row.get("why", ""))
        for one in row["verdicts"][:1]:
            figures, gain = one["figures"], one["gain"]
            cells = [_with_bar(figures[who]) for who in ("alone", "shared", "personal")] + [_with_bar(gain)]
            words = f"{metric_named(one['metric']).words}: {one['words'].partition(' (')[0]}"
        table.append((str(row["site"]), f"{row['consumers']:,}", cells, words))
    return table


def _with_bar(figure: dict[str, Any]) -> str:
    value, error = figure["value"], figure["error"]
    return "–" if value is None or error is None else f"{show.number(value)} ± {show.number(1.96 * error)}"


def _privacy(story: RunStory) -> list[Figure]:
    if not story.private:
        return []
    target = float(story.section("privacy").get("epsilon", 0.0))
    level = [(f"target {target:g}", target)] if target else []
    axis = Axis(from_zero=True, digits=3)
    signal = [
        (float(r.round), r.public["signal_to_noise"]) for r in story.records if "signal_to_noise" in r.public
    ]
    clipped = [(float(r.round), r.oracle["clip_fraction"]) for r in story.records if "clip_fraction" in r.oracle]
    return [
        Figure(
            "Epsilon spent so far, per site",
            ("public",),
            line_chart(epsilon_lines(story.records), axis, references=level, label="epsilon over rounds"),
            "from the signed attestations of the sites' ledgers; a reservation counts as spent",
        ),
        Figure(
            "Signal to noise of a site's update",
            ("oracle",),
            line_chart([Series("signal/noise", "oracle", signal)], axis, label="signal to noise over rounds"),
            "mean over the sites of what each measured for itself",
        ),
        Figure(
            "Share of consumers clipped",
            ("oracle",),
            line_chart(
                [Series("clipped", "oracle", clipped)],
                Axis(floor=0.0, ceiling=1.0, from_zero=True),
                label="clip fraction over rounds",
            ),
            "80 to 100 % is usual at this clipping norm",
        ),
    ]


def epsilon_lines(records: list[RoundRecord]) -> list[Series]:
    """One line per site; one for all where they are alike; the ends of the range where they are many."""
    sites = {name for record in records for name in record.epsilon}
    curves = {s: list({_after(r): r.epsilon[s] for r in records if s in r.epsilon}.items()) for s in sites}
    order = sorted(curves, key=lambda s: (-curves[s][-1][1], s))
    if not order:
        return []
    worst, least = curves[order[0]], curves[order[-1]]
    if len(order) > 1 and all(curve == worst for curve in curves.values()):
        return [Series(f"each of {len(order)} sites", "public", worst)]
    if len(order) > EPSILON_LINES:
        return [
            Series(f"most ({order[0]})", "public", worst),
            Series(f"least ({order[-1]})", "site", least),
        ]
    return [Series(s, "public" if s == order[0] else "site", curves[s]) for s in order]


def _after(record: RoundRecord) -> float:
    """Rounds finished when a record was written: the closing evaluation is no round."""
    return float(max(record.round - (record.kind != "train"), 0))


def _site_rows(story: RunStory) -> list[dict[str, Any]]:
    spent = story.records[-1].epsilon if story.records else {}
    rows, silent = [], _silent(story.records)
    for site in story.sites:
        states = [r.sites[site["name"]] for r in story.records if site["name"] in r.sites]
        ended = next((s for s in reversed(states) if s.status in ENDED), None)
        faults = [
            f"round {r.round}: {f} (proven)" for r in story.records for f in r.faults if f.culprit == site["name"]
        ]
        rows.append(
            site
            | {
                "answered": sum(s.status == "ok" for s in states),
                "invited": len(states),
                "epsilon": show.epsilon(spent.get(site["name"])),
                "remark": ", ".join(
                    part
                    for part in (
                        site.get("note", ""),
                        f"{ended.status}: {ended.reason}" if ended else "",
                        *faults,
                        *silent.get(site["name"], ()),
                    )
                    if part
                ),
            }
        )
    return rows


def _silent(records: Iterable[RoundRecord]) -> dict[str, list[str]]:
    """Of each site, the rounds in which nobody knows what it was charged."""
    rounds: dict[str, list[str]] = {}
    for number, site in unattested(records):
        rounds.setdefault(site, []).append(str(number))
    return {
        site: [f"not attested in round {', '.join(numbers[:6])}{' ...' if len(numbers) > 6 else ''}"]
        for site, numbers in rounds.items()
    }


def _participation(story: RunStory) -> Markup:
    if not any(record.sites for record in story.records):
        return Markup("")
    rows = []
    for site in story.sites[:GRID_SITES]:
        cells = []
        for record in story.records:
            state = record.sites.get(site["name"])
            if state is not None and record.round:
                words = STATUS_WORDS.get(state.status, state.status)
                details = " ".join(
                    part for part in (state.reason, f"in {state.phase}" if state.phase else "") if part
                )
                cells.append((record.round, state.status, f"{words}: {details}" if details else words))
        rows.append((site["name"], cells))
    last = max((record.round for record in story.records), default=0)
    return participation(rows, max(story.planned_rounds, last))


def _cost(story: RunStory) -> list[Figure]:
    moved = [(float(r.round), float(r.bytes_up + r.bytes_down)) for r in story.records]
    times = [(float(r.round), r.seconds) for r in story.records]
    protocol = [(float(r.round), r.protocol_seconds) for r in story.records if r.protocol_seconds > 0]
    return [
        Figure(
            "Traffic per round, all sites", ("public",), column_chart(moved, show.size, label="bytes per round")
        ),
        Figure("Time per round", ("public",), column_chart(times, show.duration, label="seconds per round")),
        Figure(
            "of it, outside training",
            ("public",),
            column_chart(protocol, show.duration, label="seconds of protocol per round"),
            "messages, keys, masks, sums",
        ),
    ]


def _data_rows(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            rows += _data_rows(value, f"{prefix}{key} · ")
        elif isinstance(value, list):
            rows.append((prefix + key, "; ".join(map(str, value)) or "none"))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rows.append((prefix + key, f"{value:,}" if isinstance(value, int) else f"{value:g}"))
        else:
            rows.append((prefix + key, str(value)))
    return rows
