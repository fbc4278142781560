"""The oracle's half of each task: what only a simulation knows, and what it fills in that a deployment declares."""
