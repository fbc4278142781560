"""From anything a user names to batches of columns: files, text, JSON and typed tables; every line counted."""

from common.data.reading.files import is_blank, members, opened, readable
from common.data.reading.records import object_of
from common.data.reading.source import PLAIN, EventFiles, choose_mapping, first_line, open_files, scan
from common.data.reading.tables import Table, table_batches, table_of
from common.data.reading.text import LINE, Lines

__all__ = [
    "LINE",
    "PLAIN",
    "EventFiles",
    "Lines",
    "Table",
    "choose_mapping",
    "first_line",
    "is_blank",
    "members",
    "object_of",
    "open_files",
    "opened",
    "readable",
    "scan",
    "table_batches",
    "table_of",
]
