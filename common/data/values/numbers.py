"""Prices and quantities in the notations of the world: ``12,50``, ``$12.50``, ``1,012.50``, ``1.012,50 EUR``, ``(3.00)``.

One value tells its notation, except for a single mark before three digits (``1,012``, ``1.012``): there the mapping's
``decimal`` decides, and nothing else.
"""

from __future__ import annotations

import polars as pl

_SIGNS = r"\p{Sc}\p{L}"
_WHOLE = (
    r"^\s*(?P<open>\(?)\s*(?P<minus>[-−–+]?)\s*(?:[\p{Sc}\p{L}]{1,5}\.?)?\s*(?P<second>[-−–+]?)\s*"
    r"(?P<number>[.,]?\d(?:[\d.,'’\s]*\d)?)"
    r"\s*(?P<behind>[-−]?)\s*(?:[\p{Sc}\p{L}]{1,5}\.?(?:/\p{L}{1,6})?)?\s*(?P<close>\)?)\s*$"
)


def numbers(column: pl.Series, decimal: str = ".") -> tuple[pl.Series, pl.Series]:
    """A column as finite ``Float64``, missing where it is none; and where another notation was read: ``bool[n]``."""
    no_notation = pl.Series(column.name, [False]).new_from_index(0, len(column))
    if column.dtype.is_numeric() or column.dtype == pl.Decimal:
        number = column.cast(pl.Float64)
        return number.set(~number.is_finite(), None), no_notation
    text = column.cast(pl.String).str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    number = number.set(~number.is_finite(), None)
    unsure = text.str.contains(r"^[-+]?\d{1,3}\.\d{3}$").fill_null(value=False) if decimal == "," else no_notation
    left = ((text != "").fill_null(value=False) & (number.is_null() | unsure)).arg_true()
    if not len(left):
        return number, no_notation
    read = _other_notation(text.gather(left), decimal)
    values, marked = number.to_numpy(writable=True), no_notation.to_numpy(writable=True)
    places = left.to_numpy()
    values[places] = read.fill_null(float("nan")).to_numpy()
    marked[places] = read.is_not_null().to_numpy()
    found = pl.Series(column.name, values)
    return found.set(~found.is_finite(), None), pl.Series(column.name, marked)


def _other_notation(text: pl.Series, decimal: str) -> pl.Series:
    parts = text.str.extract_groups(_WHOLE).struct.unnest()
    digits = parts["number"].str.replace_all(r"[\s'’\u00a0\u202f\u2009]", "")
    frame = pl.DataFrame({"d": digits})
    last_comma, last_dot = (
        pl.col("d").str.reverse().str.find(mark, literal=True).cast(pl.Int64) for mark in (",", ".")
    )
    commas, dots = (pl.col("d").str.count_matches(mark, literal=True) for mark in (",", "."))
    alone = pl.col("d").str.contains(r"^[-+]?[1-9]\d{0,2}[.,]\d{3}$")  # the one form that a value does not explain
    mark = (
        pl.when((commas > 0) & (dots > 0)).then(pl.when(last_comma < last_dot).then(pl.lit(",")).otherwise(pl.lit(".")))
        .when((commas > 1) | (dots > 1)).then(pl.lit(""))
        .when(alone).then(pl.lit(decimal))
        .when(commas == 1).then(pl.lit(","))
        .otherwise(pl.lit("."))
    )  # fmt: skip
    plain = (
        pl.when(mark == ",").then(pl.col("d").str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True))
        .when(mark == ".").then(pl.col("d").str.replace_all(",", "", literal=True))
        .otherwise(pl.col("d").str.replace_all(r"[.,]", ""))
    )  # fmt: skip
    grouped = pl.col("d").str.contains(r"^\d{1,3}([.,]\d{2,3})*([.,]\d*)?$|^\d+([.,]\d*)?$|^[.,]\d+$")
    value = frame.select(pl.when(grouped).then(plain.cast(pl.Float64, strict=False))).to_series()
    minus = parts.select(
        pl.any_horizontal(pl.col(n).str.contains(r"[-−–]") for n in ("minus", "second", "behind"))
        | ((pl.col("open") == "(") & (pl.col("close") == ")"))
    ).to_series()
    unbalanced = (parts["open"] == "(") != (parts["close"] == ")")
    value = value.set(unbalanced.fill_null(value=False), None)
    return value * minus.cast(pl.Int8).replace_strict({0: 1.0, 1: -1.0}, default=1.0, return_dtype=pl.Float64)
