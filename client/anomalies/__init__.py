"""Anomalous behaviour at a site: likelihood, windows, detectors, thresholds, and what a person said about alarms."""
