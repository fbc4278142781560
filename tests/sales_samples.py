"""A sales model that has learnt nothing, and logs whose future is known."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from common.data.features import feature_spec
from common.model.parameters import FlatParameters, layout_of, save_model
from common.model.sales_network import build_sales_model
from common.run import RunPlan, build_config
from tests.guard_samples import COORDINATOR

START = datetime(2024, 1, 1)
DAYS = 112
WEEK = np.array([2, 3, 4, 5, 6, 9, 8])  # pieces of tea sold on each weekday


def write_model(folder: Path, *, task: str = "sales") -> None:
    """A released model that has learnt nothing: its forecast is the mean of the last four same weekdays."""
    sales = {"start": "2023-01-01", "periods": 100, "categories": ["tea", "cups"], "window": 14, "test": 14}
    config = build_config({"task": task, "model": {"hidden": 6}, "sales": sales})
    network = build_sales_model(config.model, config.sales.horizon, config.seed)
    layout = layout_of(network)
    features = feature_spec(None, item_buckets=4).canonical()
    plan = RunPlan("run-1", config.public_json(), (("a", 256),), features, layout.size, 1.0, 0.0)
    save_model(
        folder,
        FlatParameters(network).numpy(),
        layout,
        {"plan": json.loads(plan.to_json()), "sizes": {}},
        COORDINATOR,
    )


def lines(days: int = DAYS, category: str = "tea") -> list[tuple[str, str, str, str, str, float, int]]:
    return [
        (
            f"c{day}",
            str(START + timedelta(days=day, hours=10)),
            "purchase",
            "t1",
            category,
            2.5,
            int(WEEK[day % 7]),
        )
        for day in range(days)
    ]


def write_log(path: Path, rows: list[tuple[str, str, str, str, str, float, int]]) -> str:
    names = ["consumer", "timestamp", "event", "item", "category", "price", "quantity"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(path)
    return str(path)
