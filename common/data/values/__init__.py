"""Values by rule: what a text, a number or a time of a foreign file means. Each value is read alone, never by its neighbours.

The same rules read files, databases and live streams.
"""
