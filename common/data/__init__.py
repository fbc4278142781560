"""Event logs, cleaning, public features, and one row per consumer."""
