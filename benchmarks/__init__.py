"""One file per claim. Each prints JSON lines; ratios come from one process run, alternating A B A B."""
