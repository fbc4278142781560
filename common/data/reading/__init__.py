"""From anything a user names to batches of columns: files, text, JSON and typed tables; every line counted."""

from common.data.reading.files import is_blank, members, readable
from common.data.reading.source import EventFiles, choose_mapping, first_line, open_files, scan
from common.data.reading.tables import Table, table_of
from common.data.reading.text import LINE, Lines

__all__ = [
    "LINE",
    "EventFiles",
    "Lines",
    "Table",
    "choose_mapping",
    "first_line",
    "is_blank",
    "members",
    "open_files",
    "readable",
    "scan",
    "table_of",
]
