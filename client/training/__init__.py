"""Local training and evaluation: the answers to a Query that touch raw data."""
