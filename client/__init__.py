"""Runs where the data is: training, the guard over what may leave, and local use of the shared model."""
