"""Names of the heads, which settings and models share."""

from __future__ import annotations

from collections.abc import Mapping

STEP_HEADS: Mapping[str, str] = {"next-item": "item", "next-event": "event", "next-category": "category"}
"""Heads that answer at every step -> the feature of the next event they predict."""

INTENT = "purchase-intent"

ROW_HEADS: dict[str, int] = {INTENT: 1}
"""Heads that answer once for a whole row -> number of classes; 1: the logit of a yes. A task brings its own."""
