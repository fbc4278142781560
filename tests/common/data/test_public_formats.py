"""Each preset reads a tiny file written by hand in that format."""

import gzip
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from common.data.events import EventLog, load_events, pseudonym
from common.data.formats import load_mapping
from common.data.presets import PRESETS, guess_format
from common.data.shop_presets import SHOP_PRESETS
from common.errors import BadInputError

SECRET = b"a secret of the site"

FILES = {
    "fedcart": (
        "consumer,timestamp,event,item,category,price,quantity,site\n"
        "ann,2024-03-01T10:00:00Z,view,lamp,light,19.90,,north\n"
        "ann,2024-03-01 10:01:00,purchase,lamp,light,19.90,2,north\n"
    ),
    "online-retail": (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,LAMP,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
        "C536379,85123A,LAMP,-1,12/2/2010 9:41,2.55,17850,United Kingdom\n"
    ),
    "complete-journey": (
        "household_id,store_id,basket_id,product_id,quantity,sales_value,week,transaction_timestamp\n"
        "906,319,31198705046,1075313,2.0,3.0,1,2017-01-01 12:30:27\n"
        "906,319,31198705046,900802,1.0,1.38,1,2017-01-01 12:30:27\n"
    ),
    "retailrocket": (
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433224214164,257597,transaction,355908,4000\n"
    ),
    "taobao": "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n",
    "yoochoose": "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n",
    "rees46": (
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n"
        "2019-10-01 00:00:04 UTC,purchase,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n"
    ),
}

EXPECTED = {
    "fedcart": (["view", "purchase"], ["lamp", "lamp"], datetime(2024, 3, 1, 10)),
    "online-retail": (["purchase", "cancel"], ["85123A", "85123A"], datetime(2010, 12, 1, 8, 26)),
    "complete-journey": (["purchase", "purchase"], ["1075313", "900802"], datetime(2017, 1, 1, 12, 30, 27)),
    "retailrocket": (["view", "purchase"], ["355908", "355908"], datetime(2015, 6, 2, 5, 2, 12, 117_000)),
    "taobao": (["view", "purchase"], ["2268318", "2333346"], datetime(2017, 11, 24, 17, 21, 10)),
    "yoochoose": (["view", "view"], ["214536502", "214536500"], datetime(2014, 4, 7, 10, 51, 9, 277_000)),
    "rees46": (["view", "purchase"], ["44600062", "44600062"], datetime(2019, 10, 1)),
}


def written(folder: Path, text: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def loaded(folder: Path, text: str, format_name: str) -> EventLog:
    return load_events(written(folder, text), format_name, secret=SECRET)[0]


def test_every_preset_has_a_sample_here() -> None:
    assert set(FILES) == set(PRESETS) - set(SHOP_PRESETS) == set(EXPECTED)


@pytest.mark.parametrize("name", FILES)
def test_a_preset_maps_events_items_and_times(name: str, tmp_path: Path) -> None:
    frame = loaded(tmp_path, FILES[name], name).frame
    events, items, first = EXPECTED[name]
    assert frame["event"].cast(pl.String).to_list() == events
    assert frame["item"].to_list() == items
    assert frame["timestamp"][0] == first


@pytest.mark.parametrize("name", FILES)
def test_a_format_is_recognised_by_its_first_line(name: str) -> None:
    assert guess_format(FILES[name].splitlines()[0].split(",")) == name


@pytest.mark.parametrize("name", FILES)
def test_gzip_gives_the_same_log_as_plain_text(name: str, tmp_path: Path) -> None:
    packed = tmp_path / "events.csv.gz"
    packed.write_bytes(gzip.compress(FILES[name].encode()))
    log, _ = load_events(packed, name, secret=SECRET)
    assert log.frame.equals(loaded(tmp_path, FILES[name], name).frame)


@pytest.mark.parametrize("name", [name for name in FILES if not PRESETS[name][0].names])
def test_parquet_gives_the_same_log_as_text(name: str, tmp_path: Path) -> None:
    log, _ = load_events(written(tmp_path, FILES[name]), name, secret=SECRET)
    table = tmp_path / "events.parquet"
    pl.read_csv(tmp_path / "events.csv", infer_schema=False).write_parquet(table)
    assert load_events(table, name, secret=SECRET)[0].frame.equals(log.frame)


def test_typed_parquet_columns_are_understood(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 1, 12)
    table = pl.DataFrame({"consumer": [17850.0], "timestamp": [moment], "event": ["view"], "item": [7]})
    table = table.with_columns(pl.col("timestamp").dt.replace_time_zone("Europe/Berlin"))
    table.write_parquet(tmp_path / "typed.parquet")
    log, _ = load_events(tmp_path / "typed.parquet", "fedcart", secret=SECRET)
    assert log.consumers.tolist() == [pseudonym("17850", SECRET)]
    assert log.frame["timestamp"][0] == datetime(2024, 5, 1, 10)  # UTC


def test_the_price_of_a_total_is_divided_by_the_quantity(tmp_path: Path) -> None:
    assert loaded(tmp_path, FILES["complete-journey"], "complete-journey").frame[
        "price"
    ].to_list() == pytest.approx([1.5, 1.38])


def test_products_beside_the_transactions_give_categories(tmp_path: Path) -> None:
    written(tmp_path, "product_id,product_category\n1075313,FRUIT\n", "products.csv")
    frame = loaded(tmp_path, FILES["complete-journey"], "complete-journey").frame
    assert frame["category"].to_list() == ["FRUIT", None]


def test_yoochoose_buys_are_told_from_clicks_by_their_columns(tmp_path: Path) -> None:
    frame = loaded(tmp_path, "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n", "yoochoose").frame
    assert frame["event"].to_list() == ["purchase"]
    assert frame["price"].to_list() == [12462]


def test_a_cancellation_keeps_its_size_and_loses_its_sign(tmp_path: Path) -> None:
    frame = loaded(tmp_path, FILES["online-retail"], "online-retail").frame
    assert frame["quantity"].to_list() == [6, 1]


def test_an_id_with_a_spreadsheet_tail_is_the_same_consumer(tmp_path: Path) -> None:
    log = loaded(tmp_path, FILES["online-retail"], "online-retail")
    assert log.consumers.tolist() == [pseudonym("17850", SECRET)]


def test_a_mapping_of_ones_own_reads_a_foreign_file(tmp_path: Path) -> None:
    mapping = tmp_path / "shop.toml"
    mapping.write_text(
        'separator = ";"\ntime = "seconds"\n'
        '[columns]\nconsumer = "kunde"\ntimestamp = "zeit"\nevent = "was"\nitem = "artikel"\n'
        '[events]\nkauf = "purchase"\n'
    )
    path = written(tmp_path, "kunde;zeit;was;artikel\n7;1511544070;Kauf;9\n7;1511544071;tanz;9\n")
    log, report = load_events(path, str(mapping), secret=SECRET)
    assert log.frame["event"].to_list() == ["purchase", "other"]
    assert report.found("unknown-event") == 1
    assert report.status == "warn"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[columns]\nconsumer = 'a'\n", "timestamp"),
        ("[columns]\nconsumer = 'a'\ntimestamp = 'b'\n", "default_event"),
        ("[columns]\nconsumer = 'a'\ntimestamp = 'b'\nshoe = 'c'\n", "shoe"),
        ("default_event = 'dance'\n[columns]\nconsumer = 'a'\ntimestamp = 'b'\n", "dance"),
        ("colour = 1\ndefault_event = 'view'\n[columns]\nconsumer = 'a'\ntimestamp = 'b'\n", "colour"),
        ("time = = 1", "TOML"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_reason(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text, "map.toml")
    with pytest.raises(BadInputError, match=said):
        load_mapping(path)


@pytest.mark.parametrize("wanted", ["country", "Country", "COUNTRY", "site"])
def test_a_site_column_is_found_whatever_its_case(wanted: str, tmp_path: Path) -> None:
    path = written(tmp_path, FILES["online-retail"])
    log, _ = load_events(path, "online-retail", secret=SECRET, site_column=wanted)
    assert log.sites == ("United Kingdom",)


def test_store_means_store_id(tmp_path: Path) -> None:
    path = written(tmp_path, FILES["complete-journey"])
    log, _ = load_events(path, "complete-journey", secret=SECRET, site_column="store")
    assert log.sites == ("319",)


def test_a_split_by_an_unknown_column_names_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path, FILES["online-retail"])
    with pytest.raises(BadInputError, match="Country"):
        load_events(path, "online-retail", secret=SECRET, site_column="planet")
