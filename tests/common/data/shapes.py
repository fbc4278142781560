"""One log in the shapes that people have it in: the same events, written in many ways. ``SHAPES``: name -> what is written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl

HEADER = ("consumer", "timestamp", "event", "item", "category", "price", "quantity", "site")
Row = dict[str, str]
START = datetime(2024, 3, 1, 8, 7, 3)
EVENTS = 600


def rows() -> list[Row]:
    """Events of forty consumers over seven weeks; no two are equal, days above twelve are there."""
    return list(_rows())


@cache
def _rows() -> tuple[Row, ...]:
    found = []
    for i in range(EVENTS):
        when = START + timedelta(minutes=113 * i)
        word = ("view", "cart", "purchase", "favourite")[i % 4]
        found.append(
            dict(zip(HEADER, (f"{1000 + i % 40}", when.isoformat(), word, f"{500 + i * 7 % 61}", f"{i * 7 % 61 % 5}",
                              f"{1 + i % 90}.{10 + i % 89}", "1", f"{i % 3}"), strict=True))
        )  # fmt: skip
    return tuple(found)


def text(
    table: list[Row], separator: str = ",", *, header: bool = True, names: tuple[str, ...] = HEADER, **kind: str
) -> str:
    """A delimited text."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=kind.get("end", "\n"))
    if header:
        writer.writerow(names)
    writer.writerows([row[name] for name in HEADER] for row in table)
    return out.getvalue()


def changed(**change: Callable[[Row], str]) -> list[Row]:
    """The events with other values in some columns."""
    return [{**row, **{name: of(row) for name, of in change.items()}} for row in rows()]


def moment(row: Row) -> datetime:
    """The time of an event."""
    return datetime.fromisoformat(row["timestamp"])


def at(form: str) -> list[Row]:
    """The events with their times in another form."""
    return changed(timestamp=lambda row: moment(row).strftime(form))


def epoch(factor: int) -> list[Row]:
    """The events with numbers since 1970."""
    return changed(timestamp=lambda row: str(int(moment(row).replace(tzinfo=UTC).timestamp() * factor)))


def typed() -> pl.DataFrame:
    """The events as typed columns."""
    frame = pl.DataFrame(rows())
    return frame.with_columns(
        pl.col("timestamp").str.to_datetime(),
        pl.col("consumer", "item", "quantity").cast(pl.Int64),
        pl.col("price").cast(pl.Float64),
    )


@dataclass(frozen=True)
class Shape:
    """A file or folder, and in what its log differs from the plain one.

    ``hours``: how far the times are moved; ``lost``: lines that drop themselves; ``renamed``: ids are other texts;
    ``minutes``: seconds are not written; ``no_site``: it has no site; ``extra``: lines beside the log, which drop themselves.
    """

    name: str
    write: Callable[[Path], object]
    hours: float = 0.0
    lost: int = 0
    renamed: bool = False
    minutes: bool = False
    no_site: bool = False
    extra: int = 0


@dataclass
class _All:
    found: dict[str, Shape] = field(default_factory=dict)

    def text(self, name: str, content: str | bytes, **differs: object) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.found[name] = Shape(name, lambda path: path.write_bytes(data), **differs)  # type: ignore[arg-type]

    def table(self, name: str, write: Callable[[Path], object], **differs: object) -> None:
        self.found[name] = Shape(name, write, **differs)  # type: ignore[arg-type]


def _weekly(folder: Path) -> None:
    folder.mkdir()
    days = sorted({row["timestamp"][:10] for row in rows()})
    for first in range(0, len(days), 7):
        week = days[first : first + 7]
        (folder / f"{week[0]}.csv").write_text(text([row for row in rows() if row["timestamp"][:10] in week]))
    (folder / "_SUCCESS").touch()


def _hive(folder: Path) -> None:
    for site in "012":
        (folder / f"site={site}").mkdir(parents=True)
        typed().filter(pl.col("site") == site).drop("site").write_parquet(folder / f"site={site}" / "a.parquet")


def _orders(folder: Path) -> None:
    folder.mkdir()
    lines, orders = ["order_id,product_id,unit_price,qty"], ["order_id,customer_id,created_at,store"]
    for number, row in enumerate(rows()):
        orders.append(f"{number},{row['consumer']},{row['timestamp']},{row['site']}")
        lines.append(f"{number},{row['item']},{row['price']},1")
    (folder / "orders.csv").write_text("\n".join(orders))
    (folder / "order_items.csv").write_text("\n".join(lines))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("export/events.csv", text(rows()))


def _make() -> dict[str, Shape]:
    plain, made = rows(), _All()
    for name, mark in {"commas.csv": ",", "semicolons.csv": ";", "tabs.tsv": "\t", "bars.csv": "|"}.items():
        made.text(name, text(plain, mark))
    made.text("crlf.csv", text(plain, end="\r\n"))
    made.text("old_mac.csv", text(plain, end="\r"))
    made.text("mark.csv", text(plain).encode("utf-8-sig"))
    for name in ("utf-16", "utf-16-le", "utf-32"):
        made.text(f"{name}.csv", text(plain).encode(name))
    made.text("upper.csv", text(plain, names=tuple(name.upper() for name in HEADER)))
    made.text("blanks.csv", text(plain, names=tuple(f" {name} " for name in HEADER)))
    made.text("aligned.txt", "\n".join(" ".join(f"{v:<22}" for v in row.values()) for row in [dict(zip(HEADER, HEADER, strict=True)), *plain]))  # fmt: skip
    made.text("names.csv", text(plain, names=("user_id", "event_time", "event_type", "product_id", "category_name", "unit_price", "qty", "shop")))  # fmt: skip
    made.text("german.csv", text(plain, ";", names=("Kundennr", "Zeitpunkt", "Aktion", "Artikelnr", "Warengruppe", "Preis", "Menge", "Filiale")))  # fmt: skip
    made.text("no_header.csv", text(plain, header=False))
    made.text("decimal_comma.csv", text(changed(price=lambda row: row["price"].replace(".", ",")), ";"))
    made.text("quoted_comma.csv", text(changed(price=lambda row: row["price"].replace(".", ","))))
    made.text("dollars.csv", text(changed(price=lambda row: "$" + row["price"])))
    made.text("euros.csv", text(changed(price=lambda row: row["price"].replace(".", ",") + " €")))
    for name, factor in {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}.items():
        made.text(f"epoch_{name}.csv", text(epoch(factor)))
    for name, form in {"z.csv": "%Y-%m-%dT%H:%M:%SZ", "slashes.csv": "%Y/%m/%d %H:%M:%S", "dots.csv": "%d.%m.%Y %H:%M:%S",
                       "day_first.csv": "%d/%m/%Y %H:%M:%S", "month_first.csv": "%m/%d/%Y %I:%M:%S %p",
                       "two_digits.csv": "%d/%m/%y %H:%M:%S", "compact.csv": "%Y%m%d%H%M%S", "month_name.csv": "%d %b %Y %H:%M:%S",
                       "access_log.csv": "%d/%b/%Y:%H:%M:%S +0000", "mail.csv": "%a, %d %b %Y %H:%M:%S GMT",
                       "milliseconds.csv": "%Y-%m-%d %H:%M:%S.000"}.items():  # fmt: skip
        made.text(name, text(at(form)))
    for name, form, hours in (("offset.csv", "%Y-%m-%dT%H:%M:%S+08:00", -8), ("short_offset.csv", "%Y-%m-%d %H:%M:%S+08", -8),
                              ("far_offset.csv", "%Y-%m-%d %H:%M:%S -0530", 5.5), ("cet.csv", "%Y-%m-%d %H:%M:%S CET", -1),
                              ("pst.csv", "%Y-%m-%d %H:%M:%S PST", 8)):  # fmt: skip
        made.text(name, text(at(form)), hours=hours)
    made.text("day_and_time.csv", "consumer,date,time,event,item,price,site\n" + "".join(
        f"{r['consumer']},{r['timestamp'][:10]},{r['timestamp'][11:]},{r['event']},{r['item']},{r['price']},{r['site']}\n" for r in plain))  # fmt: skip
    for name, code, word in (("cp1252.csv", "cp1252", "Müß"), ("gbk.csv", "gbk", "用户商品"), ("big5.csv", "big5", "使用者資料"),
                             ("shift_jis.csv", "shift_jis", "おきゃくさま"), ("euc_kr.csv", "euc_kr", "고객번호가나다라마바사아자"),
                             ("cyrillic.csv", "cp1251", "Покупатель"), ("unicode.csv", "utf-8", "用户商品")):  # fmt: skip
        people = changed(consumer=lambda row, word=word: word + row["consumer"], category=lambda row, word=word: word + row["category"])  # fmt: skip
        made.text(name, text(people).encode(code), renamed=True)
    tail = {name: (lambda row, name=name: row[name] + ".0") for name in ("consumer", "item", "category")}
    made.text("float_ids.csv", text(changed(**tail)))
    half = {
        name: (lambda row, name=name: row[name] + (".0" if int(row["quantity"] + row["item"]) % 2 else ""))
        for name in tail
    }
    made.text("half_float_ids.csv", text(changed(**half)))
    made.text("new_lines.csv", text(changed(category=lambda row: f'a "b"\n\nc, {row["category"]}')), renamed=True)
    made.text("all_quoted.csv", "\n".join(",".join(f'"{v}"' for v in row.values()) for row in [dict(zip(HEADER, HEADER, strict=True)), *plain]))  # fmt: skip
    lines = text(plain).splitlines()
    made.text("ragged.csv", "\n".join([*lines[:300], lines[300] + ",x,y", *lines[301:]]), lost=1)
    made.text("short.csv", "\n".join([*lines[:300], lines[300][:20], *lines[301:]]), lost=1)
    made.text("open_quote.csv", "\n".join([*lines[:300], '"' + lines[300], *lines[301:]]), lost=1)
    made.text(
        "inches.csv",
        "\n".join([lines[0] + ",title", *(f'{line},12" disc {i}' for i, line in enumerate(lines[1:]))]),
    )
    made.text("words.csv", text(changed(event=lambda row: {"view": "page_view", "cart": "Add to Cart", "purchase": "ORDER", "favourite": "wishlist"}[row["event"]])))  # fmt: skip
    records = "".join(json.dumps(row) + "\n" for row in plain)
    made.text("lines.jsonl", records)
    made.text("typed.jsonl", "".join(json.dumps({**row, "consumer": int(row["consumer"]), "price": float(row["price"])}) + "\n" for row in plain))  # fmt: skip
    made.text("nested.jsonl", "".join(json.dumps({"user": {"id": row["consumer"]}, "ts": row["timestamp"], "event": row["event"], "shop": row["site"],
              "items": [{"item_id": row["item"], "price": row["price"]}]}) + "\n" for row in plain))  # fmt: skip
    made.text("array.json", json.dumps(plain))
    made.text("indented.json", json.dumps(plain, indent=2))
    made.text("document.json", json.dumps({"events": plain}))
    made.text("lines.jsonl.gz", gzip.compress(records.encode()))
    made.text("packed.csv.gz", gzip.compress(text(plain).encode()))
    made.table("packed.zip", _zip)
    made.table("weekly", _weekly)
    made.table("hive", _hive)
    made.table("typed.parquet", lambda path: typed().write_parquet(path))
    made.table("feather.arrow", lambda path: typed().write_ipc(path))
    made.table("stream.arrows", lambda path: typed().write_ipc_stream(path))
    made.table(
        "floats.parquet",
        lambda path: typed().with_columns(pl.col("consumer", "item").cast(pl.Float64)).write_parquet(path),
    )
    made.table("zoned.parquet", lambda path: typed().with_columns(pl.col("timestamp").dt.replace_time_zone("Asia/Tokyo")).write_parquet(path), hours=-9)  # fmt: skip
    made.table(
        "epoch.parquet", lambda path: typed().with_columns(pl.col("timestamp").dt.epoch("ms")).write_parquet(path)
    )
    made.table("struct.parquet", lambda path: typed().select("consumer", "timestamp", "event", "site", pl.struct("item", "price").alias("product")).write_parquet(path))  # fmt: skip
    made.table("orders", _orders)
    return made.found


SHAPES = _make()
