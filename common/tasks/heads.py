"""Names of the heads, which settings and models share."""

from __future__ import annotations

STEP_HEADS: dict[str, str] = {"next-item": "item", "next-event": "event", "next-category": "category"}
"""Heads that answer at every step -> the feature of the next event they predict. An extension brings its own."""

INTENT = "purchase-intent"

ROW_HEADS: dict[str, int] = {INTENT: 1}
"""Heads that answer once for a whole row -> number of classes; 1: the logit of a yes. A task brings its own."""
