"""What only a simulation of a sales run does: settings from the log, and *oracle* figures from the exact series."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from common.config import RunConfig
from common.errors import BadInputError
from common.model.sales_series import ALL, Floats, SalesSpec, catalogue_categories
from common.plan import RunPlan

if TYPE_CHECKING:
    from client.training.sales import SalesData
    from common.data.catalogue import Catalogue
    from simulations.partition import Partition


def with_public_series(config: RunConfig, dealt: Partition, known: Catalogue | None) -> RunConfig:
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


def store_site(kit_state: Path, plan: RunPlan, log: Any) -> None:
    """Leave a simulated site's summed purchases in its state folder."""
    from client.training.statistics import purchases_in, purchases_path, store_purchases

    store_purchases(purchases_path(kit_state, plan), purchases_in(log, plan))


def exact_series(kit: str, plan: RunPlan) -> Floats:
    """A site's winsorized series, without clip and noise, in units of the bounds. ORACLE."""
    from client.site import load_site
    from client.training.statistics import purchases_at

    return purchases_at(load_site(Path(kit), simulated=True), plan).series(SalesSpec.of(plan.config))


def exact_sums(kit: str, plan: RunPlan, vector: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
    """Accuracy of a model that one site uses on its own exact series: ORACLE, in the order of ``SALES_SUMS``."""
    from client.training.sales import flat_model, measure

    model, flat = flat_model(plan.config)
    flat.load(vector)
    return [float(value) for value in measure(model, _data(kit, plan), plan.config)]


def _data(kit: str, plan: RunPlan) -> SalesData:
    from client.training.sales import SalesData

    return SalesData.of(exact_series(kit, plan), plan.config)


def trivial_forecasts(kits: list[str], plan: RunPlan) -> dict[str, dict[str, float]]:
    """Seasonal naive and mean of four on the exact series of all sites."""
    from client.training.sales import flat_model
    from common.model.sales_accuracy import trivial_figures

    start = flat_model(plan.config)[1].numpy()
    sums = np.sum([exact_sums(kit, plan, start) for kit in kits], axis=0)
    return trivial_figures(sums, plan.config.sales.quantity_bound)


def train_alone(kits: list[str], plan: RunPlan) -> list[float]:
    """Train on the exact series of some sites in one place, without noise; accuracy sums over those sites."""
    from client.training.sales import flat_model, train_sales
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
    return [float(x) for x in np.sum([exact_sums(kit, plan, state.average) for kit in kits], axis=0)]


def noise_words(plan: RunPlan) -> str:
    """How loud the noise of a release is: public, known before anything is released."""
    if not plan.noise_multiplier:
        return "no noise: quality is bounded by the data only"
    sales, scale = plan.config.sales, plan.noise_multiplier * plan.config.privacy.clip
    period = "day" if sales.granularity == "day" else "week"
    return (
        f"noise of ±{scale * sales.quantity_bound:,.0f} pieces and ±{scale * sales.revenue_bound:,.0f} revenue on every "
        f"{period} of a category at each site: what sells much more than that is learnt from"
    )


def verdict(oracle: dict[str, float], baselines: dict[str, dict[str, float]]) -> list[str]:
    """A note where a trivial forecast is better than the model."""
    model = oracle.get("wape", math.nan)
    better = {n: m["wape"] for n, m in baselines.items() if m.get("wape", math.inf) < model}
    trivial = {n: wape for n, wape in better.items() if n in ("mean-of-four", "seasonal-naive")}
    if not trivial:
        return []
    best = min(trivial, key=trivial.__getitem__)
    return [
        f"the model (wape {model:.3f}) is worse than the trivial baseline {best} ({trivial[best]:.3f}): use that; "
        "more consumers, fewer categories, weeks instead of days or a larger epsilon are needed"
    ]
