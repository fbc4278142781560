"""Public names of items, read from an event file or from the products file beside it, for a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

import common.data.reading as reading
from common.data.values.words import plain_text, without_float_tail


def product_names(path: Path | str, format_name: str, known: Sequence[str] = ()) -> dict[str, str]:
    """The most frequent name of each item of an event file; empty where its format knows no names.

    ``format_name`` is a preset or the path of a TOML mapping.
    Raises: BadInputError if a file cannot be read.
    """
    from common.data.events import opened_events
    from common.data.recognising import said_of

    opened, _ = opened_events(path, format_name, said=said_of(known))
    mapping = opened.mapping
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    source, item, name = path, mapping.columns.get("item", ""), mapping.item_name
    if mapping.products and mapping.products.name:
        beside = next((folder / f for f in mapping.products.files if (folder / f).exists()), None)
        if beside is not None:
            source, item, name = beside, mapping.products.item, mapping.products.name
    if source == path:
        tables = (
            [batch.frame for _, batch in replace(opened, also=(name,)).batches()] if name in opened.header else []
        )
    else:
        tables = [reading.scan(source, (item, name))] if {item, name} <= set(reading.first_line(source)) else []
    if not name or not tables:
        return {}
    table = pl.concat([frame.select(item, name) for frame in tables])
    pairs = pl.DataFrame(
        [without_float_tail(plain_text(table[item])).alias("item"), plain_text(table[name]).alias("name")]
    )
    counted = pairs.drop_nulls().group_by("item", "name").len()
    best = counted.sort("len", "name", descending=[True, False]).unique("item", keep="first", maintain_order=True)
    return dict(zip(best["item"], best["name"], strict=True))
