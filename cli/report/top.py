"""The verdict of a run for the top of its page: what it was worth, in one or two sentences, each with the kind of its numbers."""

from __future__ import annotations

from typing import Any

import cli.show as show
from cli.report.facts import RunStory
from common.run import FAILED
from common.tasks import metric_named, primary_metric

Sentence = tuple[str, str, str]  # tone, kind of the numbers, words


def verdict(story: RunStory, own_data: list[dict[str, Any]]) -> list[Sentence]:
    """The sentences, what matters most to a merchant first; none while nothing was measured."""
    if story.status == FAILED:
        return [("bad", "public", "No round gave a sum: there is no model.")]
    found = [sentence for sentence in (_of_sites(own_data), _beside_baselines(story)) if sentence]
    released = None if found else _released(story)
    return [released] if released else found


def _of_sites(rows: list[dict[str, Any]]) -> Sentence | None:
    """What joining brings the sites, where that was compared."""
    gains = []
    for row in rows:
        for one in row["verdicts"][:1]:
            value, error = one["gain"]["value"], one["gain"]["error"]
            if value is not None and error is not None:
                gains.append((100 * value, 196 * error))
    if not gains:
        return None
    better = [value for value, bar in gains if value > bar]
    words = f"Joining brings {len(better)} of {show.count(len(gains), 'compared site')} more than it has alone"
    if better:
        words += (
            f", {min(better):+.1f} to {max(better):+.1f} points"
            if len(better) > 1
            else f", {better[0]:+.1f} points"
        )
    return ("good" if better else "warn", "oracle", f"{words}; the others use what they have alone.")


def _beside_baselines(story: RunStory) -> Sentence | None:
    """The shared model beside the best method that only counts."""
    rows = story.standings
    if not rows or rows[0].score is None:
        return None
    metric = metric_named(rows[0].primary)
    model = rows[0].score
    trivial = [row for row in rows[1:] if row.trivial and row.score is not None]
    words = f"The shared model has {metric.words} {show.number(model)}"
    if not trivial:
        return ("info", "oracle", f"{words}.")
    best = trivial[0]
    above = metric.better(model, best.score or 0.0)
    than = "better than every method that only counts" if above else "no better than counting"
    return ("good" if above else "warn", "oracle", f"{words}, {than}: {best.name} has {show.number(best.score)}.")


def _released(story: RunStory) -> Sentence | None:
    """A deployed run: what the sites reported, with its bar."""
    name = primary_metric(story.task)
    cell = story.bars.latest(story.records, name)
    if cell == "–":
        return None
    words = f"The shared model has {metric_named(name).words} {cell} on the sites' held-out consumers"
    return ("info", "released", f"{words}; what that is worth to a site, fedcart personalize says there.")
