"""Keeps a site's client running: the bundle check, the processes that answer, the restarts, the local log."""
