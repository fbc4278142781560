"""Coordinates a federation; never sees a single contribution."""
