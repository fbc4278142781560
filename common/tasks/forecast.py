"""What to expect of a run before it begins: ranges from public numbers, beside what a site has alone. No data is read.

Quality is told as a *share* of what training without noise gains: 0 is the model before training (its copy path, its items'
names), 1 the same model trained on everybody's data without noise. Two logistic curves were fitted over public logs:

    shared model   ``logit share = a_log + w1 ln(S sqrt(T) / sqrt(d)) + w2 ln L`` for signal S, T private steps in all, L of them
                   in a round, and d parameters
    a site alone   ``logit share = a_log + w1 ln n`` for n consumers that it learns from

with a constant of each log, because logs differ by more than any public number says: so a range is told for a log like each of
them, and one for a log that is like none. The trust mode is in S: whoever adds less noise has more of it.

Source: ``python -m benchmarks.forecast --fit`` over ``benchmarks/forecast_cells.jsonl``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

NEXT_ITEM, METRIC = "next-item", "recall@20"
SIZES = (300, 1_000, 3_000, 10_000)
FEWEST, MOST = 50, 1e7  # consumers of a site, and in all, that are worth naming
_FAR = 40.0  # of an exponent: beyond it a number is as good as infinite


@dataclass(frozen=True)
class Curve:
    """``weights`` of the predictors; ``half``: of four in five runs left out of the fit, the error in shares was no more;
    ``unseen``: the same of runs on a log left out, with the mean constant of the others; ``measured``: limits of the predictors."""

    weights: tuple[float, ...]
    half: float
    unseen: float
    measured: tuple[tuple[float, float], ...]

    def share(self, constant: float, *predictors: float) -> float:
        """The middle of a range."""
        line = constant + sum(w * x for w, x in zip(self.weights, predictors, strict=True))
        return 1 / (1 + math.exp(-min(max(line, -_FAR), _FAR)))

    def covers(self, *predictors: float) -> bool:
        """Whether the predictors lie where runs were measured, a factor of two beyond allowed."""
        slack = math.log(2)
        return all(
            low - slack <= x <= high + slack for x, (low, high) in zip(predictors, self.measured, strict=True)
        )


@dataclass(frozen=True)
class Like:
    """A public log: Recall@20 of the next item untrained, and of training on all its data without noise; its two constants."""

    name: str
    untrained: float
    without_noise: float
    joined: float
    alone: float

    def recall(self, share: float) -> float:
        """Recall@20 at a share."""
        return self.untrained + share * (self.without_noise - self.untrained)

    def words(self, share: float, half: float) -> str:
        """Recall@20 over a range of shares."""
        low, high = (self.recall(min(max(x, 0.0), 1.0)) for x in (share - half, share + half))
        return f"{self.name} {low:.2f} to {high:.2f}"


# fitted: begin
JOINED = Curve((1.230, -0.078), 0.12, 0.40, ((0.45, 5.13), (0.00, 2.30)))
ALONE = Curve((1.669,), 0.23, 0.35, ((5.70, 8.86),))
LOGS = (
    Like("clicks", 0.276, 0.783, -5.40, -12.33),
    Like("Online Retail dealt", 0.253, 0.359, -5.56, -10.97),
    Like("Complete Journey", 0.102, 0.194, -0.99, -9.06),
    Like("market", 0.518, 0.794, -3.45, -10.02),
    Like("market without contexts", 0.523, 0.684, -3.17, -8.48),
)
# fitted: end


@dataclass(frozen=True)
class Forecast:
    """What a run promises, and what its sites have without it.

    ``at``: predictors of the run; ``sites`` name -> consumers that it trains on; ``contexts`` that the model reads.
    """

    at: tuple[float, float]
    sites: dict[str, float]
    contexts: tuple[str, ...] = ()

    @staticmethod
    def of(plan: Any) -> Forecast | None:
        """Of a plan (``RunPlan``); None where the fit says nothing: no noise, or the next item is not asked."""
        config, signal = plan.config, plan.task.signal(plan)
        if NEXT_ITEM not in config.model.heads or not math.isfinite(signal) or signal <= 0:
            return None
        training, kept = config.training, 1 - config.privacy.holdout
        steps = training.rounds * training.local_steps
        at = math.log(signal * math.sqrt(steps / plan.parameters)), math.log(training.local_steps)
        sites = {name: max(declared * kept, 1.0) for name, declared in plan.populations}
        return Forecast(at, sites, config.model.context)

    def joined(self, log: Like) -> float:
        """Share of the shared model at the end, on a log like this."""
        return JOINED.share(log.joined, *self.at)

    @property
    def unlike(self) -> tuple[float, float]:
        """Lowest and highest share on a log that is like none."""
        middle = JOINED.share(sum(log.joined for log in LOGS) / len(LOGS), *self.at)
        return max(middle - JOINED.unseen, 0.0), min(middle + JOINED.unseen, 1.0)

    def pays_up_to(self, log: Like) -> float:
        """Consumers up to which a site gets more from the shared model than it has alone, on a log like this."""
        return math.exp(min((logit(self.joined(log)) - log.alone) / ALONE.weights[0], _FAR))

    def pays_from(self, log: Like, size: float) -> float:
        """Consumers in all, at sites as these, from which joining pays one of this size.

        More sites of the same size make S larger by the root of their number, as far as a round's cohort reaches.
        """
        short = logit(alone(log, size)) - logit(self.joined(log))
        return sum(self.sites.values()) * math.exp(min(2 * short / JOINED.weights[0], _FAR))

    def size(self, own: str = "") -> float:
        """Consumers of the site that reads it; else of the one in the middle."""
        return self.sites.get(own) or sorted(self.sites.values())[len(self.sites) // 2]

    def lines(self, own: str = "") -> list[str]:
        """In words, the same for every reader but for the size of ``own``, the site that reads it."""
        size, low, high = self.size(own), *self.unlike
        guess = "" if JOINED.covers(*self.at) else "; no run that was measured is like this one: a guess"
        whose = "your site" if own in self.sites else "the site in the middle"
        joined = ", ".join(log.words(self.joined(log), JOINED.half) for log in LOGS)
        own_model = ", ".join(log.words(alone(log, size), ALONE.half) for log in LOGS)
        return [
            f"Recall@20 of the shared model, on a log like {joined}{guess} (public: a fit over {len(LOGS)} logs)",
            f"a log unlike them: {low:.0%} to {high:.0%} of what training without noise would gain, four times in five",
            f"alone, without privacy, {whose} ({size:,.0f} consumers to learn from) has on a log like {own_model}",
            f"joining pays a site of up to so many consumers, on a log like {', '.join(map(self._limit, LOGS))}",
            *self._needed(size, whose),
            "with own data on top (fedcart personalize) a site never has less than alone",
            *self._contexts_words(),
        ]

    def _contexts_words(self) -> list[str]:
        """What no public number tells: whether the contexts say anything."""
        if not self.contexts:
            return []
        return [
            "contexts that say nothing cost most of that: where times are made up, or one event is all there is, declare them in "
            "features.constant (ten rounds of clicks: .59 with, .38 without)"
        ]

    def _limit(self, log: Like) -> str:
        limit = self.pays_up_to(log)
        return f"{log.name} {about(limit) if limit >= FEWEST else 'no site'}"

    def _needed(self, size: float, whose: str) -> list[str]:
        """From how many consumers in all joining pays, where it does not yet."""
        here = sum(self.sites.values())
        short = {log.name: self.pays_from(log, size) for log in LOGS if self.pays_up_to(log) < size}
        if not short:
            return [f"so it pays {whose}, on a log like any of them"]
        told = [f"{name} {about(total) if total <= MOST else 'from no number'}" for name, total in short.items()]
        return [f"for {whose} it pays from so many consumers in all on ({here:,.0f} are here): {', '.join(told)}"]


def alone(log: Like, consumers: float) -> float:
    """Share of a site by itself, without privacy, on a log like this."""
    return ALONE.share(log.alone, math.log(max(consumers, 1.0)))


def logit(share: float) -> float:
    """Of a share that is neither 0 nor 1 for all that anybody can tell."""
    inside = min(max(share, 1e-3), 1 - 1e-3)
    return math.log(inside / (1 - inside))


def forecast_lines(plan: Any, own: str = "") -> list[str]:
    """What to expect of a run (``RunPlan``) before it begins, in words; ``own``: the site that reads it."""
    if not math.isfinite(plan.task.signal(plan)):
        return ["no noise: quality is bounded by the data only"]
    found = Forecast.of(plan)
    if found is None:
        return [f"no forecast: there is no fit for {plan.task.primary}; docs/quality.md has what public logs gave"]
    return found.lines(own)


def about(count: float) -> str:
    """Two digits of a number; ``any`` where there is no end."""
    if count > MOST:
        return "any"
    if count < 10:
        return f"{count:.0f}"
    unit = 10 ** (math.floor(math.log10(count)) - 1)
    return f"{round(count / unit) * unit:,.0f}"
