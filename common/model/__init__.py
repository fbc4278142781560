"""The shared sequence model: network, heads, batches, parameters, metrics, baselines."""
