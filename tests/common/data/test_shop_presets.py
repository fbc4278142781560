"""Each preset of an export reads a tiny file written by hand in that format, and the file is recognised."""

import json
from pathlib import Path

import pytest

from common.data.events import load_events
from common.data.shop_presets import SHOP_PRESETS

GA4 = [
    {"event_timestamp": 1709287200000000, "event_name": "page_view", "user_pseudo_id": "u1.5", "items": []},
    {"event_timestamp": 1709287201000000, "event_name": "view_item", "user_pseudo_id": "u1.5",
     "items": [{"item_id": "A", "item_category": "k", "price": 3.5}]},
    {"event_timestamp": 1709287202000000, "event_name": "purchase", "user_pseudo_id": "u1.5",
     "items": [{"item_id": "A", "price": 3.5, "quantity": 2}, {"item_id": "B", "price": 1, "quantity": 1}]},
]  # fmt: skip
SEGMENT = [
    {"anonymousId": "a", "timestamp": "2024-03-01T10:00:00.123Z", "event": event, "type": "track",
     "properties": {"product_id": "p1", "price": "12.5"}}
    for event in ("Product Viewed", "Product Added", "Order Completed")
]  # fmt: skip
MATOMO = [
    {"visitorId": "v", "idSite": 1, "actionDetails": [
        {"type": "action", "timestamp": 1709287200, "productViewSku": "S1", "productViewPrice": 5},
        {"type": "search", "timestamp": 1709287260}]},
]  # fmt: skip


def lines(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


SAMPLES = {
    "ga4": (lines(GA4), ["other", "view", "purchase", "purchase"], [None, "A", "A", "B"]),
    "segment": (lines(SEGMENT), ["view", "cart", "purchase"], ["p1"] * 3),
    "matomo": (lines(MATOMO), ["view", "search"], ["S1", None]),
    "otto": (
        '{"session":1,"events":[{"aid":7,"ts":1709287200000,"type":"clicks"},{"aid":8,"ts":1709287201000,"type":"orders"}]}\n',
        ["view", "purchase"],
        ["7", "8"],
    ),
    "snowplow": (
        "domain_userid\tcollector_tstamp\tevent_name\tti_sku\n"
        "d1\t2024-03-01 10:00:00.123\tpage_ping\t\nd1\t2024-03-01 10:00:01.123\ttransaction_item\tS\n",
        ["other", "purchase"],
        [None, "S"],
    ),
    "shopify-orders": (
        "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n"
        "#1,a@x.org,paid,2024-03-01 10:00:00 -0500,1,Mug,12.50,M1\n#1,,,,2,Cup,2.50,C1\n"
        "#2,b@x.org,paid,2024-03-02 10:00:00 -0500,1,Mug,12.50,M1\n",
        ["purchase"] * 3,
        ["C1", "M1", "M1"],
    ),
    "woocommerce-orders": (
        "Order Number,Order Date,Email (Billing),SKU,Item Name,Quantity,Item Cost\n"
        "7,2024-03-01 10:00,a@x.org,M1,Mug,1,12.5\n7,,,C1,Cup,2,2.5\n",
        ["purchase"] * 2,
        ["C1", "M1"],
    ),
    "magento-orders": (
        "increment_id,customer_email,created_at,store_id,sku,name,qty_ordered,price\n"
        "100,a@x.org,2024-03-01 10:00:00,1,M1,Mug,1.0000,12.5000\n",
        ["purchase"],
        ["M1"],
    ),
    "recbole": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5.0\t1709287200.0\n1\t3\t4.0\t1709287201\n",
        ["view"] * 2,
        ["2", "3"],
    ),
    "online-retail-2": (
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
        '489434,85048,"15CM, GLASS",12,2009-12-01 07:45:00,6.95,13085.0,United Kingdom\n'
        "C489435,85048,X,-1,2009-12-01 07:46:00,6.95,13085.0,United Kingdom\n",
        ["purchase", "cancel"],
        ["85048"] * 2,
    ),
}


def test_every_preset_has_a_sample_here() -> None:
    assert set(SAMPLES) == set(SHOP_PRESETS)


@pytest.mark.parametrize("chosen", ["named", "recognised"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_preset_maps_events_items_and_times(name: str, chosen: str, tmp_path: Path) -> None:
    content, events, items = SAMPLES[name]
    path = tmp_path / "export"
    path.write_text(content)
    log, report = load_events(path, name if chosen == "named" else "auto", secret=b"secret")
    assert report.format == name
    assert report.dropped == 0
    assert sorted(log.frame["event"].cast(str).to_list()) == sorted(events)
    assert sorted(log.frame["item"].to_list(), key=str) == sorted(items, key=str)
    assert report.first[:4] in ("2024", "2009")
