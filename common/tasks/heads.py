"""Names of the heads, which settings and models share."""

from __future__ import annotations

from collections.abc import Mapping

STEP_HEADS: Mapping[str, str] = {"next-item": "item", "next-event": "event", "next-category": "category"}
"""Heads that answer at every step -> the feature of the next event they predict."""

INTENT = "purchase-intent"

SALES = "sales"

ROW_HEADS = (INTENT, SALES)
"""Heads that answer once for a whole row: a probability, a number."""
