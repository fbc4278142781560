"""How good are sales forecasts: central, federated, private, alone, trivial; on generated and real logs.

    python -m benchmarks.sales [--smoke] [--only PART]

One JSON line per data set and scheme; all figures are *oracle*, on the last periods of the sites' exact series. Real logs are
read where ``FEDCART_DATA_DIR`` points. One seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks._schemes import trained_schemes
from common.strict_json import finite

SHOWN = ("wape", "revenue_wape", "mase", "rmse")
Settings = dict[str, Any]


def main(*, smoke: bool, only: str = "") -> None:
    """Print all figures."""
    for row in rows(smoke=smoke, only=only):
        print(json.dumps(finite(row), allow_nan=False), flush=True)


def rows(*, smoke: bool, only: str = "") -> Iterator[dict[str, Any]]:
    """One row per data set and scheme, with the figures that were measured."""
    for name, tree in tasks(smoke=smoke).items():
        if only in name:
            for scheme, metrics in trained_schemes(tree, {}).items():
                shown = {key: _rounded(metrics[key]) for key in SHOWN if key in metrics}
                yield {"task": name, "scheme": scheme, **shown}


def tasks(*, smoke: bool) -> Mapping[str, Settings]:
    """Settings of each data set."""
    training = {"rounds": 1, "local_steps": 2} if smoke else {"rounds": 8, "local_steps": 30}
    synthetic = {"sites": 4, "consumers": 24_000, "items": 200, "events_per_consumer": 40, "days": 365}
    if smoke:
        synthetic = {"sites": 3, "consumers": 300, "items": 60, "days": 120}
    common: Settings = {"task": "sales", "model": {"hidden": 16}, "training": training}
    bounds = {"quantity_bound": 5, "revenue_bound": 90}
    weeks = {"granularity": "week", "horizon": 4, "window": 12, "test": 8}
    found: dict[str, Settings] = {"sales, synthetic, days": {**common, "data": synthetic, "sales": bounds}}
    if smoke:
        return found
    found["sales, synthetic, weeks"] = {**common, "data": synthetic, "sales": bounds | weeks}
    for name, data, sales in _real():
        found[f"sales, {name}, days"] = {**common, "data": data, "sales": sales}
        found[f"sales, {name}, weeks"] = {**common, "data": data, "sales": sales | weeks}
    return found


def _real() -> list[tuple[str, Settings, Settings]]:
    folder = Path(os.environ.get("FEDCART_DATA_DIR", ""))
    if not (folder / "online_retail").is_dir():
        return []
    retail = {"events": str(folder / "online_retail" / "online_retail.csv.gz"), "format": "online-retail"}
    bounds = {"quantity_bound": 100, "revenue_bound": 200}
    found = [("Online Retail", {**retail, "split_by": "country"}, bounds)]
    for log in sorted((folder / "complete_journey").glob("*transactions*"))[:1]:
        journey = {"events": str(log), "format": "complete-journey", "split_by": "consumers", "sites": 4}
        one = {"categories": ["all"], "quantity_cap": 20, "quantity_bound": 5, "revenue_bound": 15}
        found.append(("Complete Journey", journey, one))
    return found


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", default="", help="part of a data set's name")
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, only=arguments.only)
    sys.exit(0)
