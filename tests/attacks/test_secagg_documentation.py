"""The page that explains the protocol names real functions and tests, and its example runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(?:\w+\.)*?(\w+)\.(\w+)`", PAGE))))
def test_every_function_named_in_the_table_exists(name: tuple[str, str]) -> None:
    sources = "\n".join(
        p.read_text() for p in [*(ROOT / "common").rglob("*.py"), *(ROOT / "client/guard").glob("*.py")]
    )
    assert re.search(rf"(def|class) {name[1]}\b|^ +{name[1]}:", sources, re.MULTILINE) or name[1] in (
        "py",
        "md",
        "evidence",
    )
