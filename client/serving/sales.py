"""Forecasts of a site's own sales, made once at the start from the log of what was sold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client.scoring.forecast import forecast, forecast_table, open_sales_model, own_series
from client.serving.service import NotAnsweredError
from common.data import EventLog
from common.strict_json import finite


class SalesForecasts:
    """Answers by category, until the service is started anew with a longer log."""

    def __init__(self, model: Path, log: EventLog) -> None:
        shared = open_sales_model(model)
        series, spec = own_series(shared, log)
        self._found = forecast(shared, series, spec)
        self._until = spec.first_day(spec.periods).isoformat()

    def __call__(self, category: str) -> dict[str, Any]:
        """The coming periods of one category, or of all. Raises: NotAnsweredError for one that is not known."""
        if category and category not in self._found.categories:
            raise NotAnsweredError(
                "the sales model knows no such category", hint=f"one of: {', '.join(self._found.categories[:20])}"
            )
        table = forecast_table(self._found, category)
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        return {"until": self._until, "rows": finite(rows)}
