"""How public constants of the account are written: as they are. A format that rounds has shown a smaller one."""

from __future__ import annotations

import ast

import pytest

from common.privacy import show_exact
from tests.test_architecture import SOURCES, nodes

ACCOUNT = ("epsilon", "delta", "limit")
OTHERS = {
    ("common/privacy/noised_grid.py", "limit"),  # of a coordinate
    ("server/plausible.py", "limit"),  # of a sum
    ("cli/audit.py", "c.limit"),  # of a statistic of the self-test
    ("server/kit_files.py", "delta_for(population)"),  # a power of ten
}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (8.0, "8"),
        (1e-5, "1e-05"),
        (2.5, "2.5"),
        (1.2345644e-5, "1.2345644e-05"),
        (10.000004, "10.000004"),
        (3, "3"),
    ],
)
def test_a_constant_is_written_whole(number, words):
    assert show_exact(number) == words
    assert float(show_exact(number)) == number


def test_no_text_rounds_a_figure_of_the_account_to_significant_digits():
    found = [
        (name, ast.unparse(part))
        for name in SOURCES
        for part in nodes(name)
        if isinstance(part, ast.FormattedValue)
        and part.format_spec is not None
        and ast.unparse(part.format_spec).strip("f'\"").endswith(("g", "e"))
        and any(word in ast.unparse(part.value).lower() for word in ACCOUNT)
        and (name, ast.unparse(part.value)) not in OTHERS
    ]
    assert found == []
