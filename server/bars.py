"""Bars of released figures: what the public noise of the sums makes of a mean, at 95 %. They say nothing of who is held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.run import RoundRecord, RunFolder, RunPlan

Z = 1.96
LABEL = "released ± 95 %"


@dataclass(frozen=True)
class Bars:
    """The bars of one run; without its plan, or without noise, there are none."""

    plan: RunPlan | None = None

    @staticmethod
    def of(folder: RunFolder) -> Bars:
        """Of a run as it lies on disk; a damaged plan gives no bars, its readers say what is wrong."""
        from common.errors import FedcartError

        try:
            return Bars(folder.plan())
        except FedcartError:
            return Bars()

    def at(self, record: RoundRecord, metric: str) -> float:
        """Half the width of a released figure's bar, in its own unit; nan where it has none or it is not known.

        A mean over held-out consumers has one; the area under a curve and sums that are free of charge have none.
        """
        from server.best import has_bar, noise_bar

        if self.plan is None or metric not in record.released or not has_bar(self.plan, metric):
            return math.nan
        bar = Z * noise_bar(self.plan, record, metric)
        return bar if bar > 0 else math.nan

    def cell(self, record: RoundRecord, metric: str) -> str:
        """A released figure with its bar; ``± ?`` where the noise hides how many consumers it is of."""
        value, bar = record.released.get(metric), self.at(record, metric)
        if value is None or math.isnan(bar):
            return _number(value)
        return f"{_number(value)} ± {_number(bar) if math.isfinite(bar) else '?'}"

    def width(self, records: Sequence[RoundRecord], metric: str) -> float:
        """Half the width of the last released figure's bar; nan where it has none."""
        told = [record for record in records if metric in record.released]
        return self.at(told[-1], metric) if told else math.nan

    def latest(self, records: Sequence[RoundRecord], metric: str) -> str:
        """The last released figure of a metric with its bar; a dash where there is none."""
        told = [record for record in records if metric in record.released]
        return self.cell(told[-1], metric) if told else "–"

    def any_in(self, record: RoundRecord) -> bool:
        """Whether some released figure of a record has a bar."""
        return any(not math.isnan(self.at(record, metric)) for metric in record.released)


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
