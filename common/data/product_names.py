"""Public names of items, read from an event file or from the products file beside it, for a catalogue."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import common.data.reading as reading
from common.data.events import mappings_of


def product_names(path: Path, format_name: str) -> dict[str, str]:
    """The most frequent name of each item of an event file; empty where its format knows no names.

    ``format_name`` is a preset or the path of a TOML mapping.
    Raises: BadInputError if a file cannot be read.
    """
    mapping, _ = reading.choose_mapping(path, mappings_of(format_name))
    source, item, name = path, mapping.columns.get("item", ""), mapping.item_name
    if mapping.products and mapping.products.name:
        beside = next((path.parent / f for f in mapping.products.files if (path.parent / f).exists()), None)
        if beside is not None:
            source, item, name = beside, mapping.products.item, mapping.products.name
    if not name or not {item, name} <= set(reading.first_line(source, mapping.separator)):
        return {}
    with reading.readable(source):
        pairs = reading.scan(source, (), mapping.separator).select(
            pl.col(item).cast(pl.String).str.strip_chars().alias("item"),
            pl.col(name).cast(pl.String).str.strip_chars().alias("name"),
        )
        counted = pairs.drop_nulls().group_by("item", "name").len().collect()
    best = counted.sort("len", "name", descending=[True, False]).unique("item", keep="first", maintain_order=True)
    return dict(zip(best["item"], best["name"], strict=True))
