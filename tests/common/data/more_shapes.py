"""More shapes of the log of ``shapes``: what stands above a header, how folders are cut, what typed files hold."""

from __future__ import annotations

import csv
import gzip
import json
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tests.common.data.shapes import HEADER, Row, Shape, at, changed, moment, rows, text, typed


def _folder(parts: dict[str, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        for name, content in parts.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)

    return write


def _several(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, start in (("d/a.csv", 0), ("d/b.csv", 200), ("d/c.csv", 400)):
            archive.writestr(name, text(rows()[start : start + 200]))
        archive.writestr("__MACOSX/._a.csv", b"\0\5")
        archive.writestr("d/empty.csv", b"")
        archive.writestr("readme.txt", b"hello, this is a text\nof two lines\n")


def _part(start: int, end: int, separator: str = ",", *, header: bool = True) -> bytes:
    return text(rows()[start:end], separator, header=header).encode()


def _records(change: Callable[[int, Row], dict[str, object]]) -> str:
    return "".join(json.dumps(change(number, row)) + "\n" for number, row in enumerate(rows()))


def _in_two_forms(row: Row) -> str:
    return unicodedata.normalize("NFD" if int(row["item"]) % 2 else "NFC", "Müller") + row["consumer"]


def _texts() -> dict[str, tuple[str | bytes, dict[str, object]]]:
    plain, lines = text(rows()), text(rows()).splitlines()
    found: dict[str, tuple[str | bytes, dict[str, object]]] = {
        "mixed_ends.csv": ("".join(line + ("\r\n" if i % 2 else "\n") for i, line in enumerate(lines)), {}),
        "padded.csv": (plain.encode() + b"\0" * 4096, {"extra": 1}),
        "control_z.csv": (plain.encode() + b"\x1a", {"extra": 1}),
        "sep_line.csv": ("sep=;\r\n" + text(rows(), ";", end="\r\n"), {}),
        "quoted_sep_line.csv": ('"sep=,"\n' + plain, {}),
        "title.csv": ("Report of events\nmade on 2024-05-01\n\n" + plain, {}),
        "wide_title.csv": ("Shop export,,,,,,,\n,,,,,,,\n" + plain, {}),
        "comments.csv": ("# made by x\n# v2\n" + plain, {}),
        "total.csv": (plain + "Total,,,,,31234.00,600,\n", {"extra": 1}),
        "trailing.csv": ("\n".join(line + "," for line in lines) + "\n", {}),
        "index.csv": ("," + lines[0] + "\n" + "\n".join(f"{i},{line}" for i, line in enumerate(lines[1:])), {}),
        "twice.csv": (lines[0] + ",price\n" + "\n".join(line + ",999" for line in lines[1:]), {}),
        "header_again.csv": ("\n".join([*lines[:200], lines[0], *lines[200:]]), {"extra": 1}),
        "spaced.csv": (plain.replace(",", ", "), {}),
        "spaced_quotes.csv": ("\n".join(", ".join(f'"{value}"' for value in row) for row in csv.reader(lines)), {}),
        "backslashes.csv": ("\n".join([lines[0] + ",title", *(f'{line},"a \\"b\\" {i}"' for i, line in enumerate(lines[1:]))]), {}),
        "tilde.csv": (text(rows(), "~"), {}),
        "hive_text.csv": (text(rows(), "\x01"), {}),
        "kept_zeros.csv": (text(changed(consumer=lambda row: f'="00{row["consumer"]}"', item=lambda row: f'="{row["item"]}"')), {"renamed": True}),
        "two_forms.csv": (text(changed(consumer=_in_two_forms)), {"renamed": True}),
        "cases.csv": (text(changed(consumer=lambda row: ("Ab", "aB")[int(row["consumer"]) % 2] + str(int(row["consumer"]) // 2))), {"renamed": True}),
        "wide_blanks.csv": (text(changed(consumer=lambda row: "\u00a0" + row["consumer"] + "\u2009")), {}),
        "leading_zeros.csv": (text(changed(consumer=lambda row: "00" + row["consumer"])), {"renamed": True}),
        "commas_in_ids.csv": (text(changed(consumer=lambda row: f"a,{row['consumer']}")), {"renamed": True}),
        "powers.csv": (text(changed(price=lambda row: f"{float(row['price']):.6e}")), {}),
        "after.csv": (text(changed(price=lambda row: f"{row['price']} CHF")), {}),
        "fractions.csv": (text(changed(timestamp=lambda row: f"{moment(row).replace(tzinfo=UTC).timestamp():.3f}")), {}),
        "two_forms_of_times.csv": (text(changed(timestamp=lambda row: row["timestamp"] if int(row["item"]) % 2 else moment(row).strftime("%d.%m.%Y %H:%M:%S"))), {}),
        "half_days.csv": (text(at("%Y-%m-%d %I:%M:%S %p")).replace(" AM", " a.m.").replace(" PM", " p.m."), {}),
        "many_columns.csv": ("\n".join(line + "," + ",".join(f"x{i}" for i in range(300)) for line in lines), {}),
        "marked.jsonl": (b"\xef\xbb\xbf" + _records(lambda _i, row: {**row}).encode(), {}),
        "utf-16.jsonl": (_records(lambda _i, row: {**row}).encode("utf-16"), {}),
        "mixed_types.jsonl": (_records(lambda i, row: {**row, "consumer": int(row["consumer"]) if i % 2 else row["consumer"]}), {}),
        "missing_keys.jsonl": (_records(lambda i, row: {k: v for k, v in row.items() if k != "quantity" or i % 2}), {}),
        "broken.jsonl": ("".join((json.dumps(row)[:-9] if i == 77 else json.dumps(row)) + "\r\n\r\n" for i, row in enumerate(rows())), {"lost": 1}),
        "columns.json": (json.dumps({name: [row[name] for row in rows()] for name in HEADER}), {}),
        "members.csv.gz": (gzip.compress(_part(0, 200)) + gzip.compress(_part(200, 600, header=False)), {}),
        "no_ending.csv": (gzip.compress(_part(0, 600)), {}),
    }  # fmt: skip
    for name, form in {"ansi.csv": "%a %b %d %H:%M:%S %Y", "brackets.csv": "[%d/%b/%Y:%H:%M:%S +0000]", "short_years.csv": "%d.%m.%y %H:%M:%S",
                       "file_names.csv": "%Y-%m-%d_%H-%M-%S", "basic.csv": "%Y%m%dT%H%M%S", "weekdays.csv": "%A %d %B %Y %H:%M:%S"}.items():  # fmt: skip
        found[name] = text(at(form)), {}
    return found


def _tables() -> dict[str, tuple[Callable[[Path], object], dict[str, object]]]:
    table, column = typed(), {name: [row[name] for row in rows()] for name in HEADER}
    backwards = "\n".join(
        ",".join(reversed(row))
        for row in csv.reader([",".join(HEADER), *text(rows()[300:], header=False).splitlines()])
    )
    packed = pa.compress(_part(400, 600), codec="zstd", asbytes=True)
    return {
        "decimal.parquet": (lambda path: table.with_columns(pl.col("price").cast(pl.Decimal(18, 2)), pl.col("consumer").cast(pl.Decimal(38, 0))).write_parquet(path), {}),
        "nanoseconds.parquet": (lambda path: table.with_columns(pl.col("timestamp").dt.cast_time_unit("ns").dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York")).write_parquet(path), {}),
        "categorical.parquet": (lambda path: table.with_columns(pl.col("event", "category", "site").cast(pl.Categorical)).write_parquet(path), {}),
        "dictionary.parquet": (lambda path: pq.write_table(pa.table({name: pa.array(values).dictionary_encode() for name, values in column.items()}), path), {}),
        "binary.parquet": (lambda path: pq.write_table(pa.table({**column, "consumer": pa.array([who.encode() for who in column["consumer"]])}), path), {}),
        "unsigned.parquet": (lambda path: table.with_columns(pl.col("consumer").cast(pl.UInt32)).write_parquet(path), {}),
        "day_and_clock.parquet": (lambda path: table.with_columns(date=pl.col("timestamp").dt.date(), time=pl.col("timestamp").dt.time()).drop("timestamp").write_parquet(path), {}),
        "seconds.parquet": (lambda path: table.with_columns(pl.col("timestamp").dt.epoch("s")).write_parquet(path), {}),
        "several.zip": (_several, {}),
        "mixed_packing": (_folder({"a.csv": _part(0, 200), "b.csv.gz": gzip.compress(_part(200, 400)), "c.csv.zst": packed}), {}),
        "empty_files": (_folder({"a.csv": _part(0, 300), "b.csv": b"", "c.csv": _part(300, 600), "d.csv": b"\n", "_SUCCESS": b""}), {}),
        "header_in_first": (_folder({"part-0.csv": _part(0, 300), "part-1.csv": _part(300, 600, header=False)}), {}),
        "header_only": (_folder({"a.csv": _part(0, 600), "b.csv": _part(0, 0)}), {}),
        "other_order": (_folder({"a.csv": _part(0, 300), "b.csv": backwards.encode()}), {}),
        "other_marks": (_folder({"a.csv": _part(0, 300), "b.csv": _part(300, 600, ";")}), {}),
        "other_kinds": (_folder({"a.csv": _part(0, 300), "b.jsonl": "".join(json.dumps(row) + "\n" for row in rows()[300:]).encode()}), {}),
        "other_encodings": (_folder({"a.csv": _part(0, 300), "b.csv": _part(300, 600).decode().encode("utf-16")}), {}),
        "months": (_folder({"2024/03/a.csv": _part(0, 300), "2024/04/b.csv": _part(300, 600)}), {}),
    }  # fmt: skip


def _made() -> dict[str, Shape]:
    found = {}
    for name, (content, differs) in _texts().items():
        data = content.encode() if isinstance(content, str) else content
        found[name] = Shape(name, lambda path, data=data: path.write_bytes(data), **differs)  # type: ignore[arg-type,misc]
    for name, (write, differs) in _tables().items():
        found[name] = Shape(name, write, **differs)  # type: ignore[arg-type]
    return found


MORE_SHAPES = _made()
