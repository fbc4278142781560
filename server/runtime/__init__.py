"""Runs the coordinator's side of a deployment: the SuperLink, the admitted sites, submitted runs."""
