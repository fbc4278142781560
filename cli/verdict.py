"""A model beside its baselines, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.tasks import in_order, metric_named, primary_metric

MODEL = "this model"
TRIVIAL = (
    "popularity",
    "markov",
    "item-knn",
    "repeat-last",
    "buys-again",
    "majority",
    "mean-of-four",
    "seasonal-naive",
)


@dataclass(frozen=True)
class Standing:
    """One contestant of the comparison: the model itself or a baseline. Values are oracle metrics."""

    name: str
    values: dict[str, float]
    primary: str
    is_model: bool = False

    @property
    def score(self) -> float | None:
        """The metric that decides, None where it was not measured."""
        return self.values.get(self.primary)

    @property
    def trivial(self) -> bool:
        """True for a baseline that needs no training."""
        return self.name in TRIVIAL


def standings(
    oracle: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], task: str
) -> list[Standing]:
    """The model first, then the baselines, best first by the task's primary metric; metrics in a fixed order."""
    primary = metric_named(primary_metric(task))
    known = {name for values in (oracle, *baselines.values()) for name in values}
    names = in_order(known)

    def row(name: str, values: Mapping[str, float], *, is_model: bool = False) -> Standing:
        return Standing(name, {key: values[key] for key in names if key in values}, primary.name, is_model)

    sign = -1 if primary.higher_is_better else 1
    others = sorted(
        (row(name, values) for name, values in baselines.items()),
        key=lambda standing: (standing.score is None, sign * (standing.score or 0.0), standing.name),
    )
    return [row(MODEL, oracle, is_model=True), *others] if names else []
