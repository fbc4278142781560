"""What the times of a column are: a form that tells itself, a unit, or day and month in an order that the values show."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from common.data.values.times import times
from common.errors import BadInputError

_SHAPE = re.compile(
    r"^(\d{1,2})([/.\-])(\d{1,2})\2(\d{4}|\d{2})"
    r"(?:(,?[ T]+)(\d{1,2}):(\d{2})(:\d{2})?(\.\d+)?(?:(\s*)([AaPp])\.?[Mm]\.?)?)?(\s*(?:[+-]\d{2}:?\d{2}|Z|[A-Z]{3,4}))?$"
)
_MOST = 5_000
ENOUGH = 0.5
"""Share of a sample's times that must be readable for a column to be the time."""


@dataclass(frozen=True)
class TimeForm:
    """How the times of a column are read: settings of a mapping, in words too. ``share`` of the sample was readable."""

    unit: str = "text"
    formats: tuple[str, ...] = ()
    words: str = ""
    share: float = 0.0


def time_form(column: pl.Series, zone: str = "UTC") -> TimeForm:
    """The form of a column's times; a share of 0 where it has none.

    Raises: BadInputError with a sample where day and month cannot be told apart.
    """
    known = column.drop_nulls()
    if known.dtype == pl.String:
        known = known.filter(known.str.strip_chars() != "")
    if not len(known):
        return TimeForm()
    read = times(known, zone=zone)
    share = 1 - read.null_count() / len(known)
    if share >= ENOUGH:
        return TimeForm(words=_words(known), share=share)
    if _is_excel(known):
        return TimeForm("excel", (), "days of a spreadsheet since 1900", 1.0)
    return _day_and_month(
        known.cast(pl.String).str.strip_chars().unique(maintain_order=True).head(_MOST).to_list()
    )


def _words(known: pl.Series) -> str:
    if known.dtype.is_temporal():
        return f"typed times ({known.dtype})"
    first = str(known[0])
    digits = len(first.split(".")[0])
    if first.replace(".", "", 1).isdigit():
        units = {9: "seconds", 10: "seconds", 12: "milliseconds", 13: "milliseconds", 15: "microseconds", 16: "microseconds",
                 18: "nanoseconds", 19: "nanoseconds"}  # fmt: skip
        return f"{units[digits]} since 1970" if digits in units else "digits of a date"
    return f"times like {first!r}"


def _is_excel(known: pl.Series) -> bool:
    number = known.cast(pl.Float64, strict=False)
    return bool(number.null_count() == 0 and number.is_between(32_874, 60_000).all() and (number % 1 != 0).any())


def _day_and_month(values: list[str]) -> TimeForm:
    shapes = [found for value in values if (found := _SHAPE.match(value))]
    if len(shapes) < ENOUGH * len(values):
        return TimeForm()
    day_first, month_first = (any(int(shape[place]) > 12 for shape in shapes) for place in (1, 3))
    sample = next((s[0] for s in shapes if int(s[1]) > 12 or int(s[3]) > 12), shapes[0][0])
    if day_first and month_first:
        raise BadInputError(
            f"times like {sample!r}: in some lines the day comes first, in others the month",
            hint="export ISO 8601",
        )
    if not day_first and not month_first:
        raise BadInputError(
            f"times like {sample!r}: nothing shows whether the day or the month comes first",
            hint="say so: --map 'time_formats=%d/%m/%Y %H:%M' (day first), or %m/%d/%Y",
        )
    formats = tuple(dict.fromkeys(_format(shape, day_first=day_first) for shape in shapes))
    words = f"times like {sample!r}, {'day' if day_first else 'month'} first"
    return TimeForm("text", formats, words, len(shapes) / len(values))


def _format(shape: re.Match[str], *, day_first: bool) -> str:
    mark, year = shape[2], "%Y" if len(shape[4]) == 4 else "%y"
    date = mark.join(("%d", "%m", year) if day_first else ("%m", "%d", year))
    if not shape[6]:
        return date
    half = f"{shape[10] or ''}%p" if shape[11] else ""
    clock = ("%I" if half else "%H") + ":%M" + (":%S" if shape[8] else "") + ("%.f" if shape[9] else "")
    return f"{date}{shape[5]}{clock}{half}" + ("%z" if shape[12] else "")
