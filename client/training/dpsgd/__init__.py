"""Exact per-consumer clipping, sampling and noise: the differentially private optimizer step."""
