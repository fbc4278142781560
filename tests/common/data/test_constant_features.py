"""What a format says is the same in every line: read from the mapping, never from lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data import load_events
from common.data.formats import Mapping
from common.run import build_config
from simulations.prepare import constant_features, deal_data

COLUMNS = {"consumer": "who", "timestamp": "at", "item": "what"}


@pytest.mark.parametrize(
    ("more", "constant"),
    [
        ({"default_event": "view"}, ("event", "category", "price")),
        ({"columns": COLUMNS | {"event": "did"}}, ("category", "price")),
        ({"default_event": "purchase", "columns": COLUMNS | {"price": "paid"}}, ("event", "category")),
        ({"default_event": "purchase", "cancel": {"column": "bill", "prefix": "C"}}, ("category", "price")),
        ({"default_event": "view", "columns": COLUMNS | {"category": "kind"}}, ("event", "price")),
    ],
)
def test_a_mapping_says_what_never_changes(more: dict[str, object], constant: tuple[str, ...]) -> None:
    assert Mapping.model_validate({"name": "own", "columns": COLUMNS} | more).constant_features == constant


def test_a_simulation_leaves_out_what_the_columns_of_its_log_lack(tmp_path: Path) -> None:
    lines = [f"c{who},2025-01-0{day},view,i{(who + day) % 7}" for who in range(60) for day in (1, 2, 3)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["consumer,timestamp,event,item", *lines]))
    assert load_events(log, secret=bytes(32))[1].constant == ("category", "price")
    config = build_config({}, [f"data.events={log}", "data.sites=3", "data.min_population=5"])
    found = constant_features(deal_data(config))
    assert found == ("category", "price")
    assert not set(found) & set(config.without(found).model.context)
