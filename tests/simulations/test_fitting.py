"""What a log lacks is made up for with a word where the settings leave it open, and refused where a user has chosen."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cli.opening import log_rows
from common.errors import BadInputError
from common.run import build_config
from simulations.prepare import DealtData, deal_data

LINES = range(3_000)


def shop(folder: Path, **columns: list[str] | None) -> Path:
    """150 consumers over four months; a column None is left out."""
    every: dict[str, Any] = {
        "consumer": [f"u{i % 150}" for i in LINES],
        "timestamp": [f"2024-{1 + i % 4:02d}-{1 + i % 28:02d}T{i % 24:02d}:00:{i % 60:02d}" for i in LINES],
        "event": ["view", "cart", "purchase"] * 1_000,
        "item": [f"i{i * 7 % 30}" for i in LINES],
        "price": [1.0 + i % 7 for i in LINES],
        "site": [f"s{i % 150 % 4}" for i in LINES],
    } | columns
    path = folder / "shop.csv"
    pl.DataFrame({name: values for name, values in every.items() if values is not None}).write_csv(path)
    return path


def dealt(path: Path, **sections: Any) -> DealtData:
    data = {"events": str(path)} | sections.pop("data", {})
    return deal_data(build_config({"data": data, **sections}))


def said(world: DealtData) -> str:
    return " | ".join(world.data["fitted"])


def test_a_log_without_items_learns_what_it_can(tmp_path: Path) -> None:
    world = dealt(shop(tmp_path, item=None))
    assert set(world.config.model.heads) == {"next-event"}
    assert "names an item" in said(world)


def test_a_log_without_items_is_refused_where_items_alone_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="names an item") as error:
        dealt(shop(tmp_path, item=None), model={"heads": {"next-item": 1.0}})
    assert "sales" in str(error.value.hint)


@pytest.mark.parametrize("site", ["with", "without"])
def test_sales_need_neither_items_nor_sites(tmp_path: Path, site: str) -> None:
    sales = {"start": "2024-01-01", "periods": 120, "categories": ["all"]}
    lacks: dict[str, None] = {"item": None} | ({"site": None} if site == "without" else {})
    world = dealt(shop(tmp_path, **lacks), task="sales", sales=sales)
    assert len(world.partition.sites) == (8 if site == "without" else 4)
    assert "sales need none" in said(world)


def test_small_sites_stay_where_too_few_would_be_left(tmp_path: Path) -> None:
    world = dealt(shop(tmp_path))
    assert world.partition.names == ("s0", "s1", "s2", "s3") and "stay as they are" in said(world)


def test_a_log_of_two_sites_is_dealt_by_consumer(tmp_path: Path) -> None:
    world = dealt(shop(tmp_path, site=[f"s{i % 150 % 2}" for i in LINES]))
    assert len(world.partition.sites) == 8 and "the log has 2 sites, 3 are needed" in said(world)


@pytest.mark.parametrize("chosen", [{"min_population": 100}, {"split_by": "site", "min_population": 1}])
def test_what_a_user_chose_about_sites_is_not_changed(tmp_path: Path, chosen: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="3 are needed"):
        dealt(shop(tmp_path, site=[f"s{i % 150 % 2}" for i in LINES]), data=chosen)


def test_the_screen_says_what_the_log_was_taken_for(tmp_path: Path) -> None:
    rows = log_rows(dealt(shop(tmp_path, site=None)).data)
    words = " ".join(text for _, text in rows)
    assert rows[0][0] == "log" and "3,000 of 3,000 lines" in words
    assert "format fedcart" in words and "no column of the log names a site" in words


def test_consumers_at_several_sites_are_said(tmp_path: Path) -> None:
    world = dealt(shop(tmp_path, site=[f"s{i // 150 % 4}" for i in LINES]))
    assert "100.0% of the consumers are at more than one site" in said(world)
    assert "more than one site" not in said(dealt(shop(tmp_path)))
