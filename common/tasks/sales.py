"""Sales per category and day or week: every site releases its noised series once, all else is post-processing of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.contribution import EVALUATE, METRICS, SERIES, STATISTICS, TRAIN, Block
from common.privacy import PrivacyEvent, sides_of
from common.tasks.reach import Reach, adam_reach, most_consumers, unlimited
from common.tasks.sales_accuracy import SALES_SUMS, released_figures
from common.tasks.sales_series import SalesSpec
from common.tasks.task import TAIL, Calibrate, Legal, Task, bits, cohort_and_largest

LEARNING_RATES = {"scalar-adam": 0.01, "adam": 0.005, "momentum": 0.02, "sgd": 0.05}
_NOISE_TAIL = 8.0  # standard deviations of a released cell that fit into its place of the sum


@dataclass(frozen=True)
class SalesTask(Task):
    """One release of the series in round 0, charged to all consumers; training and accuracy read nothing else."""

    network = "sales"
    looks_up_items = False
    goes_on = False
    shares_noise = False
    opening = STATISTICS

    @property
    def cut_in_time(self) -> str:
        """It is cut already."""
        return "reports on the last sales.test periods already"

    def check_heads(self, heads: Mapping[str, float], known_rows: Mapping[str, int]) -> None:  # noqa: ARG002
        """Return if the only head is the model's own. Raises: ValueError."""
        if set(heads) != set(self.heads):
            raise ValueError(
                f"task {self.name} does not fit model.heads {sorted(heads)}, its usual heads are {sorted(self.heads)}"
            )

    def with_catalogue(self, config: Any, categories: Callable[[], tuple[str, ...]]) -> Any:
        """The catalogue's categories where the settings name none."""
        if config.sales.categories:
            return config
        return config.model_copy(update={"sales": config.sales.model_copy(update={"categories": categories()})})

    def calibrate(self, config: Any, noise_for: Calibrate) -> tuple[float, float]:
        """Noise of the one release; nothing else is released. Raises: ConfigError for dates or a target that cannot be."""
        SalesSpec.of(config)  # dates that are missing, or a series that is too short, are said here
        privacy = config.privacy
        return privacy.noise_multiplier or noise_for(privacy.epsilon, privacy.delta, 1.0, 1), 0.0

    def closing(self, config: Any, noise_for: Calibrate) -> float:  # noqa: ARG002
        """None: accuracy is read off the release."""
        return 0.0

    def derived(self, kind: str) -> bool:
        """Training and accuracy read the released series only."""
        return kind in (TRAIN, EVALUATE)

    def evaluates(self, config: Any) -> bool:  # noqa: ARG002
        """Always: on the last periods of the released series."""
        return True

    def events(self, plan: Any, kind: str) -> tuple[PrivacyEvent, ...]:
        """The release: all consumers are read, so every sub-scope is charged; nothing for what follows from it."""
        if kind != STATISTICS:
            return ()
        scopes = sides_of(plan.config.privacy.holdout, plan.config.privacy.validation)
        return tuple(PrivacyEvent(plan.noise_multiplier, 1.0, 1, scope) for scope in scopes)

    def total_events(self, plan: Any) -> tuple[PrivacyEvent, ...]:
        """The one release."""
        events: tuple[PrivacyEvent, ...] = plan.events(STATISTICS)
        return events

    def sampling_rate(self, config: Any) -> float:  # noqa: ARG002
        """Everybody is read."""
        return 1.0

    def signal(self, plan: Any) -> float:  # noqa: ARG002
        """Infinite: how loud the release is depends on what is sold, see the oracle's half."""
        return math.inf

    def blocks(self, plan: Any, kind: str) -> tuple[Block, ...]:
        """The series in round 0, then as for every task."""
        if kind != STATISTICS:
            return super().blocks(plan, kind)
        cohort, largest = cohort_and_largest(plan)
        bound = plan.config.privacy.clip * (2 * largest + _NOISE_TAIL * plan.noise_multiplier)
        return (Block(SERIES, SalesSpec.of(plan.config).cells, bound, bits(cohort, bound)),)

    def reach(self, plan: Any, site: str, parameters: int) -> Reach:  # noqa: ARG002 - the same everywhere
        """Steps on windows of a released series: no clip bounds their gradients, Adam's own lengths do."""
        training = plan.config.training
        if training.optimizer not in ("scalar-adam", "adam"):
            return Reach(unlimited, math.inf, math.inf)
        rate = training.learning_rate or LEARNING_RATES[training.optimizer]
        return adam_reach(rate, training.local_steps, parameters, training.optimizer)

    def legal(self, plan: Any, kind: str, sites: Sequence[str]) -> dict[str, Legal]:
        """One for every site, and errors that are not negative; of the series what so many consumers can buy."""
        if kind != STATISTICS:
            everyone = float(len(sites))
            return {METRICS: Legal(0.0, math.inf, (everyone, everyone))}
        clip, noise = plan.config.privacy.clip, plan.noise_multiplier if plan.config.privacy.enabled else 0.0
        spread = TAIL * noise * clip * math.sqrt(len(sites))
        most = sum(most_consumers(plan.population(site)) for site in sites) * clip
        return {SERIES: Legal(-spread, most + spread, (-spread, most + spread))}

    def metrics(self, config: Any) -> tuple[str, ...]:  # noqa: ARG002
        """The accuracy sums."""
        return SALES_SUMS

    def summarise(self, config: Any, sums: NDArray[np.float64]) -> dict[str, float]:
        """WAPE, MASE and RMSE of the model and of the trivial forecasts."""
        return released_figures(sums, config.sales.quantity_bound)

    def forecast(self, plan: Any, own: str = "") -> list[str]:  # noqa: ARG002 - the same for every site
        """How loud the noise of a release is."""
        if not plan.noise_multiplier:
            return ["no noise: quality is bounded by the data only"]
        sales, scale = plan.config.sales, plan.noise_multiplier * plan.config.privacy.clip
        return [
            f"noise of ±{scale * sales.quantity_bound:,.0f} pieces and ±{scale * sales.revenue_bound:,.0f} revenue on every "
            f"{sales.granularity} of a category at each site: what sells much more than that is learnt from"
        ]

    def approval_rows(self, config: Any) -> list[tuple[str, str]]:
        """What is summed over all consumers, held-out ones included, and released once, in round 0."""
        sales = config.sales
        return [
            ("released", f"quantity and revenue of {sales.periods} {sales.granularity}s from {sales.start}, once"),
            ("categories", ", ".join(sales.categories) or "all together"),
            ("bounds", f"{sales.quantity_bound:g} pieces, {sales.revenue_bound:g} revenue per consumer, jointly"),
        ]

    def evaluation_words(self, plan: Any) -> str:  # noqa: ARG002
        """Nothing more is charged."""
        return "training reads the released series only and costs nothing more"


SALES_FORECAST = SalesTask("sales", "sales", {"sales": 1.0}, "wape")

TASKS = (SALES_FORECAST,)
