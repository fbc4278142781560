"""Mechanism events, accounting, calibration, ledger entries and attestations. No torch, flwr or opacus."""
