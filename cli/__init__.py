"""The front door: one file per command group, lazy imports."""
