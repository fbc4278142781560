"""Text as it is meant: blanks, the many words for "nothing", ids that went through a spreadsheet, words for events."""

from __future__ import annotations

import re
from functools import lru_cache

import polars as pl

NULL_WORDS = (
    "null", "none", "nan", "na", "n/a", "<na>", "#n/a", "nil", "undefined", "\\n", "nat", "(null)", "[null]", "<null>",
    "(none)", "(not set)", "(empty)", "not set", "-", "--", "?", "nul", "<nil>", "#null!", "#ref!", "#value!", "1.#qnan",
    "-nan", "missing",
)  # fmt: skip
"""What databases, notebooks, spreadsheets and trackers write for a missing value; compared without case."""

REPLACEMENT = "\ufffd"
"""Stands for bytes that are no text in the file's encoding."""

_BLANKS = "\ufeff\u200b\u2060\u00a0 \t\r\n\v\f\u3000\u2007\u202f\u2009"
FLOAT_ID = r"^(-?\d+)\.0+$"
ROUNDED_ID = r"^-?\d(?:\.\d+)?[eE]\+\d+$"
_EXACT_DIGITS = 15  # of a whole number that went through a float

EVENT_WORDS: dict[str, tuple[str, ...]] = {
    "login": ("signin", "loggedin", "userlogin", "sessionstart", "visit", "signup", "register", "identify"),
    "view": (
        "pv", "pageview", "viewitem", "itemview", "productview", "productviewed", "viewproduct", "viewcontent", "click",
        "clicks", "clicked", "detail", "productdetail", "viewed", "browse", "screenview", "pageviewed", "impression",
        "productclicked", "selectitem", "screen", "page", "pageping", "viewitemlist", "show", "read",
    ),
    "search": ("query", "sitesearch", "viewsearchresults", "productssearched", "searched"),
    "favourite": (
        "fav", "favorite", "favourites", "favorites", "wishlist", "addtowishlist", "like", "liked", "collect", "save",
        "productaddedtowishlist", "wish", "bookmark", "favor",
    ),
    "cart": (
        "addtocart", "atc", "carts", "basket", "addtobasket", "productadded", "addcart", "cartadd", "bag", "addtobag",
        "addedtocart",
    ),
    "purchase": (
        "buy", "bought", "order", "orders", "ordered", "transaction", "transactions", "sale", "sold", "purchased",
        "purchases", "ordercompleted", "checkoutcompleted", "buys", "ecommercepurchase", "complete", "completed",
        "processing", "paid", "payment", "invoice", "placed", "orderplaced", "pay", "trtransaction", "ecommerceorder",
        "addtransaction", "itemsold", "deal",
    ),
    "cancel": (
        "cancelled", "canceled", "cancellation", "refund", "refunded", "return", "returned", "returns", "orderrefunded",
        "ordercancelled", "storno", "creditmemo", "chargeback",
    ),
    "review": ("rate", "rating", "rated", "comment", "reviewed", "reviews", "productreviewed", "feedback"),
    "other": (
        "removefromcart", "removecart", "productremoved", "removefrombasket", "scroll", "logout", "begincheckout",
        "checkout", "checkoutstarted", "firstvisit", "userengagement", "viewcart", "cartviewed", "addpaymentinfo",
        "addshippinginfo", "share", "other",
    ),
}  # fmt: skip
"""Other words for our event types, without blanks, hyphens, underscores and case; used where a mapping names no words."""

_TYPE_OF = {word: ours for ours, words in EVENT_WORDS.items() for word in (ours, *words)}


def plain_text(column: pl.Series) -> pl.Series:
    """Text without blanks and invisible marks around it; nothing left is missing. Whole floats lose their ``.0``.

    One text in two forms of Unicode is one text (NFC), and ``="007"``, with which a spreadsheet keeps zeros, is what it holds.
    """
    if column.dtype.is_float():
        column = _whole_numbers(column)
    elif column.dtype == pl.Boolean:
        column = column.cast(pl.Int8)
    text = column.cast(pl.String, strict=False).str.strip_chars(_BLANKS)
    if text.str.starts_with('="').any():
        text = text.str.replace(r'^="(.*)"$', "$1").str.strip_chars(_BLANKS)
    if (text.str.len_bytes() != text.str.len_chars()).any():
        text = text.str.normalize("NFC")
    return text.set(text == "", None)


def _whole_numbers(column: pl.Series) -> pl.Series:
    whole = column.is_finite() & (column == column.floor()) & (column.abs() < 9e18)
    as_text = column.cast(pl.String)
    numbers = column.set(~whole.fill_null(value=False), None).cast(pl.Int64).cast(pl.String)
    return numbers.fill_null(as_text.set((as_text == "NaN").fill_null(value=False), None)).alias(column.name)


def null_words(text: pl.Series, words: tuple[str, ...] = NULL_WORDS) -> pl.Series:
    """Where a plain text is a word for "nothing": ``bool[n]``."""
    listed, longest = _listed(words)
    short = text.str.len_bytes() <= longest
    if not short.any():
        return pl.Series(text.name, [False]).new_from_index(0, len(text))
    found = text.set(~short.fill_null(value=False), None).str.to_lowercase().is_in(listed)
    return found.fill_null(value=False)


@lru_cache(maxsize=32)
def _listed(words: tuple[str, ...]) -> tuple[pl.Series, int]:
    """The words in lower case, as one entry of a list, and how many bytes the longest has."""
    lower = pl.Series([word.lower() for word in words], dtype=pl.String)
    return lower.implode(), max((len(word.encode()) for word in words), default=0)


def without_float_tail(text: pl.Series) -> pl.Series:
    """Ids without the ``.0`` that a table with gaps appends to whole numbers."""
    tailed = text.str.contains(r"\.0+$").fill_null(value=False)
    return text.str.replace(FLOAT_ID, "$1") if tailed.any() else text


def float_tails(text: pl.Series) -> pl.Series:
    """Where an id ends in that ``.0``: ``bool[n]``."""
    return text.str.contains(FLOAT_ID).fill_null(value=False)


def rounded_ids(raw: pl.Series, text: pl.Series) -> pl.Series:
    """Where a number has lost digits, so that two ids may have become one: ``bool[n]``.

    Scientific notation, as spreadsheets write it, or a whole number beyond what a float can hold exactly.
    """
    rounded = text.str.contains(ROUNDED_ID)
    if raw.dtype.is_float():
        exact = 2.0**24 if raw.dtype == pl.Float32 else 2.0**53
        return (raw.abs() >= exact).fill_null(value=False)
    tailed = text.str.contains(FLOAT_ID) & (text.str.len_chars() > _EXACT_DIGITS + 3)
    return (rounded | tailed).fill_null(value=False)


def unreadable(text: pl.Series) -> pl.Series:
    """Where bytes were no text in the file's encoding, now or in the program that wrote it: ``bool[n]``."""
    return text.str.contains(REPLACEMENT, literal=True).fill_null(value=False)


def folded(word: str) -> str:
    """A word without case, blanks, hyphens, underscores, dots and what stands before a slash or colon."""
    return re.sub(r"[\s_\-./:$]+", "", word.strip().lower())


def event_type(word: str) -> str:
    """Our type of an event word that no mapping names, "" if it is unknown."""
    return _TYPE_OF.get(folded(word), "")
