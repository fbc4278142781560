"""How good is the forecast of single items, and do reorder points hold as often as asked: generated and real logs.

    python -m benchmarks.stock [--smoke] [--only PART]

One JSON line per log and forecaster: WAPE, MASE and bias of an item's pieces in the lead time, over rolling forecasts of the
later half of the log; then one line per service level with the share of lead times that held. The category forecasts come from a
sales model trained without noise on the log's sites for a few rounds (a benchmark's *oracle*). Real logs are read where
``FEDCART_DATA_DIR`` points. One seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.sales import tasks as sales_tasks
from client.scoring.forecast import open_sales_model
from client.scoring.stock import StockQuestion, plan_stock
from common.data import EventLog, load_events
from common.run import RunConfig, build_config
from common.strict_json import finite
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate

LEVELS = (0.8, 0.9, 0.95, 0.99)
DAYS = 14


def main(*, smoke: bool, only: str = "") -> None:
    """Print all figures."""
    for row in rows(smoke=smoke, only=only):
        print(json.dumps(finite(row), allow_nan=False), flush=True)


def rows(*, smoke: bool, only: str = "") -> Iterator[dict[str, Any]]:
    """One row per log and forecaster, then one per log and service level."""
    for name, tree in tasks(smoke=smoke).items():
        if only in name:
            yield from _measured(name, tree)


def tasks(*, smoke: bool) -> Mapping[str, dict[str, Any]]:
    """Settings of the run behind each log."""
    few = {"training": {"rounds": 1 if smoke else 4, "local_steps": 2 if smoke else 30}}
    plain = {"privacy": {"enabled": False}, "aggregation": {"mode": "plain"}, "performance": {"workers": 1}}
    return {
        name.removeprefix("sales, "): {**tree, **few, **plain} for name, tree in sales_tasks(smoke=smoke).items()
    }


def _measured(name: str, tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    config = build_config(tree)
    with tempfile.TemporaryDirectory(prefix="fedcart-stock-") as passing:
        simulate(config, Path(passing) / "run")
        shared, log = open_sales_model(Path(passing) / "run"), _log(config)
        found = plan_stock(shared, log, StockQuestion(DAYS, 7))
        known = {"log": name, "items": len(found.sales.items), "origins": found.origins}
        for who, figures in found.accuracy.items():
            yield {**known, "forecast": who, **{key: round(value, 3) for key, value in figures.items()}}
        yield {**known, "smoothing": found.smoothing, "trust": round(float(found.trust.mean()), 2)}
        for level in LEVELS:
            held = plan_stock(shared, log, StockQuestion(DAYS, 7, level)).achieved
            yield {**known, "service_level": level, "held": round(held, 3)}


def _log(config: RunConfig) -> EventLog:
    data = config.data
    if data.events:
        return load_events(Path(data.events), data.format, secret=bytes(32))[0]
    spec = SyntheticSpec(
        sites=data.sites, consumers=data.consumers, items=data.items, days=data.days,
        events_per_consumer=data.events_per_consumer,
    )  # fmt: skip
    return generate(spec, config.seed).log


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", default="", help="part of a log's name")
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, only=arguments.only)
