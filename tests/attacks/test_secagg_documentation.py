"""The page that explains the protocol names real functions and tests, and its example runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "secure-aggregation.md").read_text()


def test_the_example_prints_what_the_page_says() -> None:
    code, printed = re.search(r"```python\n(.*?)```\n```\n(.*?)```", PAGE, re.DOTALL).groups()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/secure-aggregation.md", "exec"), {})
    assert out.getvalue() == printed


def test_every_test_named_in_the_threat_table_exists() -> None:
    tests = "\n".join(path.read_text() + path.name for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+|TestAdversarialServer)`", PAGE)
    assert len(named) > 10
    assert [name for name in named if name not in tests] == []


def test_every_function_named_in_the_table_exists() -> None:
    files = [*(ROOT / "common").rglob("*.py"), *(ROOT / "client/guard").glob("*.py")]
    defined = set(
        re.findall(r"(?:def|class) (\w+)\b|^ +(\w+):", "\n".join(p.read_text() for p in files), re.MULTILINE)
    )
    known = {name for pair in defined for name in pair} | {"py", "md", "evidence"}
    named = {name for _, name in re.findall(r"`(?:\w+\.)*?(\w+)\.(\w+)`", PAGE)}
    assert len(named) > 25
    assert sorted(named - known) == []
