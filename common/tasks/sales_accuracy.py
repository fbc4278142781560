"""How good a sales forecast is, as sums that add up over sites, and the figures that follow from them. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.tasks.sales_series import CHANNELS, Floats

MODEL, MEAN_OF_FOUR, SEASONAL_NAIVE = "this model", "mean-of-four", "seasonal-naive"
FORECASTS = ("error", "mean_error", "naive_error")  # of the model and of the two trivial forecasts
_OF = {"error": "", "mean_error": MEAN_OF_FOUR, "naive_error": SEASONAL_NAIVE}
ERROR_BOUND = 10.0  # a larger squared error of one normalised step counts as this

SALES_SUMS = (
    "sites",
    "loss",
    *(f"{channel}_{what}" for channel in CHANNELS for what in ("actual", *FORECASTS, "scale")),
    *(f"quantity_{what}_root" for what in FORECASTS),
)
"""Per site: 1, the mean bounded loss, and per channel means over all cells of the test, in units of the bounds:
actual value, absolute errors, the mean absolute seasonal change before the test (the scale of MASE), root mean
squares."""


NO_SCALE = 1e-9
"""A seasonal change below this share of what is sold is rounding: there is no scale to measure by."""


def accuracy_sums(
    truth: Floats, forecasts: Mapping[str, Floats], scale: Floats, loss: float
) -> NDArray[np.float64]:
    """One site's part of the sums, in the order of ``SALES_SUMS``.

    Shapes: ``truth`` and each of ``forecasts`` (by name of ``FORECASTS``): ``[channels, categories, origins,
    horizon]``; ``scale: [channels, categories]``, all in units of the public bounds.
    """
    named = {"sites": 1.0, "loss": min(loss, ERROR_BOUND) if math.isfinite(loss) else ERROR_BOUND}
    for index, channel in enumerate(CHANNELS):
        named[f"{channel}_actual"] = float(np.abs(truth[index]).mean())
        named[f"{channel}_scale"] = float(scale[index].mean())
        for what, forecast in forecasts.items():
            wrong = forecast[index] - truth[index]
            named[f"{channel}_{what}"] = float(np.abs(wrong).mean())
            if channel == CHANNELS[0]:
                named[f"{channel}_{what}_root"] = float(np.sqrt((wrong**2).mean()))
    return np.array([named[name] for name in SALES_SUMS])


def sales_figures(sums: NDArray[np.float64], what: str = "error", quantity_bound: float = 1.0) -> dict[str, float]:
    """WAPE, RMSE and MASE from the sums of all sites; ``what`` is one of ``FORECASTS``.

    ``wape``: sum of absolute errors over sum of actual values, quantity; ``revenue_wape`` likewise; ``mase``: mean
    absolute error over that of the seasonal naive forecast before the test, quantity; ``rmse``: mean of the sites'
    root mean squared errors, in pieces. NaN where nothing was sold.
    """
    named = dict(zip(SALES_SUMS, map(float, sums), strict=True))
    figures = {
        "wape": _ratio(named[f"quantity_{what}"], named["quantity_actual"]),
        "revenue_wape": _ratio(named[f"revenue_{what}"], named["revenue_actual"]),
        "mase": _ratio(named[f"quantity_{what}"], _scale(named["quantity_scale"], named["quantity_actual"])),
        "rmse": _ratio(named[f"quantity_{what}_root"] * quantity_bound, named["sites"]),
    }
    return figures | ({"loss": _ratio(named["loss"], named["sites"])} if what == "error" else {})


def trivial_figures(sums: NDArray[np.float64], quantity_bound: float = 1.0) -> dict[str, dict[str, float]]:
    """The same figures of the trivial forecasts, by name."""
    return {name: sales_figures(sums, what, quantity_bound) for what, name in _OF.items() if name}


def released_figures(sums: NDArray[np.float64], quantity_bound: float) -> dict[str, float]:
    """What a sum over sites says about model and trivial forecasts on the released series: name -> value."""
    released = sales_figures(sums, "error", quantity_bound)
    trivial = {f"{name}_wape": figures["wape"] for name, figures in trivial_figures(sums).items()}
    return released | trivial


def _scale(scale: float, actual: float) -> float:
    """The scale of MASE; 0 where a series repeats itself exactly and only rounding is left of it."""
    return scale if scale > NO_SCALE * abs(actual) else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
