"""Cleaning with a count, a reason and an example for every line that is dropped and every value that is changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import common.data.reading as reading
from common.data.counting import DUPLICATE, REMOVED, SAME_DAY, Counted, Examples, RuleCount
from common.data.formats import COLUMNS, EVENT_TYPES, Mapping
from common.data.reading import LINE
from common.data.rules import line_rules, report_rules
from common.data.typed import COUNTED_ONLY, typed_lines
from common.data.values.words import plain_text, without_float_tail
from common.errors import BadInputError

__all__ = [
    "NO_SITE",
    "CleaningReport",
    "Counted",
    "RuleCount",
    "Settled",
    "clean",
    "judge",
    "settle",
    "typed_lines",
]

NO_SITE = "(none)"
"""The site of a line that names none."""
WARN_SHARE = 0.01
"""A file that loses more than this share of its lines, or of their values, is reported with a warning."""

_DAY_US = 86_400_000_000
_ALWAYS_WARN = ("unknown-event", "rounded-id", "rounded-item", "unreadable", "repeated-on-a-day")


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning did with a file: every line is kept or dropped for a stated reason.

    ``sites_lost`` names the sites that appear in the file but have no usable line. ``notes`` say what the file was taken
    for, ``passed_over`` the files of its kind that are no events by its columns, ``constant`` the features that its format has the same value of in every line. Of text: ``physical`` lines = header lines + ``blank`` + ``spanned`` (further lines of records that go over several)
    + ``lines``.
    """

    source: str
    format: str
    lines: int
    kept: int
    consumers: int
    items: int
    sites: int
    sites_lost: tuple[str, ...]
    first: str
    last: str
    rules: tuple[RuleCount, ...]
    headers: int = 0
    blank: int = 0
    spanned: int = 0
    notes: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Lines that were left out."""
        return self.lines - self.kept

    @property
    def physical(self) -> int:
        """Lines of the file, counted from what became of them."""
        return self.headers + self.blank + self.spanned + self.lines

    @property
    def removed(self) -> int:
        """Values that were removed from lines that stay or not."""
        return sum(count.found for count in self.rules if count.action == REMOVED)

    @property
    def status(self) -> str:
        """ "ok", or "warn" if more than 1 % of the lines or of their values were lost, or a rule speaks of doubt."""
        losses = max(self.dropped, self.removed) > WARN_SHARE * self.lines
        return "warn" if losses or self.passed_over or any(self.found(rule) for rule in _ALWAYS_WARN) else "ok"

    def found(self, rule: str) -> int:
        """Lines that met a rule."""
        return next((count.found for count in self.rules if count.rule == rule), 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            **asdict(self),
            "dropped": self.dropped,
            "removed": self.removed,
            "physical": self.physical,
            "status": self.status,
        }


@dataclass(frozen=True)
class Settled:
    """Kept lines in the columns and order of an event log, and what was counted on the way."""

    frame: pl.DataFrame
    counted: Counted


def clean(
    lines: pl.DataFrame, mapping: Mapping, source: str, before: Counted | None = None
) -> tuple[pl.DataFrame, CleaningReport]:
    """Apply every rule, sort by consumer and time, and report. ``before``: what was counted while the lines were read."""
    usable, count = judge(lines, mapping)
    settled = settle(usable, mapping)
    count = (before or Counted()) + count + settled.counted
    sites = set(lines["site"].drop_nulls().unique()) if "site" in lines.columns else set()
    return settled.frame, report_of(settled.frame, count, mapping, source, sites)


def judge(lines: pl.DataFrame, mapping: Mapping, name: str = "") -> tuple[pl.DataFrame, Counted]:
    """The lines that no rule about a single line drops, and what the rules found. ``name`` goes before an example.

    Guarantee: each line is judged alone, so a log that is judged in batches gives the same lines and sums.
    """
    rules = line_rules(mapping)
    hits = lines.select(rule.found.fill_null(value=False).alias(rule.name) for rule in rules)
    drops = [(rule.name, rule.drops) for rule in rules if rule.drops is not None]
    reason = pl.coalesce(
        *(pl.when(condition).then(pl.lit(i, dtype=pl.Int8)) for i, (_, condition) in enumerate(drops)),
        pl.lit(-1, dtype=pl.Int8),
    )
    reasons = lines.select(reason.alias("reason"))["reason"].to_numpy()
    dropped = np.bincount(reasons + 1, minlength=len(drops) + 1)[1:]
    counts = Counter({rule: int(n) for (rule, _), n in zip(drops, dropped, strict=True) if n})
    found = Counter({rule.name: int(n) for rule in rules if (n := hits[rule.name].sum())})
    examples = Examples({r.name: _example(lines, hits[r.name], r.shows, name) for r in rules if found[r.name]})
    kept = lines.select(name for name in lines.columns if name not in COUNTED_ONLY).filter(pl.Series(reasons < 0))
    return kept, Counted(lines.height, found, counts, examples=examples)


def _example(lines: pl.DataFrame, hits: pl.Series, shows: str, name: str) -> str:
    """Where a rule first found something and, if it is no id of a person, what."""
    place = int(hits.arg_max() or 0)
    where = f"line {lines[LINE][place]}" if LINE in lines.columns else f"record {place + 1}"
    value = lines[shows][place] if shows in lines.columns else None
    return f"{name}{where}" + (f": {value[:60]!r}" if value is not None else "")


def settle(usable: pl.DataFrame, mapping: Mapping) -> Settled:
    """Sort judged lines by consumer and time, leave out repeats, and make every change of the rules.

    Guarantee: what becomes of a consumer's lines depends on that consumer's lines only.
    """
    order, counted = _order(usable)
    return Settled(_repair(usable, mapping)[order], counted)


def report_of(
    kept: pl.DataFrame, count: Counted, mapping: Mapping, source: str, sites_seen: set[str]
) -> CleaningReport:
    """The report of a log that is in memory as a whole."""

    def distinct(name: str) -> int:
        return kept[name].drop_nulls().n_unique() if name in kept.columns else 0

    lost = sites_seen - set(kept["site"].unique()) if "site" in kept.columns else set()
    return CleaningReport(
        source=source,
        format=mapping.name,
        lines=count.lines,
        kept=kept.height,
        consumers=distinct("consumer"),
        items=distinct("item"),
        sites=distinct("site"),
        sites_lost=tuple(sorted(lost)),
        first=str(kept["timestamp"].min() or ""),
        last=str(kept["timestamp"].max() or ""),
        rules=report_rules(mapping, count),
        blank=count.blank,
        spanned=count.spanned,
        headers=count.headers,
    )


def refuse_unusable(report: CleaningReport) -> None:
    """Return if a file has a usable line. Raises: BadInputError with the reasons, for the operator's eyes."""
    if report.kept:
        return
    if not report.lines:
        raise BadInputError(f"{report.source} has a header but no lines", hint="export the events again")
    lost = [r for r in report.rules if r.dropped]
    reasons = ", ".join(f"{r.dropped} {r.rule}" + (f" ({r.example})" if r.example else "") for r in lost)
    untimed = any(r.rule == "no-time" for r in lost)
    hint = 'name the form in a mapping, as in time_formats = ["%d/%m/%Y %H:%M"] or time = "milliseconds"'
    raise BadInputError(
        f"none of the {report.lines} lines of {report.source} is usable: {reasons}",
        hint=hint if untimed else "check that the format is the right one: fedcart data check FILE recognises it",
    )


def empty_report(source: str, format_name: str) -> CleaningReport:
    """The report of a file in which nothing is."""
    return CleaningReport(source, format_name, 0, 0, 0, 0, 0, (), "", "", ())


def add_product_categories(frame: pl.DataFrame, mapping: Mapping, path: Path | str) -> pl.DataFrame:
    """Give items their category from the products file beside ``path``, where the mapping names one.

    Raises: BadInputError if the file is there but cannot be read or lacks its columns.
    """
    spec = mapping.products
    if spec is None:
        return frame
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    beside = next((folder / name for name in spec.files if (folder / name).exists()), None)
    if beside is None:
        return frame
    header = reading.first_line(beside)
    missing = [column for column in (spec.item, spec.category) if column not in header]
    if missing:
        raise BadInputError(
            f"{beside} lacks the columns {', '.join(missing)}", hint="see `products` in docs/data.md"
        )
    table = reading.scan(beside, (spec.item, spec.category))
    texts = {
        name: without_float_tail(plain_text(table[of]))
        for name, of in (("item", spec.item), ("category", spec.category))
    }
    known = pl.DataFrame(texts).drop_nulls().unique("item", keep="first", maintain_order=True)
    category = frame["item"].replace_strict(known["item"], known["category"], default=None, return_dtype=pl.String)
    return frame.with_columns(category.fill_null(frame["category"]).alias("category"))


def _repair(lines: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """The lines with every change of ``_rules`` made, in the columns and types of an event log."""
    price, size = pl.col("price"), pl.col("quantity").abs()
    if mapping.price_is_total:
        price = pl.when(size > 0).then(price / size)
    event = (
        pl.when(pl.col("cancelled")).then(pl.lit("cancel", dtype=pl.Enum(EVENT_TYPES))).otherwise(pl.col("event"))
    )
    columns: list[pl.Expr | str] = [
        "consumer",
        "timestamp",
        event.alias("event"),
        "item",
        "category",
        pl.when((price > 0) & (price <= mapping.max_price)).then(price).cast(pl.Float32).alias("price"),
        pl.when((size > 0) & (size <= mapping.max_quantity)).then(size).cast(pl.Float32).alias("quantity"),
    ]
    if "site" in lines.columns:
        columns.append(pl.col("site").fill_null(NO_SITE))
    return lines.select(columns)


def _order(lines: pl.DataFrame) -> tuple[NDArray[np.intp], Counted]:
    """Positions of the kept lines by consumer and time, with the number of repeats and of lines out of order.

    A time of midnight says a day only: two equal lines of one day are two events, and stay.
    """
    rows = np.arange(lines.height)
    keys = lines.select("consumer", "timestamp")
    order = keys.select(pl.arg_sort_by("consumer", "timestamp", maintain_order=True)).to_series().to_numpy()
    consumer, time = keys["consumer"].to_numpy()[order], keys["timestamp"].to_numpy()[order]
    rows = rows[order]
    same = (consumer[1:] == consumer[:-1]) if len(rows) else np.zeros(0, dtype=np.bool_)
    disorder = int((same & (rows[1:] < rows[:-1])).sum())
    # only lines that share consumer and time can be equal: compare those, not the whole log
    tied = np.zeros(len(rows), dtype=np.bool_)
    equal = same & (time[1:] == time[:-1]) if len(rows) else same
    tied[1:] = equal
    tied[:-1] |= equal
    candidates = np.flatnonzero(tied)
    compared = [name for name in COLUMNS if name in lines.columns] + ["cancelled"]
    first = lines.select(compared)[rows[candidates]].select(pl.struct(pl.all()).is_first_distinct()).to_series()
    again = np.zeros(len(rows), dtype=np.bool_)
    again[candidates] = ~first.to_numpy()
    day_only = again & (time.astype("datetime64[us]").astype(np.int64) % _DAY_US == 0)
    repeats = again & ~day_only
    found = {
        rule: f"line {lines[LINE][int(rows[where][0])]}"
        for rule, where in ((DUPLICATE, repeats), (SAME_DAY, day_only))
        if LINE in lines.columns and where.any()
    }
    counted = Counted(
        repeats=int(repeats.sum()), disorder=disorder, same_day=int(day_only.sum()), examples=Examples(found)
    )
    return rows[~repeats], counted
