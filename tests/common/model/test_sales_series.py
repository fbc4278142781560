"""Sales series: public shape, calendar, and the trivial forecasts by hand."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from common.errors import ConfigError
from common.model.sales_network import (
    OwnPart,
    build_sales_model,
    corrections,
    forecasts,
    make_windows,
    own_part,
)
from common.run import RunConfig, build_config
from common.tasks.sales_accuracy import SALES_SUMS, accuracy_sums, sales_figures, trivial_figures
from common.tasks.sales_series import SalesSpec, calendar, deviations, mean_of_four, seasonal_naive, trend


def config_of(**sales: object) -> RunConfig:
    usual = {"start": "2024-01-01", "periods": 120, "window": 14, "test": 14, "categories": ["a", "b"]}
    return build_config({"task": "sales", "model": {"hidden": 6}, "sales": usual | sales})


def test_trivial_forecasts_are_those_of_the_same_weekday() -> None:
    series = np.arange(70.0)
    origins = np.array([40])
    assert seasonal_naive(series, origins, 9, 7)[0].tolist() == [34, 35, 36, 37, 38, 39, 40, 34, 35]
    assert mean_of_four(series, origins, 2, 7)[0].tolist() == [(34 + 27 + 20 + 13) / 4, (35 + 28 + 21 + 14) / 4]
    assert mean_of_four(series, origins, 3, 1)[0].tolist() == [(40 + 39 + 38 + 37) / 4] * 3  # weeks


def test_no_trivial_forecast_reads_what_lies_after_its_origin() -> None:
    series = np.random.default_rng(1).random((2, 3, 90))
    later = series.copy()
    later[..., 61:] = 1e9
    for function in (seasonal_naive, mean_of_four):
        assert np.array_equal(function(series, np.array([60]), 20, 7), function(later, np.array([60]), 20, 7))


def test_deviations_are_from_the_four_same_weekdays_before() -> None:
    series = np.zeros(60)
    series[[28, 35]] = 8.0
    found = deviations(series, 7)
    assert found[28] == 8.0
    assert found[35] == 6.0
    assert found[42] == -4.0
    assert not found[:28].any()


def test_trend_compares_the_last_four_weeks_with_the_four_before() -> None:
    series = np.concatenate([np.full(28, 2.0), np.full(28, 3.0)])
    assert trend(series, 7) == pytest.approx(0.5)
    assert trend(np.zeros(56), 7) == 0.0
    assert np.isnan(trend(series[:50], 7))


def test_the_calendar_follows_the_dates_and_the_public_holidays() -> None:
    spec = SalesSpec.of(config_of(holidays=["2024-01-03"]))
    rows = calendar(spec, 0, 8)
    assert rows[:, :7].argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5, 6, 0]  # 2024-01-01 was a Monday
    assert rows[:, 17].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert not rows[:, 7:11].any()  # months are not learnt from a third of a year
    long = calendar(SalesSpec.of(config_of(periods=800)), 0, 200)
    assert long[:, 13:17].sum(axis=1).tolist() == [1.0] * 200
    assert long[91, 14] == 1.0  # 1 April: second quarter


def test_weeks_begin_on_mondays_and_share_their_holidays() -> None:
    spec = SalesSpec.of(config_of(granularity="week", window=4, horizon=3, test=4, holidays=["2024-01-02"]))
    assert spec.first_day(2) == date(2024, 1, 15)
    rows = calendar(spec, 0, 2)
    assert not rows[:, :7].any()
    assert rows[0, 17] == pytest.approx(1 / 7)
    with pytest.raises(ConfigError, match="not a Monday"):
        config_of(granularity="week", start="2024-01-02")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start": ""}, "not set"),
        ({"periods": 0}, "not set"),
        ({"periods": 60}, "too short"),
        ({"test": 7, "horizon": 7}, "leaves no forecast of 7"),
        ({"test": 3, "horizon": 14}, "leaves no forecast of 14"),
        ({"periods": 20_000, "categories": [f"c{i}" for i in range(60)]}, "more than"),
    ],
)
def test_what_no_series_can_be_made_of_is_said_before_the_work(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SalesSpec.of(config_of(**settings))


@pytest.mark.parametrize(
    "sales", [{"start": "soon"}, {"holidays": ["x"]}, {"categories": ["a", "a"]}, {"quantity_bound": 0}]
)
def test_impossible_settings_are_refused(sales: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        config_of(**sales)


def test_accuracy_has_known_answers() -> None:
    truth = np.array([[[[4.0, 6.0]]], [[[40.0, 60.0]]]])  # 2 channels, 1 category, 1 origin, 2 steps
    found = {
        "error": truth + np.array([1.0, -3.0]),
        "mean_error": truth + 2.0,
        "naive_error": np.zeros_like(truth),
    }
    sums = accuracy_sums(truth, found, np.array([[4.0], [40.0]]), loss=0.25)
    assert len(sums) == len(SALES_SUMS)
    figures = sales_figures(sums, quantity_bound=10.0)
    assert figures["wape"] == pytest.approx(4 / 10)
    assert figures["revenue_wape"] == pytest.approx(4 / 100)
    assert figures["mase"] == pytest.approx(2 / 4)
    assert figures["rmse"] == pytest.approx(10 * np.sqrt(5))
    assert figures["loss"] == 0.25
    trivial = trivial_figures(sums)
    assert trivial["mean-of-four"]["wape"] == pytest.approx(4 / 10)
    assert trivial["seasonal-naive"]["wape"] == 1.0
    two = sales_figures(sums + sums, quantity_bound=10.0)
    assert two == pytest.approx(figures)  # sums over sites of equal size change nothing
    assert np.isnan(sales_figures(np.zeros(len(SALES_SUMS)))["wape"])


def _windows(origins: list[int], periods: int = 120) -> tuple[np.ndarray, object, RunConfig]:
    config = config_of(periods=periods)
    series = np.random.default_rng(2).gamma(4.0, size=(2, 2, periods))
    return series, make_windows(series, SalesSpec.of(config), config, np.array(origins)), config


def test_the_untrained_model_forecasts_the_mean_of_four() -> None:
    series, windows, config = _windows([60, 80, 100])
    model = build_sales_model(config.model, config.sales.horizon, seed=1)
    corrected = corrections(model, windows)
    assert not corrected.any()
    own = own_part(windows, corrected, config.sales.horizon)
    assert not own.trust.any()
    own.bias[:] = 0.0
    expected = mean_of_four(series, windows.origins, config.sales.horizon, 7)
    assert np.allclose(forecasts(windows, corrected, own), expected)


def test_windows_read_nothing_that_lies_after_their_origin() -> None:
    config = config_of()
    series = np.random.default_rng(3).gamma(4.0, size=(2, 2, 120))
    later = series.copy()
    later[..., 81:] = 7e5
    pair = [make_windows(s, SalesSpec.of(config), config, np.array([80])) for s in (series, later)]
    for name in ("window", "ahead", "mean", "level"):
        assert np.array_equal(getattr(pair[0], name), getattr(pair[1], name)), name


def test_a_site_takes_back_a_correction_that_does_not_help_it() -> None:
    _, windows, config = _windows(list(range(50, 100)))
    assert own_part(windows, windows.target, config.sales.horizon).trust == pytest.approx([1.0, 1.0])
    assert own_part(windows, -windows.target, config.sales.horizon).trust.tolist() == [0.0, 0.0]


def test_a_correction_that_helps_one_half_of_the_past_only_is_not_used() -> None:
    """What fits the windows that it is fitted on is no evidence: the other half must gain too."""
    _, windows, config = _windows(list(range(50, 100)))
    rng = np.random.default_rng(4)
    lucky = rng.normal(size=windows.target.shape).astype(np.float32)
    own = own_part(windows, lucky, config.sales.horizon)
    assert not own.trust.any()
    assert not own.bias.any()


def test_with_one_forecast_to_judge_by_a_site_keeps_to_the_mean_of_four() -> None:
    _, windows, config = _windows([60])
    own = own_part(windows, windows.target, config.sales.horizon)
    assert not own.trust.any()


def test_no_forecast_is_negative() -> None:
    _, windows, _ = _windows([60])
    corrected = np.full_like(windows.target, -50.0)
    own = OwnPart(np.ones(2, dtype=np.float32), np.zeros((2, 2), dtype=np.float32))
    assert forecasts(windows, corrected, own).min() == 0.0
