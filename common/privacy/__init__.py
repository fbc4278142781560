"""Mechanism events, accounting, ledger entries and the privacy statement. No torch, flwr or opacus."""
