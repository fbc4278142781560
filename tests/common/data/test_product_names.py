"""Names of items are read for the catalogue, from the log or the products file, and kept with it."""

from pathlib import Path

import pytest

from common.data.catalogue import catalogue_from_events, read_catalogue, write_catalogue
from common.data.events import load_events
from common.data.product_names import product_names
from common.errors import BadInputError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
LINES = "".join(
    f"{n},{item},{name},1,2011-01-0{n} 10:00:00,1.0,1.0,France\n"
    for n, (item, name) in enumerate([("a", "RED OWL"), ("a", "RED OWL"), ("a", "damaged"), ("b", "")], start=1)
)


@pytest.fixture
def retail(tmp_path: Path) -> Path:
    path = tmp_path / "online_retail.csv"
    path.write_text(HEADER + LINES)
    return path


def test_an_item_has_its_most_frequent_name(retail: Path) -> None:
    assert product_names(retail, "online-retail") == {"a": "RED OWL"}


def test_a_format_without_names_has_none(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("consumer,timestamp,event,item\n1,2026-01-01 10:00:00,view,a\n")
    assert product_names(path, "fedcart") == {}


def test_names_are_part_of_the_catalogue_and_of_its_digest(retail: Path, tmp_path: Path) -> None:
    log, _ = load_events(retail, "online-retail", secret=bytes(32))
    plain, named = (catalogue_from_events(log, names=names) for names in ({}, {"a": "RED OWL"}))
    assert (plain.names, named.names) == ((), ("RED OWL", ""))
    assert plain.digest() != named.digest()
    write_catalogue(named, tmp_path / "catalogue.json")
    assert read_catalogue(tmp_path / "catalogue.json").names == named.names
    assert read_catalogue(tmp_path / "catalogue.json").digest() == named.digest()


def test_a_declared_table_may_name_its_items(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text("item,category,name\na,toys,Red owl\nb,,\n")
    assert read_catalogue(path).names == ("Red owl", "")


def test_a_catalogue_with_too_few_names_is_refused(retail: Path, tmp_path: Path) -> None:
    log, _ = load_events(retail, "online-retail", secret=bytes(32))
    path = tmp_path / "catalogue.json"
    write_catalogue(catalogue_from_events(log, names={"a": "RED OWL"}), path)
    path.write_text(path.read_text().replace('["RED OWL",""]', '["RED OWL"]'))
    with pytest.raises(BadInputError, match="1 names for 2 items"):
        read_catalogue(path)
