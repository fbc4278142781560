"""The table of who catches what, in docs/audit.md: ``python -m tests.planted.table docs/audit.md`` renews it."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.planted.bugs import BUGS

BEGIN, END = "<!-- planted bugs -->\n", "<!-- end of planted bugs -->\n"


def with_table(text: str) -> str:
    """A document with the table between its two marks as the bugs have it."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    rows = "".join(f"| {name} | `{bug.test}` | {bug.check or '–'} |\n" for name, bug in BUGS.items())
    return f"{head}{BEGIN}| bug | test that goes red | group of the self-test |\n|---|---|---|\n{rows}{END}{tail}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text()))
