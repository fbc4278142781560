"""Planted bugs: one patch each, what must catch it, and how to apply it to a run of pytest."""
