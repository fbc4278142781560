"""Papers as Markdown, and plain data as YAML: nothing that somebody else wrote can become a heading, a link, a tag or a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from common.audit.papers.paper import GAP, HUMAN, Item, Paper, Reference, Section, Table
from common.plain_text import shown

TO_FILL = "TO BE FILLED BY A PERSON"
STATED = "stated by a person, not by the record"
_ACTIVE = re.compile(
    r"[\\`*_{\[\]<>|~$&]|(?<=[\w.+-])@(?=[\w-]+\.\w)|:(?=//)|(?<=[Ww])\."
)  # the last three: addresses that become links by themselves
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def inert(text: str) -> str:
    """One line of Markdown that shows exactly this text."""
    line = " ".join(shown(text.replace("\n", " ").replace("\r", " ")).split())
    line = _ACTIVE.sub(lambda found: "\\" + found.group(), line)
    return re.sub(
        r"^(?=[-+](\s|$)|[-=]+$|#{1,6}(\s|$))|^(\d+)(?=[.)](\s|$))", lambda found: found.group() + "\\", line
    )


def as_markdown(paper: Paper, footer: str) -> str:
    """A paper as one Markdown file, the origin of its figures and its gaps at the end."""
    numbers = paper.numbered()
    parts = [f"# {inert(paper.title)}: {inert(paper.subject)}", inert(paper.lede)]
    parts += [f"> **{inert(headline)}**: {inert(words)}" for headline, words in paper.marks]
    if paper.gaps:
        parts.append(
            f"> **NOT COMPLETE**: {len(paper.gaps)} places are marked **{TO_FILL}**, and listed at the end."
        )
    for section in paper.sections:
        parts += _section(section, numbers)
    parts += _origins(numbers)
    if paper.asks:
        parts += ["## What a person must still fill", *_gaps(paper)]
    return "\n\n".join([*parts, inert(footer)]) + "\n"


def _section(section: Section, numbers: Mapping[Reference, int]) -> Iterator[str]:
    if not (section.items or any(table.rows for table in section.tables)):
        return
    yield f"## {inert(section.title)}"
    if section.about:
        yield inert(section.about)
    if section.items:
        yield "\n".join(_item(item, numbers) for item in section.items)
    for table in section.tables:
        if table.rows:
            yield f"**{inert(table.title)}**" + (f" ({table.kind})" if table.kind else "")
            yield _table(table, numbers)


def _item(item: Item, numbers: Mapping[Reference, int]) -> str:
    words = inert(item.words)
    if item.of == GAP:
        words = f"**{TO_FILL}** (`{item.key}`): {words}"
    elif item.of == HUMAN:
        words = f"{words} *({STATED})*"
    kind = f" ({item.kind})" if item.kind else ""
    return f"- **{inert(item.label)}**{kind}: {words}{_marks(item.references, numbers)}"


def _marks(references: Sequence[Reference], numbers: Mapping[Reference, int]) -> str:
    return "".join(f" \\[{numbers[reference]}\\]" for reference in references)


def _table(table: Table, numbers: Mapping[Reference, int]) -> str:
    columns = [*table.columns, "from"]
    lines = ["| " + " | ".join(map(inert, columns)) + " |", "|" + " --- |" * len(columns)]
    for cells, references in table.rows:
        lines.append("| " + " | ".join([*map(inert, cells), _marks(references, numbers).strip()]) + " |")
    return "\n".join(lines)


def _origins(numbers: Mapping[Reference, int]) -> Iterator[str]:
    if not numbers:
        return
    yield "## Where each figure comes from"
    yield "The hash is that of the ledger entry, the digest that of the signed record or plan: SHA-256, hexadecimal."
    lines = ["| no. | what | in | file | hash or digest |", "| --- | --- | --- | --- | --- |"]
    for one, number in numbers.items():
        lines.append(f"| {number} | {inert(str(one))} | {inert(one.run)} | {inert(one.file)} | `{one.digest}` |")
    yield "\n".join(lines)


def _gaps(paper: Paper) -> Iterable[str]:
    if not paper.gaps:
        return ["Nothing."]
    return ["\n".join(f"- **{TO_FILL}** (`{gap.key}`): {inert(gap.words)}" for gap in paper.gaps)]


def as_yaml(value: Mapping[str, Any]) -> str:
    """Plain data as YAML: maps, lists, texts, numbers. Texts of several lines as blocks, all others in quotation marks."""
    return "\n".join(_yaml(value, 0)) + "\n"


def _yaml(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, one in value.items():
        if not _WORD.fullmatch(key):
            raise ValueError(f"{key!r} is no key of ours")
        yield from _entry(f"{'  ' * depth}{key}:", one, depth)


def _entry(head: str, value: Any, depth: int) -> Iterator[str]:
    inside = "  " * (depth + 1)
    if isinstance(value, Mapping):
        yield head
        yield from _yaml(value, depth + 1)
    elif isinstance(value, list | tuple):
        yield head
        yield from (f"{inside}- {_scalar(one)}" for one in value)
    elif isinstance(value, str) and "\n" in value:
        yield f"{head} |2-"
        yield from (f"{inside}{shown(line)}".rstrip() for line in value.rstrip("\n").split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    """A text in quotation marks, on one line; a number so that every reader of YAML takes it for one."""
    if isinstance(value, str):
        return json.dumps(shown(value), ensure_ascii=False, allow_nan=False)
    if isinstance(value, float):
        text = json.dumps(value, allow_nan=False)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value, allow_nan=False)
