"""The shared sequence model, its heads, parameters, metrics and trivial baselines."""
