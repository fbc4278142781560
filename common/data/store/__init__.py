"""Logs larger than memory: lines spilled to disk by ranges of pseudonyms, and encoded rows in one memory-mapped file.

A pseudonym is a keyed hash, so ranges of it are of equal size, and whoever a line is about lies in one of them whole. What
``settle`` does with a consumer depends on that consumer's lines only: a log that is settled range by range is the same,
bit for bit, as one that is settled in memory.
"""
