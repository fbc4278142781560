"""Personalizing a model of sales: the shared correction with the site's own bias and trust, or a simple forecast, as its past says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.personal.verdict import ALONE, PERSONAL, SHARED, Verdict, clearly_better, compare
from client.scoring.forecast import SharedSalesModel, method_values
from common.errors import BadInputError
from common.model import first_origin
from common.tasks.sales_accuracy import MEAN_OF_FOUR, MODEL, SEASONAL_NAIVE
from common.tasks.sales_series import Floats, SalesSpec

SIMPLE = (MEAN_OF_FOUR, SEASONAL_NAIVE)
UNTOUCHED = "the shared correction as it is"
FEWEST = 4  # forecasts to choose by, and as many to report on


def personalize_sales(shared: SharedSalesModel, series: Floats, spec: SalesSpec) -> tuple[str, Verdict]:
    """The method that a site should forecast with, chosen on forecasts of its past that end before those reported.

    ``series: float64[channels, categories, periods]`` exact, in units of the bounds. Raises: BadInputError for too short a past.
    """
    sales = shared.config.sales
    known = np.arange(first_origin(sales.window, spec.season), spec.periods - sales.horizon)
    tested = known[-max(min(sales.test, len(known) // 2), 1) :]
    earlier = known[known <= tested[0] - sales.horizon] if len(tested) else tested
    choose = earlier[-max(sales.test, 2 * sales.horizon) // 2 :]
    if min(len(choose), len(tested)) < FEWEST:
        raise BadInputError(
            f"{len(known)} forecasts of the past are too few to choose by some and report on others",
            hint=f"give a log that is at least {2 * FEWEST + sales.horizon} {spec.granularity}s longer",
        )
    alone = max(SIMPLE, key=lambda method: _score(shared, series, spec, method, choose).mean())
    scores = {method: _score(shared, series, spec, method, choose) for method in (MODEL, alone)}
    method = MODEL if clearly_better(scores[MODEL], scores[alone]) else alone
    asked = {ALONE: alone, SHARED: UNTOUCHED, PERSONAL: method}
    wape = {who: -_score(shared, series, spec, how, tested) for who, how in asked.items()}
    words = f"{ALONE}: {alone}" if method == alone else "the shared correction with your own bias and trust"
    return method, compare("wape", wape, words, f"forecasts of {sales.horizon} {spec.granularity}s")


def _score(
    shared: SharedSalesModel, series: Floats, spec: SalesSpec, method: str, origins: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of each forecast, less the error in pieces over the mean of what was sold: their mean is less the WAPE."""
    horizon = shared.config.sales.horizon
    truth = series[0][:, origins[:, None] + np.arange(1, horizon + 1)]  # [categories, origins, horizon]
    wrong = np.abs(method_values(shared, series, spec, method, origins)[0] - truth).sum(axis=(0, 2))
    sold = np.abs(truth).sum(axis=(0, 2)).mean()
    return np.asarray(-wrong / max(float(sold), 1e-12))
