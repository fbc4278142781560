"""What joining brought a merchant, on its own held-out consumers: alone, shared, personal, with bars. The site's own numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.tasks import metric_named

Scores = NDArray[np.float64]
Z = NormalDist().inv_cdf(0.975)
ENOUGH = 0.5  # standard errors
PARTIES = ALONE, SHARED, PERSONAL = "alone", "shared", "personal"


@dataclass(frozen=True)
class Figure:
    """A mean over consumers (or periods) and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Verdict:
    """One metric of the three models on the same ``count`` held-out consumers.

    ``gain``: personal less alone, so that more is better, paired; its error is that of the paired difference. ``chosen``: what
    the personal model is made of.
    """

    metric: str
    count: int
    figures: dict[str, Figure]
    gain: Figure
    chosen: str
    unit: str = "consumers"

    @property
    def words(self) -> str:
        """One sentence for a merchant."""
        known = metric_named(self.metric)
        points, bar = 100 * self.gain.value, 100 * Z * self.gain.error
        what = f"{known.words}, {points:+.1f} ± {bar:.1f} points at 95 %, {self.count:,} {self.unit} of your own held out"
        if not math.isfinite(points):
            return f"nothing can be said of {known.words}: {self.count} {self.unit} held out have an answer"
        if self.chosen.startswith(ALONE):
            return f"joining brings you nothing here: your own model is used ({what})"
        if points - bar > 0:
            return f"joining brings you {points:+.1f} points ({what})"
        return f"joining brings you nothing that could be told from chance ({what})"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"words": self.words}

    @staticmethod
    def from_json(plain: dict[str, Any]) -> Verdict:
        """Inverse of ``to_json``. Raises: TypeError, KeyError."""
        known = {name: value for name, value in plain.items() if name != "words"}
        figures = {name: Figure(**one) for name, one in known["figures"].items()}
        return Verdict(**known | {"figures": figures, "gain": Figure(**known["gain"])})


def compare(metric: str, scores: dict[str, Scores], chosen: str, unit: str = "consumers") -> Verdict:
    """The verdict on paired scores of the same consumers: ``float64[N]`` of each party."""
    better = 1.0 if metric_named(metric).higher_is_better else -1.0
    figures = {name: figure_of(values) for name, values in scores.items()}
    gain = figure_of(better * (scores[PERSONAL] - scores[ALONE]))
    return Verdict(metric, len(scores[ALONE]), figures, gain, chosen, unit)


def figure_of(values: Scores) -> Figure:
    """Mean and standard error; not a number without values."""
    if not len(values):
        return Figure(math.nan, math.nan)
    return Figure(
        float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    )


def clearly_better(candidate: Scores, incumbent: Scores) -> bool:
    """Whether a candidate beats what a site has alone on the same consumers, by enough."""
    return is_clear(figure_of(candidate - incumbent))


def is_clear(gain: Figure) -> bool:
    """Whether a paired gain is more than half of its standard error.

    Choosing the larger of two noisy means would now and then take the worse one; asking for much more would leave gains of
    small sites, whose slices are small, behind.
    """
    return bool(gain.value > ENOUGH * gain.error) if math.isfinite(gain.error) else False


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of one site: the first is of the metric that decides."""

    site: str
    task: str
    consumers: int
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "site": self.site, "task": self.task, "consumers": self.consumers,
            "verdicts": [one.to_json() for one in self.verdicts], "notes": list(self.notes),
        }  # fmt: skip
