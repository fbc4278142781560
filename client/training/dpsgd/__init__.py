"""Exact per-consumer clipping: the sum of a batch's clipped gradients. Sampling and noise are the trainer's."""
