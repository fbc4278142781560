"""A paper as data: sections of items and tables, each with what it was taken from. How it looks is decided elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LEDGER, RECORD, PLAN = "ledger", "record", "plan"
GAP, HUMAN = "gap", "human"
"""Who an item is of: of nobody yet, of a person. Of the record or the program: empty."""


@dataclass(frozen=True)
class Reference:
    """Where a figure is from: entry ``number`` of a site's ledger, the record of round ``number``, or the plan of a run.

    ``digest``: the entry's hash, the record's digest, the plan's digest, hex. ``file``: where that lies in ``run``, which is
    the name of what was given.
    """

    kind: str
    run: str
    file: str
    number: int
    digest: str
    site: str = ""

    def __str__(self) -> str:
        if self.kind == LEDGER:
            return f"entry {self.number} of the ledger of {self.site}"
        return f"record of round {self.number}" if self.kind == RECORD else "plan of the run"


@dataclass(frozen=True)
class Item:
    """One line of a paper. ``kind``: released, public or oracle where it is a number of a federation; ``of``: who says it.

    ``key``: the question that it answers, or that nobody has answered.
    """

    label: str
    words: str
    references: tuple[Reference, ...] = ()
    kind: str = ""
    of: str = ""
    key: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, and what each row is taken from; all numbers of a table are of one ``kind``."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Reference, ...]], ...]
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """One heading: a sentence on what is asked, then items, then tables."""

    title: str
    about: str = ""
    items: tuple[Item, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Paper:
    """``name``: of its files; ``marks``: what nobody may overlook, as (headline, words); ``asks``: a person for what is missing."""

    name: str
    title: str
    subject: str
    lede: str
    marks: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    asks: bool = True

    @property
    def items(self) -> Iterator[Item]:
        """All items, in order."""
        return (item for section in self.sections for item in section.items)

    @property
    def gaps(self) -> tuple[Item, ...]:
        """What a person must still fill, each question once."""
        return tuple({item.key: item for item in self.items if item.of == GAP}.values())

    @property
    def answered(self) -> tuple[Item, ...]:
        """What a person has said, each answer once."""
        return tuple({item.key: item for item in self.items if item.of == HUMAN}.values())

    def numbered(self) -> dict[Reference, int]:
        """Every reference with its number, in the order in which it is first met."""
        met = [reference for section in self.sections for reference in _references(section)]
        return {reference: number for number, reference in enumerate(dict.fromkeys(met), start=1)}


def _references(section: Section) -> Iterator[Reference]:
    for item in section.items:
        yield from item.references
    for table in section.tables:
        for _, references in table.rows:
            yield from references
