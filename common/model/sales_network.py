"""``SalesModel``: a recurrent network that corrects the seasonal mean of sales series, and starts as that mean.

All windows of all categories of a site share the parameters; what is particular to a site is a bias that each
site computes for itself and keeps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.errors import BadInputError
from common.run import ModelSettings, RunConfig
from common.tasks.sales_series import (
    CALENDAR_FEATURES,
    CHANNELS,
    SEASONS,
    Floats,
    SalesSpec,
    calendar,
    deviations,
    mean_of_four,
    shortest,
)

LIMIT = 5.0  # normalised deviations beyond this count as this
SMALLEST_LEVEL = 1e-3  # of a bound: below it a level is noise
_ENCODERS: Mapping[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
_CHUNK = 2_048
CLEAR = 0.5  # standard errors by which a correction must help before a site uses it
_PRIOR = 4.0  # windows without overlap that a site's own bias needs to count half


class SalesModel(nn.Module):
    """Encoder over the deviations of the window, decoder per step ahead with the calendar of the day it is about.

    Guarantee: with the initial parameters every output is exactly 0: the forecast is the seasonal mean.
    """

    def __init__(self, settings: ModelSettings, horizon: int) -> None:
        super().__init__()
        inputs, hidden = 2 * len(CHANNELS) + CALENDAR_FEATURES, settings.hidden
        dropout = settings.dropout if settings.layers > 1 else 0.0
        self.encoder = _ENCODERS[settings.encoder](
            inputs, hidden, settings.layers, batch_first=True, dropout=dropout
        )
        self.step = nn.Embedding(horizon, hidden)
        self.decoder = nn.Linear(hidden + len(CHANNELS) + CALENDAR_FEATURES, hidden)
        self.output = nn.Linear(hidden, len(CHANNELS))

    def forward(self, window: Tensor, ahead: Tensor) -> Tensor:
        """Normalised corrections of the seasonal mean.

        Shapes: ``window: [B, L, inputs]``, ``ahead: [B, horizon, inputs]`` -> ``[B, horizon, channels]``.
        """
        states = self.encoder(window)[0][:, -1]  # [B, hidden]
        steps = states[:, None] + self.step.weight[None]  # [B, horizon, hidden]
        joined = torch.tanh(self.decoder(torch.cat([steps, ahead], dim=2)))
        corrected: Tensor = self.output(joined)
        return corrected


def build_sales_model(settings: ModelSettings, horizon: int, seed: int) -> SalesModel:
    """Make a model whose parameters follow from the arguments only; the output layer is zero."""
    with torch.random.fork_rng(devices=[]):
        model = SalesModel(settings, horizon)
    scale = settings.hidden**-0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            digest = hashlib.sha256(f"fedcart/initialise-sales/1\0{seed}\0{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            if name.startswith("output") or name == "decoder.bias":
                parameter.zero_()
            else:
                parameter.uniform_(-scale, scale, generator=generator)
    return model


@dataclass(frozen=True)
class SeriesWindows:
    """Series as the model sees them: one example per category and origin.

    Shapes: ``window: float32[B, L, inputs]``, ``ahead: float32[B, horizon, seasonal mean and calendar]``; ``target: float32[B,
    horizon, channels]`` normalised deviations from ``mean``; ``mean: float64[B, horizon, channels]`` the seasonal
    mean; ``level: float64[B, channels]`` what 1 means; ``noise`` likewise, of a released period in these units; ``category: int64[B]``, origins fastest.
    """

    window: NDArray[np.float32]
    ahead: NDArray[np.float32]
    target: NDArray[np.float32]
    mean: Floats
    level: Floats
    noise: NDArray[np.float32]
    category: NDArray[np.int64]
    origins: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.category)

    def rows_at(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Examples of some origins: ``bool[origins] -> bool[B]``."""
        return np.tile(chosen, len(self) // max(len(self.origins), 1))

    def at(self, chosen: NDArray[np.bool_]) -> SeriesWindows:
        """The examples of some origins."""
        rows = self.rows_at(chosen)
        parts = ("window", "ahead", "target", "mean", "level", "noise", "category")
        return replace(self, origins=self.origins[chosen], **{name: getattr(self, name)[rows] for name in parts})

    def unfold(self, flat: Floats) -> Floats:
        """``[B, horizon, channels]`` -> ``[channels, categories, origins, horizon]``."""
        categories = len(self) // max(len(self.origins), 1)
        shape = (categories, len(self.origins), flat.shape[1], flat.shape[2])
        return np.moveaxis(flat.reshape(shape), 3, 0)


def first_origin(window: int, season: int) -> int:
    """The first period from which a forecast can be made: a window whose deviations are known lies before it."""
    return window + SEASONS * season - 1


def make_windows(
    series: Floats, spec: SalesSpec, config: RunConfig, origins: NDArray[np.int64], noise: Floats | None = None
) -> SeriesWindows:
    """Examples of a site's series at some origins; targets beyond the series are 0.

    ``series: float64[channels, categories, T]`` in units of the bounds; T may differ from the spec's.
    ``noise: float64[categories]`` is the standard deviation of a released period, and the least level.
    Raises: BadInputError for a series that is too short for the first origin.
    """
    sales, season = config.sales, spec.season
    if not len(origins) or origins.min() < first_origin(sales.window, season):
        needed = shortest(spec.granularity, sales.window, sales.horizon)
        raise BadInputError(
            f"{series.shape[-1]} {spec.granularity}s of sales are too few: the model needs {needed}",
            hint="give a longer log",
        )
    past = origins[:, None] + np.arange(1 - sales.window, 1)  # [origins, L]
    loud = np.zeros(series.shape[1]) if noise is None else noise
    least = np.maximum(loud, SMALLEST_LEVEL)[:, None]
    level = np.maximum(np.abs(series[..., past]).mean(axis=-1), least)  # [ch, cat, origins]
    mean = mean_of_four(series, origins, sales.horizon, season)  # [ch, cat, origins, h]

    def scaled(values: Floats) -> Floats:
        return np.asarray(np.clip(values / level[..., None], -LIMIT, LIMIT))

    ahead = origins[:, None] + np.arange(1, sales.horizon + 1)
    known = ahead < series.shape[-1]
    later = np.where(known, series[..., np.minimum(ahead, series.shape[-1] - 1)], mean)
    features = calendar(spec, 0, int(ahead.max()) + 1)
    seen = np.concatenate([scaled(deviations(series, season)[..., past]), scaled(series[..., past]) - 1.0])
    return SeriesWindows(
        window=_with_calendar(seen, features[past]),
        ahead=_with_calendar(scaled(mean) - 1.0, features[ahead]),
        target=_by_example(scaled(later - mean)).astype(np.float32),
        mean=_by_example(mean),
        level=np.moveaxis(level, 0, -1).reshape(-1, len(CHANNELS)),
        noise=np.moveaxis(loud[:, None] / level, 0, -1).reshape(-1, len(CHANNELS)).astype(np.float32),
        category=np.repeat(np.arange(series.shape[1]), len(origins)),
        origins=origins,
    )


def _with_calendar(values: Floats, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[F, categories, origins, n], [origins, n, features] -> [categories * origins, n, F + features]``."""
    flat = _by_example(values).astype(np.float32)
    return np.concatenate([flat, np.tile(features, (values.shape[1], 1, 1))], axis=-1)


def _by_example(values: Floats) -> Floats:
    """``[channels, categories, origins, horizon]`` -> ``[categories * origins, horizon, channels]``."""
    moved = np.moveaxis(values, 0, -1)
    return np.asarray(moved.reshape(-1, *moved.shape[2:]))


def corrections(model: SalesModel, windows: SeriesWindows) -> NDArray[np.float32]:
    """The model's normalised corrections of all windows: ``float32[B, horizon, channels]``."""
    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(windows), _CHUNK):
            some = slice(start, start + _CHUNK)
            parts.append(
                model(torch.from_numpy(windows.window[some]), torch.from_numpy(windows.ahead[some])).numpy()
            )
    return np.concatenate(parts)


@dataclass(frozen=True)
class OwnPart:
    """What a site adds for itself and keeps: how far it trusts the shared correction, and its own mean error.

    Shapes: ``trust: float32[channels]`` in [0, 1]; ``bias: float32[categories, channels]``, normalised.
    """

    trust: NDArray[np.float32]
    bias: NDArray[np.float32]


def own_bias(windows: SeriesWindows, corrected: NDArray[np.float32], horizon: int) -> NDArray[np.float32]:
    """The mean error of each category and channel, drawn towards 0: ``float32[categories, channels]``."""
    errors = (windows.target - corrected).mean(axis=1)  # [B, channels]
    origins = len(windows.origins)
    per_series = errors.reshape(-1, origins, errors.shape[1]).mean(axis=1)
    apart = origins / horizon
    return np.asarray(per_series * (apart / (apart + _PRIOR)), dtype=np.float32)


def own_part(windows: SeriesWindows, corrected: NDArray[np.float32], horizon: int) -> OwnPart:
    """Fit a site's own part on windows that the shared model has not learnt from.

    Where the shared correction did not help here, it is taken back: trust is the least-squares factor, at most 1. Where the
    whole correction, fitted on some of the windows, is not clearly better on the others than the mean of four, there is none.
    """
    whole = _fitted_part(windows, corrected, horizon)
    if _clearly_helps(windows, corrected, horizon):
        return whole
    return OwnPart(np.zeros_like(whole.trust), np.zeros_like(whole.bias))


def _fitted_part(windows: SeriesWindows, corrected: NDArray[np.float32], horizon: int) -> OwnPart:
    weight = windows.level[:, None] ** 2  # errors in pieces, not in shares: large categories decide
    product = (weight * windows.target * corrected).sum(axis=(0, 1))
    power = (weight * corrected.astype(np.float64) ** 2).sum(axis=(0, 1))
    trust = np.clip(np.divide(product, power, out=np.zeros_like(power), where=power > 0), 0, 1).astype(np.float32)
    return OwnPart(trust, own_bias(windows, corrected * trust, horizon))


def _clearly_helps(windows: SeriesWindows, corrected: NDArray[np.float32], horizon: int) -> bool:
    """Whether each half of the origins, corrected as the other half says, has less error of quantity by more than its spread.

    Forecasts of neighbouring origins are about the same periods: only so many count as the horizon lets stand apart.
    """
    origins = len(windows.origins)
    half = np.arange(origins) >= origins // 2
    if origins < 2:
        return False
    gains = np.zeros(origins)
    for judged in (half, ~half):
        learnt, asked = windows.at(~judged), windows.at(judged)
        own = _fitted_part(learnt, corrected[windows.rows_at(~judged)], horizon)
        quantity = asked.level[:, :1]
        plain = np.abs(asked.target[..., 0]) * quantity
        whole = (
            np.abs(asked.target - normalised(asked, corrected[windows.rows_at(judged)], own))[..., 0] * quantity
        )
        gains[judged] = (plain - whole).sum(axis=1).reshape(-1, int(judged.sum())).sum(axis=0)
    apart = max(origins / horizon, 1.0)
    return bool(gains.mean() > CLEAR * gains.std() / math.sqrt(apart))


def forecasts(windows: SeriesWindows, corrected: NDArray[np.float32], own: OwnPart) -> Floats:
    """Forecasts in units of the bounds, never negative: ``float64[channels, categories, origins, horizon]``."""
    values = windows.mean + normalised(windows, corrected, own) * windows.level[:, None]
    return windows.unfold(np.maximum(values, 0.0))


def normalised(windows: SeriesWindows, corrected: NDArray[np.float32], own: OwnPart) -> NDArray[np.float32]:
    """The whole correction of the seasonal mean: ``float32[B, horizon, channels]``."""
    return np.asarray(corrected * own.trust + own.bias[windows.category][:, None], dtype=np.float32)
