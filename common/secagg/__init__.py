"""Secure aggregation as two state machines without I/O. numpy and ``common.trust`` only."""
