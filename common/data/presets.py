"""Presets: mappings of public formats and of the exports of shop software."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from common.data.formats import COLUMNS, CancelRule, Mapping, ProductsFile, missing_columns
from common.data.shop_presets import SHOP_OPTIONAL, SHOP_PRESETS
from common.errors import BadInputError

_SAME = {name: name for name in COLUMNS}

PRESETS: dict[str, tuple[Mapping, ...]] = {
    "fedcart": (Mapping(name="fedcart", columns=_SAME),),
    "online-retail": (
        Mapping(
            name="online-retail",
            columns={
                "consumer": "CustomerID",
                "timestamp": "InvoiceDate",
                "item": "StockCode",
                "price": "UnitPrice",
                "quantity": "Quantity",
                "site": "Country",
            },
            default_event="purchase",
            time_formats=("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M"),
            cancel=CancelRule(column="InvoiceNo", prefix="C"),
            item_name="Description",
        ),
    ),
    "complete-journey": (
        Mapping(
            name="complete-journey",
            columns={
                "consumer": "household_id",
                "timestamp": "transaction_timestamp",
                "item": "product_id",
                "price": "sales_value",
                "quantity": "quantity",
                "site": "store_id",
            },
            default_event="purchase",
            price_is_total=True,
            products=ProductsFile(
                files=("products.csv.gz", "products.csv", "products.parquet"),
                item="product_id",
                category="product_category",
                name="product_type",
            ),
        ),
    ),
    "retailrocket": (
        Mapping(
            name="retailrocket",
            columns={"consumer": "visitorid", "timestamp": "timestamp", "event": "event", "item": "itemid"},
            events={"view": "view", "addtocart": "cart", "transaction": "purchase"},
            time="milliseconds",
        ),
    ),
    "taobao": (
        Mapping(
            name="taobao",
            columns={
                "consumer": "user",
                "timestamp": "time",
                "event": "behaviour",
                "item": "item",
                "category": "category",
            },
            names=("user", "item", "category", "behaviour", "time"),
            events={"pv": "view", "cart": "cart", "fav": "favourite", "buy": "purchase"},
            time="seconds",
        ),
    ),
    "yoochoose": (
        Mapping(
            name="yoochoose",
            columns={"consumer": "session", "timestamp": "time", "item": "item", "category": "category"},
            names=("session", "time", "item", "category"),
            default_event="view",
        ),
        Mapping(
            name="yoochoose",
            columns={
                "consumer": "session",
                "timestamp": "time",
                "item": "item",
                "price": "price",
                "quantity": "quantity",
            },
            names=("session", "time", "item", "price", "quantity"),
            default_event="purchase",
        ),
    ),
    "rees46": (
        Mapping(
            name="rees46",
            columns={
                "consumer": "user_id",
                "timestamp": "event_time",
                "event": "event_type",
                "item": "product_id",
                "category": "category_id",
                "price": "price",
            },
            events={"view": "view", "cart": "cart", "purchase": "purchase", "remove_from_cart": "other"},
        ),
    ),
    **SHOP_PRESETS,
}

OPTIONAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "fedcart": ("item", "category", "price", "quantity", "site"),
    **SHOP_OPTIONAL,
}
"""Columns a preset reads where the file has them, and does without where not."""


def preset(name: str) -> tuple[Mapping, ...]:
    """The mappings of a preset; more than one where a format has several kinds of file.

    Raises: BadInputError for an unknown name, with the nearest known one.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), PRESETS, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise BadInputError(
        f"unknown format {name!r}, known: {', '.join(PRESETS)}",
        hint=f"{guess}for another file write a mapping, see docs/data.md",
    )


def guess_format(first_line: Sequence[str]) -> str:
    """The preset that the first line of a file fits, or "" if none does."""
    for name, mappings in PRESETS.items():
        for mapping in mappings:
            if not mapping.names and not missing_columns(mapping, first_line, OPTIONAL_COLUMNS.get(name, ())):
                return name
    if len(first_line) == 5 and first_line[3] in ("pv", "buy", "cart", "fav"):
        return "taobao"
    if (
        len(first_line) in (4, 5)
        and first_line[0].isdigit()
        and first_line[1][:4].isdigit()
        and "T" in first_line[1]
    ):
        return "yoochoose"
    return ""
