"""A run's room: its files, its records, its summary, and who watches it."""
