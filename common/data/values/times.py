"""Times: of every form that tells itself, and of those that a mapping names. The result is the shop's own clock.

A form that can be read in two ways (``03/04/2024``, a two-digit year, ``IST``) is never guessed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import polars as pl
from numpy.typing import NDArray

MICROSECONDS = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}
EXCEL_DAYS_TO_1970 = 25_569
_DAY_US = 86_400_000_000
_MISSING = np.iinfo(np.int64).min

ZONES = {
    "UTC": "+0000", "GMT": "+0000", "Z": "+0000", "UT": "+0000", "WET": "+0000", "WEST": "+0100", "CET": "+0100",
    "CEST": "+0200", "MEZ": "+0100", "MESZ": "+0200", "EET": "+0200", "EEST": "+0300", "MSK": "+0300", "JST": "+0900",
    "KST": "+0900", "HKT": "+0800", "SGT": "+0800", "EST": "-0500", "EDT": "-0400", "CDT": "-0500", "MDT": "-0600",
    "MST": "-0700", "PST": "-0800", "PDT": "-0700", "AEST": "+1000", "AEDT": "+1100", "NZST": "+1200", "NZDT": "+1300",
    "BRT": "-0300",
}  # fmt: skip
"""Names of zones that mean one thing; CST, IST and BST mean several and are not read."""

_FAST = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%d")
_CLOCKS = ("%H:%M:%S%.f", "%H:%M", "%I:%M:%S%.f %p", "%I:%M %p", "")
_A_MONTH = "(?s)[0-9].*[A-Za-z]{3}|[A-Za-z]{3}.*[0-9]"
_DATES = {
    "%Y-%m-%d": "[0-9]-",
    "%d.%m.%Y": r"[0-9]\.",
    "%d %B %Y": _A_MONTH,
    "%B %d %Y": _A_MONTH,
    "%Y %B %d": _A_MONTH,
    "%Y年%m月%d日": "年",
}
"""Forms of a date, and what every text of that form has: with any clock, each is tried on such texts only."""
_DIGITS = {
    r"^(?:19|20)\d{6}$": "%Y%m%d",
    r"^(?:19|20)\d{6}[ T]?\d{6}$": "%Y%m%d%H%M%S",
    r"^(?:19|20)\d{10}$": "%Y%m%d%H%M",
}


def known_zone(name: str) -> bool:
    """Whether this is a zone like ``Europe/Berlin``."""
    return name == "UTC" or name in available_timezones()


def times(column: pl.Series, *, unit: str = "text", formats: Sequence[str] = (), zone: str = "UTC") -> pl.Series:
    """Times on the clock of ``zone``, ``Datetime("us")``; one that cannot be read is missing.

    A time without a zone is taken to be on that clock already; one with a zone, and seconds since 1970, are moved to it.
    """
    if column.dtype == pl.Time or column.dtype == pl.Duration:
        return pl.Series(column.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(column))
    if column.dtype.is_temporal():
        if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
            column = column.dt.convert_time_zone(zone).dt.replace_time_zone(None)
        return column.cast(pl.Datetime("us"))
    if unit != "text":
        return _numeric(column, unit, zone)
    text = (
        column.cast(pl.String) if not column.dtype.is_float() else column.cast(pl.Decimal(38, 6)).cast(pl.String)
    )
    text = text.str.strip_chars()
    found = np.full(len(text), _MISSING, dtype=np.int64)
    if formats:
        _fill(found, text, [_by_format(one, zone) for one in formats])
    else:
        _fill(found, text, [_by_format(one, zone) for one in _FAST])
        places = _open(found, text)
        left = _normal(text.gather(places))
        _fill(found, left, _epochs(zone), places)
        for date, mark in _DATES.items():
            maybe = (found[places] == _MISSING) & left.str.contains(mark).to_numpy()
            _fill(found, left.filter(pl.Series(maybe)), _with_any_clock(date, zone), places[maybe])
    return _series(column.name, found)


def _numeric(column: pl.Series, unit: str, zone: str) -> pl.Series:
    number = column.cast(pl.Float64, strict=False)
    if unit == "order":  # no clock at all: the number of the order, as seconds since 2000
        number = number * 1e6 + 946_684_800e6
    elif unit == "excel":
        number = ((number - EXCEL_DAYS_TO_1970) * 86_400).round() * 1e6
    elif column.dtype.is_integer():
        exact = column.cast(pl.Int64, strict=False)
        scaled = exact // 1000 if unit == "nanoseconds" else exact * int(MICROSECONDS[unit])
        return _at_zone(scaled.set((number.abs() * MICROSECONDS[unit] > 4e18).fill_null(value=False), None), zone)
    else:
        number = number * MICROSECONDS[unit]
    number = number.set(~(number.is_finite() & (number.abs() < 9e18)).fill_null(value=False), None)
    whole = number.round().cast(pl.Int64)
    return whole.cast(pl.Datetime("us")) if unit in ("order", "excel") else _at_zone(whole, zone)


def _at_zone(microseconds: pl.Series, zone: str) -> pl.Series:
    moments = microseconds.cast(pl.Datetime("us"))
    if zone == "UTC":
        return moments
    return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.replace_time_zone(None)


def _by_format(pattern: str, zone: str) -> Callable[[pl.Series], pl.Series]:
    zoned = "%z" in pattern or "%:z" in pattern or "%#z" in pattern or "%Z" in pattern
    pattern = pattern.replace("%Z", "%z").replace("%:z", "%z")

    def read(text: pl.Series) -> pl.Series:
        if zoned:
            text = _offsets(text)
            moments = text.str.to_datetime(
                pattern.replace("%z", "%#z"), time_unit="us", strict=False, time_zone="UTC"
            )
            return moments.dt.convert_time_zone(zone).dt.replace_time_zone(None)
        found = text.str.to_datetime(pattern, time_unit="us", strict=False)
        if "%Y" in pattern:  # two digits of a year are not the first century
            found = found.set((found.dt.year() < 1_000).fill_null(value=False), None)
        return found if not pattern.endswith("Z") else _at_zone(found.to_physical(), zone)

    return read


def _with_any_clock(date: str, zone: str) -> list[Callable[[pl.Series], pl.Series]]:
    forms = []
    for clock in _CLOCKS:
        whole = f"{date} {clock}".strip()
        forms.append(_by_format(whole, zone))
        if clock:
            forms.append(_by_format(f"{whole}%z", zone))
    return forms


def _epochs(zone: str) -> list[Callable[[pl.Series], pl.Series]]:
    """Numbers that tell their unit by their size: every unit covers 1995 to 2100 in a range of its own."""

    def since_1970(text: pl.Series) -> pl.Series:
        digits = text.str.contains(r"^\d{9,19}(\.\d+)?$").fill_null(value=False)
        whole = text.set(~digits, None).str.extract(r"^(\d+)").cast(pl.Int64, strict=False)
        part = text.set(~digits, None).str.extract(r"^\d+(\.\d+)$").cast(pl.Float64, strict=False).fill_null(0.0)
        scale = pl.Series(np.zeros(len(text), dtype=np.int64))
        moved = pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
        for factor, low, high in ((1_000_000, 788_918_400, 4_102_444_800), (1_000, 788_918_400_000, 4_102_444_800_000),
                                  (1, 788_918_400_000_000, 4_102_444_800_000_000)):  # fmt: skip
            inside = ((whole >= low) & (whole < high)).fill_null(value=False)
            scale = scale.set(inside, factor)
        moved = (whole * scale + (part * scale).round().cast(pl.Int64)).set(scale == 0, None)
        nano = ((whole >= 788_918_400 * 10**9) & (whole < 4_102_444_800 * 10**9)).fill_null(value=False)
        moved = moved.zip_with(~nano, whole // 1000)
        return _at_zone(moved, zone)

    def compact(pattern: str, form: str) -> Callable[[pl.Series], pl.Series]:
        def read(text: pl.Series) -> pl.Series:
            right = text.str.contains(pattern).fill_null(value=False)
            return (
                text.set(~right, None)
                .str.replace_all("[ T]", "")
                .str.to_datetime(form, time_unit="us", strict=False)
            )

        return read

    return [since_1970, *(compact(pattern, form) for pattern, form in _DIGITS.items())]


def _normal(text: pl.Series) -> pl.Series:
    """One spelling of what may be written in several: the date's marks, the zone's name, the half of the day."""
    text = text.str.replace(r"\s*\[[A-Za-z_]+/[A-Za-z_]+\]$", "").str.replace(r"^\[(.*)\]$", "$1")
    text = text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3")
    text = text.str.replace(r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+", "")
    text = text.str.replace(
        r"^([A-Za-z]{3,9}) +(\d{1,2}) (\d{2}:\d{2}:\d{2})(?: ([A-Z]{2,4}))? (\d{4})$", "$1 $2 $5 $3 $4"
    )
    text = text.str.replace(r"^(\d{4}-\d{2}-\d{2})_(\d{2})[-_.:](\d{2})[-_.:](\d{2})$", "$1 $2:$3:$4")
    text = text.str.replace(r"^(\d{1,2})[/\- ]?([A-Za-z]{3,9})\.?[/\- ,]*(\d{4})[: ,T]*", "$1 $2 $3 ")
    text = text.str.replace(
        r"^([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})[ ,]*(?:at )?", "$1 $2 $3 "
    )
    text = text.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4})[T ,]+", "$1 ")
    text = text.str.replace(r"(\d{2}:\d{2}:\d{2}),(\d+)", "$1.$2")
    text = text.str.replace(r"^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})", "$1-$2-$3 $4:$5:$6")
    text = text.str.replace(r"(\d)\s*([AaPp])\.?\s?[Mm]\.?", "$1 ${2}M")
    return _offsets(text).str.strip_chars()


def _offsets(text: pl.Series) -> pl.Series:
    """The name of a zone, or its offset in any spelling, as ``+HHMM`` right behind the time."""
    if text.str.contains("[A-Z]$").any():  # as every name of a zone ends
        for name, offset in ZONES.items():
            if text.str.ends_with(name).any():
                text = text.str.replace(rf"(\d(?: [AaPp][Mm])?)\s*{name}$", "${1}" + offset)
    text = text.str.replace(r"(?:\s*(?:UTC|GMT))([+-])", "$1")
    text = text.str.replace(r"(:\d{2}(?:\.\d+)?(?: [AaPp][Mm])?|\b\d{1,2} [AaPp][Mm])\s*([+-]\d{2})$", "$1${2}00")
    return text.str.replace(
        r"(:\d{2}(?:\.\d+)?(?: [AaPp][Mm])?|\b\d{1,2} [AaPp][Mm])\s*([+-]\d{2}):?(\d{2})$", "$1$2$3"
    )


def _open(found: NDArray[np.int64], text: pl.Series) -> NDArray[np.intp]:
    return np.flatnonzero((found == _MISSING) & text.is_not_null().to_numpy())


def _fill(
    found: NDArray[np.int64],
    text: pl.Series,
    forms: Sequence[Callable[[pl.Series], pl.Series]],
    places: NDArray[np.intp] | None = None,
) -> None:
    """Try each form on what no form before could read. ``places``: where the entries of ``text`` belong in ``found``."""
    places = np.arange(len(text)) if places is None else places
    if text.null_count():
        places, text = places[text.is_not_null().to_numpy()], text.drop_nulls()
    for form in forms:
        if not len(text):
            return
        read = form(text).to_physical()
        if read.null_count() == len(read):
            continue
        good = read.is_not_null().to_numpy()
        found[places[good]] = read.drop_nulls().to_numpy()
        text, places = text.filter(pl.Series(~good)), places[~good]


def _series(name: str, found: NDArray[np.int64]) -> pl.Series:
    column = pl.Series(name, found)
    return column.set(column == _MISSING, None).cast(pl.Datetime("us"))


def moment(value: object, *, formats: Sequence[str] = (), zone: str = "UTC") -> datetime | None:
    """One value as a time on the shop's clock, by the rules of ``times``; None if it cannot be read."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(ZoneInfo(zone)).replace(tzinfo=None) if value.tzinfo else value
    found: datetime | None = times(pl.Series([str(value)]), formats=formats, zone=zone)[0]
    return found
