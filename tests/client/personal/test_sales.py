"""A site's choice between the shared correction and simple forecasts, by its own past."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from client.personal.file import PERSONAL_FILE, load_method, save_method
from client.personal.sales import personalize_sales
from client.personal.verdict import ALONE, PERSONAL, SHARED, clearly_better
from client.scoring.forecast import SharedSalesModel, forecast
from client.tasks.sales_training import SalesData, flat_model, train_sales
from common.errors import BadInputError
from common.model import first_origin
from common.model_files import is_personal
from common.run import build_config
from common.tasks.sales_accuracy import MEAN_OF_FOUR, MODEL, SEASONAL_NAIVE
from common.tasks.sales_series import SalesSpec

DAYS = 150


@pytest.fixture(scope="module")
def shop():
    """Sales that rise and fall with the week and a slow wave, and a model that has learnt them."""
    tree = {"task": "sales", "sales": {"start": "2024-01-01", "periods": DAYS, "window": 14, "test": 14, "categories": ["a", "b"]},
            "model": {"hidden": 8}, "training": {"rounds": 5, "local_steps": 40}}  # fmt: skip
    config = build_config(tree)
    rng, day = np.random.default_rng(0), np.arange(DAYS)
    base = np.stack([(30 + 12 * np.sin(2 * np.pi * day / 45) + 8 * (day % 7 > 4)) * k for k in (1.0, 0.5)])
    pieces = np.maximum(base + rng.normal(0, 1.0, base.shape), 0)
    series = np.stack([pieces, 2 * pieces]) / np.array(SalesSpec.of(config).bounds)[:, None, None]
    model, flat = flat_model(config)
    data, vector = SalesData.of(series, config), flat.numpy()
    for number in range(5):
        vector = vector + train_sales(flat, model, data, vector, config, str(number).encode())
    flat.load(vector)
    model.eval()
    return SharedSalesModel(model, config, SalesSpec.of(config), {}), series


def test_the_method_with_the_smaller_error_on_the_earlier_past_is_chosen_and_reported_on_the_later(shop):
    import torch

    import client.personal.sales as sales

    shared, series = shop
    method, verdict = personalize_sales(shared, series, shared.spec)
    known = np.arange(first_origin(14, 7), DAYS - 7)
    choose = known[known <= known[-14] - 7][-7:]
    scores = {
        m: sales._score(shared, series, shared.spec, m, choose) for m in (MODEL, MEAN_OF_FOUR, SEASONAL_NAIVE)
    }
    alone = max((MEAN_OF_FOUR, SEASONAL_NAIVE), key=lambda m: scores[m].mean())
    assert method == (MODEL if clearly_better(scores[MODEL], scores[alone]) else alone)
    later = -sales._score(shared, series, shared.spec, method, known[-14:])
    assert verdict.figures[PERSONAL].value == pytest.approx(later.mean())
    assert verdict.count == 14
    noise, _ = flat_model(shared.config)
    with torch.no_grad():
        for parameter in noise.parameters():
            parameter.normal_(0, 2.0, generator=torch.Generator().manual_seed(1))
    noise.eval()
    method, verdict = personalize_sales(replace(shared, model=noise), series, shared.spec)
    assert verdict.figures[SHARED].value > verdict.figures[ALONE].value
    assert verdict.figures[PERSONAL].value <= verdict.figures[ALONE].value * 1.05


def test_the_chosen_forecast_is_what_is_forecast(shop):
    shared, series = shop
    by_model = forecast(shared, series, shared.spec)
    by_naive = forecast(replace(shared, method=SEASONAL_NAIVE), series, shared.spec)
    unit = np.array(shared.spec.bounds)[:, None, None]
    assert np.allclose(by_naive.values[:, :2, :7], (series * unit)[:, :, -7:])
    assert not np.allclose(by_model.values, by_naive.values)
    assert by_model.accuracy[MODEL] == by_naive.accuracy[MODEL], "the model is shown as it is"


def test_the_choice_is_kept_in_a_marked_file(tmp_path):
    path = save_method(MEAN_OF_FOUR, "ab" * 32, {}, tmp_path / "home")
    assert (path.name, load_method(path)) == (PERSONAL_FILE, MEAN_OF_FOUR)
    assert is_personal(path.read_bytes())
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(BadInputError, match="not a usable personal model"):
        load_method(path)


def test_too_short_a_past_is_said(shop):
    shared, series = shop
    short = replace(shared.spec, periods=60, start=date(2024, 1, 1))
    with pytest.raises(BadInputError, match="too few"):
        personalize_sales(shared, series[..., :60], short)
