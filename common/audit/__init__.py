"""Audit: read what a federation recorded, verify it, and state what was released and what it cost."""
