"""The rules of cleaning: what each finds, what is done, in the order in which a line is charged to them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import polars as pl

from common.data.counting import DISORDER, DUPLICATE, MALFORMED, REMOVED, SAME_DAY, Counted, RuleCount
from common.data.formats import ITEM_EVENTS, Mapping

EARLIEST = datetime(1995, 1, 1)
LATEST = datetime(2037, 1, 1)
"""Times outside are what systems write for "never" and "not known": 1900, 1970, 2038-01-19, 2099-12-31, 9999."""

_WHY_MALFORMED = "another number of fields than the header, or a quote that does not end"


class LineRule(NamedTuple):
    """A rule about a single line. ``shows``: the column whose value an example may show."""

    name: str
    reason: str
    action: str
    found: pl.Expr
    drops: pl.Expr | None
    shows: str = ""


def line_rules(mapping: Mapping) -> list[LineRule]:
    """Dropping rules first, in the order in which a line is charged to them. Conditions on unrepaired lines."""
    return [*_dropping(mapping), *_changing(mapping)]


def _dropping(mapping: Mapping) -> list[LineRule]:
    price, quantity, time = pl.col("price"), pl.col("quantity"), pl.col("timestamp")
    cancel = pl.col("cancelled") | (pl.col("event") == "cancel")
    no_time, outside = time.is_null(), (time < EARLIEST) | (time >= LATEST)
    no_item = pl.col("item").is_null() & pl.col("event").is_in(ITEM_EVENTS) & pl.lit(mapping.has_items)
    bought = (quantity <= 0) & (pl.col("event") == "purchase") & ~cancel
    unread, rounded = pl.col("unreadable"), pl.col("rounded_id")

    def rule(name: str, reason: str, found: pl.Expr, shows: str = "", drops: pl.Expr | None = None) -> LineRule:
        return LineRule(name, reason, "dropped", found, found if drops is None else drops, shows)

    return [
        rule("unreadable", "bytes of an id or an event that are no text in the file's encoding", unread),
        rule("rounded-id", "a consumer's number that has lost digits in a spreadsheet or a float", rounded),
        rule("no-consumer", "no consumer id", pl.col("consumer").is_null()),
        rule("no-time", "time missing or unreadable", no_time, "raw_time"),
        rule("time-out-of-range", "before 1995 or after 2036: a placeholder", outside, "raw_time"),
        rule("no-item", "an event on an item that names none", no_item),
        rule("negative-price", "price below zero", price < 0, "raw_price"),
        rule(
            "quantity-not-positive", "zero or below; kept if a cancellation", quantity <= 0, "raw_quantity", bought
        ),
    ]


def _changing(mapping: Mapping) -> list[LineRule]:
    price, quantity = pl.col("price"), pl.col("quantity")

    def rule(name: str, reason: str, action: str, found: pl.Expr, shows: str = "") -> LineRule:
        return LineRule(name, reason, action, found, None, shows)

    big_price, big_size = price > mapping.max_price, quantity.abs() > mapping.max_quantity
    flag = pl.col
    return [
        rule("cancellation", "marked as cancelled", "event becomes cancel", flag("cancelled")),
        rule(
            "unknown-event",
            "event word not in the mapping",
            "event becomes other",
            flag("unknown_event"),
            "raw_event",
        ),
        rule("zero-price", "price is zero", REMOVED, price == 0),
        rule("absurd-price", f"above {mapping.max_price:g}", REMOVED, big_price, "raw_price"),
        rule("absurd-quantity", f"beyond {mapping.max_quantity:g}", REMOVED, big_size, "raw_quantity"),
        rule("bad-price", "price is not a number", REMOVED, flag("bad_price"), "raw_price"),
        rule("bad-quantity", "quantity is not a number", REMOVED, flag("bad_quantity"), "raw_quantity"),
        rule("textual-null", "a word for nothing, as NULL or \\N", REMOVED, flag("null_word")),
        rule("unreadable-category", "bytes that are no text", REMOVED, flag("unreadable_category")),
        rule("rounded-item", "an item's number that has lost digits", "kept as it is", flag("rounded_item")),
        rule("float-id", "a whole number with .0 behind it", "the .0 is taken off", flag("float_id")),
        rule(
            "notation",
            "a currency sign, a decimal comma, thousands",
            "read as a number",
            flag("notation"),
            "raw_price",
        ),
    ]


def report_rules(mapping: Mapping, count: Counted) -> tuple[RuleCount, ...]:
    """The counts in the order in which the rules are applied."""
    said = count.examples.of
    rules = [
        RuleCount(r.name, r.reason, r.action, count.found[r.name], count.dropped[r.name], said.get(r.name, ""))
        for r in line_rules(mapping)
    ]
    if count.malformed:
        lost = count.malformed
        rules.insert(0, RuleCount(MALFORMED, _WHY_MALFORMED, "dropped", lost, lost, said.get(MALFORMED, "")))
    repeats, days = count.repeats, count.same_day
    again = said.get(DUPLICATE, "")
    rules.append(RuleCount(DUPLICATE, "the same line again", "dropped", repeats, repeats, again))
    if days:
        why = "an equal line whose time says a day only"
        rules.append(RuleCount(SAME_DAY, why, "kept as another event", days, 0, said.get(SAME_DAY, "")))
    rules.append(RuleCount(DISORDER, "earlier than the line before of its consumer", "sorted", count.disorder))
    return tuple(rules)
