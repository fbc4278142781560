"""What to expect of a run before it begins: a range from public numbers, beside what a site has alone. No data is read.

Quality is told as a *share*: 0 is the model before training (its copy path, its items' names), 1 the same model trained on
everybody's data without noise. ``share = 1 / (1 + exp(-(w0 + w1 ln(S sqrt(T) / sqrt(d)) + w2 ln L)))`` for a run of signal S, T
private steps in all, L of them in a round, d parameters; a site alone of n training consumers and V items has
``1 / (1 + exp(-(w0 + w1 ln n + w2 ln V)))``. The trust mode is in S: whoever adds less noise has more of it.

Source: ``python -m benchmarks.forecast --fit`` over ``benchmarks/forecast_cells.jsonl``; errors are those of a log that the fit
has not seen, and wide because the logs differ by more than any public number says.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

NEXT_ITEM, METRIC = "next-item", "recall@20"


@dataclass(frozen=True)
class Range:
    """A share and the ends between which four of five cells of an unseen log lay."""

    low: float
    middle: float
    high: float

    @property
    def words(self) -> str:
        """In percent."""
        return f"{self.low:.0%} to {self.high:.0%}"


@dataclass(frozen=True)
class Fit:
    """Logistic weights (constant first), the half width of a range in logits, and where the predictors were measured."""

    weights: tuple[float, ...]
    half: float
    measured: tuple[tuple[float, float], ...]

    def logit(self, *predictors: float) -> float:
        """The fitted line."""
        return self.weights[0] + sum(w * x for w, x in zip(self.weights[1:], predictors, strict=True))

    def at(self, *predictors: float) -> Range:
        """The share and its range."""
        middle = self.logit(*predictors)
        return Range(*(1 / (1 + math.exp(-x)) for x in (middle - self.half, middle, middle + self.half)))

    def covers(self, *predictors: float) -> bool:
        """Whether the predictors lie where cells were measured, a factor of two beyond them allowed."""
        slack = math.log(2)
        return all(
            low - slack <= x <= high + slack for x, (low, high) in zip(predictors, self.measured, strict=True)
        )


@dataclass(frozen=True)
class Like:
    """A public log: Recall@20 of the next item untrained, and of training on all its data without noise."""

    name: str
    untrained: float
    without_noise: float

    def recall(self, share: float) -> float:
        """Recall@20 at a share."""
        return self.untrained + share * (self.without_noise - self.untrained)


JOINED = Fit((0.0, 1.0, 0.0), 1.0, ((1.0, 6.0), (0.0, 2.4)))
ALONE = Fit((0.0, 1.0, 0.0), 1.0, ((5.7, 9.3), (6.0, 8.0)))
LOGS = (Like("clicks", 0.276, 0.783),)
SIZES = (300, 1_000, 3_000, 10_000)


@dataclass(frozen=True)
class Forecast:
    """What a run promises, and what its sites have without it.

    ``joined``: the shared model at the end; ``known``: whether the fit has seen such a run; ``items`` of the catalogue;
    ``sites`` name -> training consumers; ``signal`` of the run, ``cohort`` of its rounds.
    """

    joined: Range
    known: bool
    items: int
    sites: dict[str, float]
    signal: float
    cohort: int

    @staticmethod
    def of(plan: Any) -> Forecast | None:
        """Of a plan (``RunPlan``); None where the fit says nothing: no noise, or the next item is not asked."""
        config, signal = plan.config, plan.task.signal(plan)
        if NEXT_ITEM not in config.model.heads or not math.isfinite(signal) or signal <= 0:
            return None
        training = config.training
        at = predictors(signal, training.rounds * training.local_steps, training.local_steps, plan.parameters)
        kept = 1 - config.privacy.holdout
        sites = {name: max(declared * kept, 1.0) for name, declared in plan.populations}
        return Forecast(JOINED.at(*at), JOINED.covers(*at), items_of(plan), sites, signal, plan.cohort)

    def alone(self, consumers: float) -> Range:
        """What a site of so many training consumers makes of them by itself."""
        return ALONE.at(math.log(consumers), math.log(self.items))

    @property
    def pays_up_to(self) -> float:
        """Training consumers up to which a site gets more from the shared model than it has alone, in the middle of both."""
        needed = math.log(self.joined.middle / (1 - self.joined.middle))
        rest = needed - ALONE.weights[0] - ALONE.weights[2] * math.log(self.items)
        return math.exp(min(rest / ALONE.weights[1], 40.0))

    def pays_from(self, site: float) -> float:
        """Training consumers in all, at sites as these, from which joining pays one of this size; infinite if never.

        More sites of the same size make S larger by the root of their number, as far as a round's cohort reaches.
        """
        target = self.alone(site).middle
        needed = math.log(target / (1 - target)) - math.log(self.joined.middle / (1 - self.joined.middle))
        return sum(self.sites.values()) * math.exp(min(2 * needed / JOINED.weights[1], 40.0))

    def lines(self, own: str = "") -> list[str]:
        """In words, the same for every reader but for the size of ``own``, the site that reads it."""
        like = ", ".join(
            f"{log.name} {log.recall(self.joined.low):.2f} to {log.recall(self.joined.high):.2f}" for log in LOGS
        )
        unseen = "" if self.known else "; no run that was measured is like this one, so this is a guess"
        return [
            f"{self.joined.words} of what training without noise would gain; a fit over {len(LOGS)} public logs, "
            f"four of five runs on a log that it had not seen lay within{unseen}",
            f"Recall@20 of the next item on a log like {like}",
            self._alone_words(own),
            self._pays_words(own),
        ]

    def _size(self, own: str) -> float:
        """Training consumers of the site that reads it; else of the one in the middle."""
        return self.sites.get(own) or sorted(self.sites.values())[len(self.sites) // 2]

    def _alone_words(self, own: str) -> str:
        told = ", ".join(f"{size:,.0f}: {self.alone(size).words}" for size in sorted({*SIZES, self._size(own)}))
        return (
            f"alone, without privacy, a site gets of the same gain, by the consumers that it learns from: {told}"
        )

    def _pays_words(self, own: str) -> str:
        size, limit = self._size(own), self.pays_up_to
        whom = "your site" if own in self.sites else "the site in the middle"
        text = f"joining pays for sites of up to about {_about(limit)} consumers"
        if limit < FEWEST:
            text = "joining is likely to pay for no site"
        now, total = sum(self.sites.values()), self.pays_from(size)
        if size <= limit:
            return f"{text}, {whom} ({size:,.0f}) among them; own data on top (fedcart personalize) is never below alone"
        if total > MOST * now:
            return f"{text}; for {whom} ({size:,.0f}) no number of such sites would make it pay at this noise"
        return f"{text}; for {whom} ({size:,.0f}) it pays from about {_about(total)} consumers in all on, {now:,.0f} are here"


def forecast_lines(plan: Any, own: str = "") -> list[str]:
    """What to expect of a run (``RunPlan``) before it begins, in words; ``own``: the site that reads it."""
    if not math.isfinite(plan.task.signal(plan)):
        return ["no noise: quality is bounded by the data only"]
    found = Forecast.of(plan)
    if found is None:
        return [f"no forecast: none is fitted for {plan.task.primary}; docs/quality.md has what public logs gave"]
    return found.lines(own)


FEWEST, MOST = 50, 1_000


def predictors(signal: float, steps: int, local_steps: int, parameters: int) -> tuple[float, float]:
    """What a run is judged by: ln(S sqrt(T) / sqrt(d)), ln L."""
    return math.log(signal * math.sqrt(steps / parameters)), math.log(local_steps)


def items_of(plan: Any) -> int:
    """Items of the public catalogue, or buckets of hashed ones; at least 1."""
    spec = json.loads(plan.features) if plan.features else {}
    return max(int(spec.get("catalogue_items") or spec.get("item_buckets") or 1), 1)


def _about(count: float) -> str:
    """Two digits of a number."""
    if count < 10:
        return f"{count:.0f}"
    unit = 10 ** (math.floor(math.log10(count)) - 1)
    return f"{round(count / unit) * unit:,.0f}"
