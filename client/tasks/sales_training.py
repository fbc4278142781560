"""Local training on a site's released sales series: ordinary steps, because all they read is public already.

The series was noised and charged when it was released; whatever is computed from it costs nothing more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from client.training.optimizer import make_optimizer
from common.model import (
    FlatParameters,
    SalesModel,
    SeriesWindows,
    Vector,
    build_sales_model,
    corrections,
    first_origin,
    forecasts,
    make_windows,
    normalised,
    own_bias,
    own_part,
)
from common.run import RunConfig
from common.tasks.sales import LEARNING_RATES
from common.tasks.sales_accuracy import ERROR_BOUND, accuracy_sums
from common.tasks.sales_series import Floats, SalesSpec, mean_of_four, seasonal_naive

BATCH = 256  # windows of one local step
_OWN_SPREAD = 0.4  # what normalised sales vary by themselves, about


@dataclass(frozen=True)
class SalesData:
    """One site's series in windows: to learn from, to fit its own part on, to measure with (the last ``sales.test``).

    ``series: float64[channels, categories, periods]`` in units of the public bounds.
    """

    series: Floats
    spec: SalesSpec
    train: SeriesWindows
    check: SeriesWindows
    test: SeriesWindows

    @staticmethod
    def of(series: Floats, config: RunConfig, noise: float = 0.0) -> SalesData:
        """Cut a series. ``noise``: standard deviation of a released cell, in units of the bounds.

        The sum over categories is learnt from too: it is as free as they are, and its noise is relatively small.
        """
        spec, sales = SalesSpec.of(config), config.sales
        first, last = first_origin(sales.window, spec.season), spec.periods - sales.horizon - 1
        cut = spec.periods - sales.test - sales.horizon  # the last origin whose targets end before the test
        learnt = max(cut - max(sales.test, 2 * sales.horizon), first)
        parts = (first, learnt + 1), (min(learnt + 1, cut), cut + 1), (max(cut + sales.horizon, first), last + 1)
        categories = series.shape[1]
        loud = np.full(categories, noise)
        summed, loud_too = series, loud
        if categories > 1:
            summed = np.concatenate([series, series.sum(axis=1, keepdims=True)], axis=1)
            loud_too = np.append(loud, noise * np.sqrt(categories))
        return SalesData(
            series,
            spec,
            make_windows(summed, spec, config, np.arange(*parts[0]), loud_too),
            *(make_windows(series, spec, config, np.arange(*part), loud) for part in parts[1:]),
        )


def train_sales(
    flat: FlatParameters, model: SalesModel, data: SalesData, start: Vector, config: RunConfig, seed: bytes
) -> Vector:
    """Local steps of one round from ``start: float32[d]``; returns the update ``float32[d]``.

    The site's own bias is taken off first and stays here.
    """
    training = config.training
    flat.load(start)
    anchor = flat.vector.clone()
    bias = own_bias(data.train, corrections(model, data.train), config.sales.horizon)
    target = data.train.target - bias[data.train.category][:, None]
    weight = 1.0 / (_OWN_SPREAD**2 + data.train.noise**2)  # inverse variance: loud windows say less
    weight /= weight.mean()
    optimizer = make_optimizer(training.optimizer, training.learning_rate or LEARNING_RATES[training.optimizer])
    order = np.random.default_rng(np.frombuffer(hashlib.sha256(seed).digest(), dtype=np.uint32))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(order.integers(2**62)))  # dropout
            model.train()
            for _ in range(training.local_steps):
                rows = order.integers(len(data.train), size=min(BATCH, len(data.train)))
                _gradient(model, flat, data.train, (target, weight), rows)
                if training.proximal:
                    flat.gradient.add_(flat.vector - anchor, alpha=training.proximal)
                optimizer.step(flat.vector, flat.gradient)
    finally:
        torch.set_num_threads(threads)
    return (flat.vector - anchor).numpy()


def _gradient(
    model: SalesModel,
    flat: FlatParameters,
    windows: SeriesWindows,
    wanted: tuple[NDArray[np.float32], NDArray[np.float32]],
    rows: NDArray[np.int64],
) -> None:
    """Of the weighted mean squared error; ``wanted`` = (target, weight)."""
    flat.gradient.zero_()
    predicted = model(torch.from_numpy(windows.window[rows]), torch.from_numpy(windows.ahead[rows]))
    wrong = functional.mse_loss(predicted, torch.from_numpy(wanted[0][rows]), reduction="none")
    loss = (wrong * torch.from_numpy(wanted[1][rows])[:, None]).mean()
    loss.backward()


def measure(
    model: SalesModel, data: SalesData, config: RunConfig, truth: Floats | None = None
) -> NDArray[np.float64]:
    """Accuracy sums over the last periods, in the order of ``SALES_SUMS``.

    The site's own part is fitted before the test. ``truth`` stands in for the series where it is to be compared with another.
    """
    horizon, season = config.sales.horizon, data.spec.season
    own = own_part(data.check, corrections(model, data.check), horizon)
    corrected = corrections(model, data.test)
    actual = data.series if truth is None else truth
    ahead = data.test.origins[:, None] + np.arange(1, horizon + 1)
    known = actual[..., ahead]
    errors = data.test.target - normalised(data.test, corrected, own)
    figures = {
        "error": forecasts(data.test, corrected, own),
        "mean_error": np.maximum(mean_of_four(data.series, data.test.origins, horizon, season), 0.0),
        "naive_error": np.maximum(seasonal_naive(data.series, data.test.origins, horizon, season), 0.0),
    }
    before = actual[..., : data.spec.periods - config.sales.test]
    scale = np.abs(before[..., season:] - before[..., :-season]).mean(axis=-1)
    return accuracy_sums(known, figures, scale, float(np.minimum(errors**2, ERROR_BOUND).mean()))


def flat_model(config: RunConfig) -> tuple[SalesModel, FlatParameters]:
    """The initial model of a run, tied to one flat vector."""
    model = build_sales_model(config.model, config.sales.horizon, config.seed)
    return model, FlatParameters(model)
