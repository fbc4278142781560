"""Pure functions from a run folder to self-contained HTML."""
