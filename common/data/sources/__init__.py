"""Events from where they live: databases, and files through SQL. Nothing here writes to a source or downloads anything.

A ``Source`` yields frames of columns; the rules that turn columns into events are those of every other reading.
The libraries (ADBC drivers, DuckDB, pyarrow) are the extras ``sql`` and ``files`` and are imported when a source is opened.
"""
