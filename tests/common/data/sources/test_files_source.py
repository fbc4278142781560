"""Files through SQL: nested exports become events; the query sees the named files and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.data import joined
from common.data.formats import Mapping
from common.data.sources.opening import open_source
from common.data.store.source_log import SourceLog
from common.errors import BadInputError
from common.source_settings import SourceSettings

pytest.importorskip("duckdb", reason="the extra files is not installed")
SECRET = b"s" * 32

GA4 = """
SELECT user_pseudo_id AS consumer, event_timestamp AS timestamp, event_name AS event,
       item.item_id AS item, item.item_category AS category, item.price AS price, item.quantity AS quantity,
       (SELECT p.value.string_value FROM (SELECT unnest(event_params) AS p) WHERE p.key = 'shop') AS site
FROM events, unnest(items) AS one(item)
"""


def ga4_export(folder: Path) -> Path:
    """Daily files of nested events, as GA4 exports them: two items in each event, parameters as key and value."""
    days = folder / "export"
    days.mkdir()
    for day in (1, 2):
        with (days / f"events_2024030{day}.jsonl").open("w") as file:
            for i in range(40):
                stamp = 1_709_251_200_000_000 + (day * 86_400 + i * 60) * 1_000_000
                items = [
                    {"item_id": f"i{(i + k) % 7}", "item_category": "c", "price": 2.5, "quantity": 1 + k}
                    for k in (0, 1)
                ]
                params = [
                    {"key": "page", "value": {"string_value": None, "int_value": 7}},
                    {"key": "shop", "value": {"string_value": f"s{i % 2}", "int_value": None}},
                ]
                row = {"user_pseudo_id": f"u{i % 9}.{day}", "event_timestamp": stamp, "event_name": "purchase", "items": items,
                       "event_params": params}  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return days


def settings(**more: Any) -> SourceSettings:
    tree: dict[str, Any] = {"kind": "files", "files": {"events": "export/*.jsonl"}, "query": GA4} | more
    return SourceSettings.model_validate(tree)


def read(folder: Path, told: SourceSettings) -> Any:
    mapping = Mapping(name="ga4", time="microseconds", columns={
        name: name for name in ("consumer", "timestamp", "event", "item", "category", "price", "quantity", "site")
    })  # fmt: skip
    return joined(SourceLog(open_source(told, folder), "", mapping, SECRET, folder, "ga4").pieces()).frame


def test_a_nested_export_is_read_by_a_query(tmp_path: Path) -> None:
    ga4_export(tmp_path)
    frame = read(tmp_path, settings())
    assert len(frame) == 2 * 40 * 2
    assert frame["consumer"].n_unique() == 18 and frame["item"].n_unique() == 7
    assert set(frame["site"]) == {"s0", "s1"} and frame["quantity"].sum() == 2 * 40 * 3
    assert str(frame["timestamp"].min())[:10] == "2024-03-02"


def test_tables_are_joined_and_filtered(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("order,who,moment\n1,a,2024-01-01 10:00:00\n2,b,2024-01-02 10:00:00\n")
    (tmp_path / "lines.csv").write_text("order,sku,price\n1,x,2.5\n1,y,3\n2,x,2.5\n2,z,0.1\n")
    query = """SELECT who AS consumer, moment AS timestamp, 'purchase' AS event, sku AS item, price,
        NULL AS category, NULL AS quantity, NULL AS site FROM orders JOIN lines USING ("order") WHERE TRY_CAST(price AS DOUBLE) > 1"""
    told = settings(files={"orders": "orders.csv", "lines": "lines.csv"}, query=query)
    mapping = Mapping(name="own", columns={n: n for n in ("consumer", "timestamp", "event", "item", "price")})
    frame = joined(SourceLog(open_source(told, tmp_path), "", mapping, SECRET, tmp_path, "x").pieces()).frame
    assert len(frame) == 3 and set(frame["item"]) == {"x", "y"}


@pytest.mark.parametrize(
    "query",
    ["SELECT * FROM read_text('{secret}')", "SELECT * FROM '{secret}'", "COPY events TO '{out}'", "ATTACH '{out}' AS o",
     "SELECT 1; SELECT 2", "INSTALL httpfs", "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
     "SET enable_external_access = true", "SELECT * FROM glob('{folder}/*')"],
)  # fmt: skip
def test_a_query_reaches_nothing_but_the_named_files(tmp_path: Path, query: str) -> None:
    ga4_export(tmp_path)
    secret, out = tmp_path / "secret.txt", tmp_path / "out"
    secret.write_text("consumer,timestamp\nhidden,2024-01-01\n")
    with pytest.raises(BadInputError, match=r"DuckDB refuses|not one SELECT") as caught:
        read(tmp_path, settings(query=query.format(secret=secret, out=out, folder=tmp_path)))
    assert "hidden" not in caught.value.message and caught.value.hint
    assert not out.exists()


def test_a_view_without_a_file_and_an_address_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no file for the view events"):
        read(tmp_path, settings())
    with pytest.raises(BadInputError, match="is not on this machine"):
        read(tmp_path, settings(files={"events": "s3://bucket/x.parquet"}))
