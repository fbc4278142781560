"""The oracle's half of sales forecasts: settings from the log, and figures from the exact series."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from common.errors import BadInputError
from common.run import RoundRecord, RunConfig, RunPlan
from common.tasks.sales_series import ALL, Floats, SalesSpec, catalogue_categories

if TYPE_CHECKING:
    from client.tasks.sales_training import SalesData
    from common.data import Catalogue
    from simulations.partition import Partition


NOISED_REFERENCE = False


def fill_in(config: RunConfig, dealt: Partition, known: Catalogue | None) -> RunConfig:
    """Fill in what a deployment declares: first day and length from the log, categories from the catalogue.

    The last day of a log may be cut short and is left out. Of many categories those with most items in the
    catalogue are kept, the rest become ``other``. Raises: BadInputError for a log without purchases; ConfigError.
    """
    sales = config.sales
    if not sales.start or not sales.periods:
        sales = sales.model_copy(update=_dates(config, dealt))
    if not sales.categories:
        names = catalogue_categories(known.categories, known.item_category) if known else (ALL,)
        sales = sales.model_copy(update={"categories": names})
    return config.model_copy(update={"sales": sales})


def _dates(config: RunConfig, dealt: Partition) -> dict[str, Any]:
    bought = [part.log.frame.filter(pl.col("event") == "purchase")["timestamp"] for part in dealt.sites]
    times = pl.concat(bought)
    if not len(times):
        raise BadInputError("the log has no purchase", hint="a sales series needs events of the type purchase")
    first, last = times.min().date(), times.max().date()  # type: ignore[union-attr]
    days = 1
    if config.sales.granularity == "week":
        first, days = first + timedelta(days=-first.weekday() % 7), 7
    start = config.sales.start or first.isoformat()
    first = type(first).fromisoformat(start)
    return {"start": start, "periods": config.sales.periods or max((last - first).days // days, 1)}


def encoded(_config: RunConfig, _dealt: Any, _spec: Any, _catalogue: Any) -> dict[str, Any]:
    """Nothing: no consumer is a row of this task."""
    return {}


def store(kit_state: Path, plan: RunPlan, part: Any, _encoded: Any, _mask: Any) -> None:
    """Leave a simulated site's summed purchases in its state folder."""
    from client.tasks.series import purchases_in, purchases_path, store_purchases

    store_purchases(purchases_path(kit_state, plan), purchases_in(part.log, plan))


def exact_series(kit: str, plan: RunPlan) -> Floats:
    """A site's winsorized series, without clip and noise, in units of the bounds. ORACLE."""
    from client.site import load_site
    from client.tasks.series import purchases_at

    return purchases_at(load_site(Path(kit), simulated=True), plan).series(SalesSpec.of(plan.config))


def hold_out_sums(kit: str, plan: RunPlan, vector: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
    """Accuracy of a model that one site uses on its own exact series: ORACLE, in the order of ``SALES_SUMS``."""
    from client.tasks.sales_training import flat_model, measure

    model, flat = flat_model(plan.config)
    flat.load(vector)
    return [float(value) for value in measure(model, _data(kit, plan), plan.config)]


def _data(kit: str, plan: RunPlan) -> SalesData:
    from client.tasks.sales_training import SalesData

    return SalesData.of(exact_series(kit, plan), plan.config)


def baselines(kits: list[str], plan: RunPlan) -> dict[str, dict[str, float]]:
    """Seasonal naive and mean of four on the exact series of all sites."""
    from client.tasks.sales_training import flat_model
    from common.tasks.sales_accuracy import trivial_figures

    start = flat_model(plan.config)[1].numpy()
    sums = np.sum([hold_out_sums(kit, plan, start) for kit in kits], axis=0)
    return trivial_figures(sums, plan.config.sales.quantity_bound)


def train_alone(kits: list[str], plan: RunPlan, _noise_multiplier: float = 0.0) -> list[float]:
    """Train on the exact series of some sites in one place, without noise; accuracy sums over those sites."""
    from client.tasks.sales_training import flat_model, train_sales
    from server.state import ServerState
    from server.strategy import apply

    config = plan.config
    model, flat = flat_model(config)
    data = {kit: _data(kit, plan) for kit in kits}
    state = ServerState.initial(flat.numpy(), b"")
    for number in range(1, config.training.rounds + 1):
        updates = []
        for kit, series in data.items():
            seed = f"fedcart/sales/1\0{config.seed}\0{Path(kit).name}\0{number}".encode()
            updates.append(train_sales(flat, model, series, state.parameters, config, seed))
        mean = np.mean(updates, axis=0).astype(np.float32)
        state = apply(state, mean, config.strategy, config.training.local_steps)
    return [float(x) for x in np.sum([hold_out_sums(kit, plan, state.average) for kit in kits], axis=0)]


def expectation(plan: RunPlan, _signal: float = 0.0, _steps: int = 0) -> str:
    """How loud the noise of a release is: public, known before anything is released."""
    return "\n".join(plan.task.forecast(plan))


def assumptions(config: RunConfig) -> list[str]:
    """What a deployment declares instead."""
    if config.data.events or not config.data.catalogue:
        return ["dates and categories of the series follow the log: declare them in a deployment"]
    return []


def remarks(record: RoundRecord, others: dict[str, dict[str, float]]) -> list[str]:
    """A note where a trivial forecast is better than the model."""
    model = record.oracle.get("wape", math.nan)
    better = {n: m["wape"] for n, m in others.items() if m.get("wape", math.inf) < model - 5e-4}
    trivial = {n: wape for n, wape in better.items() if n in ("mean-of-four", "seasonal-naive")}
    if not trivial:
        return []
    best = min(trivial, key=trivial.__getitem__)
    return [
        f"the model (wape {model:.3f}) is worse than the trivial baseline {best} ({trivial[best]:.3f}): use that; "
        "more consumers, fewer categories, weeks instead of days or a larger epsilon are needed"
    ]
