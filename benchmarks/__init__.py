"""One file per claim; each measures ratios in one process and prints JSON lines."""
