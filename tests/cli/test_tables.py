"""Tables for people, in terminals of any width: nobody loses who a line is about, and no number a digit."""

import pytest

from cli import show

HEADS = ("item", "category", "sold", "last sale", "forecast", "80 %", "reorder at", "order")
ROWS = [
    (f"item-{n:04d}", f"category-{n % 7:02d}", f"{n:,}", "2024-06-22", "1.6", "0.5 to 1.6", "6", f"{1000 + n}")
    for n in range(5)
]


@pytest.fixture
def printed(monkeypatch, capsys):
    def at(width: int, *args, **kwargs) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        show.results.cache_clear()
        show.table(*args, **kwargs)
        return capsys.readouterr().out

    yield at
    show.results.cache_clear()


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_gets_every_cell_whole_with_its_item_beside_it(width, printed):
    text = printed(width, "demand", HEADS, ROWS, words=("category",))
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text and lines[0] == "demand" and text.count("demand") == 1
    for row in ROWS:
        own = [line.split() for line in lines if line.startswith(row[0])]
        assert all(word in [one for line in own for one in line] for cell in row for word in cell.split())
        assert sum(lines.count(line) for line in lines if line.startswith("item ")) == len(own)


def test_a_table_that_fits_stays_in_one(printed):
    lines = printed(120, "", HEADS, ROWS, words=("category",)).splitlines()
    assert len(lines) == 1 + len(ROWS)


def test_long_words_wrap_and_do_not_push_numbers_out(printed):
    rows = [("shop " * 9, "12,345.67", "because it is so " * 4), ("x" * 70, "1", "")]
    text = printed(60, "", ("site", "sold", "why"), rows, words=("why",))
    assert max(map(len, text.splitlines())) <= 60 and "12,345.67" in text
