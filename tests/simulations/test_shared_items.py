"""A federation whose sites sell nothing in common has nothing to learn together: said before anything is spent."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common.data.sharing import require_shared_items
from common.errors import ConfigError
from common.run import build_config
from simulations.prepare import deal_data


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Three countries of three hundred consumers, each with items of its own."""
    path, lines = tmp_path / "shop.csv", range(3_000)
    pl.DataFrame(
        {
            "consumer": [f"u{i % 300}" for i in lines],
            "timestamp": [f"2024-03-{1 + i % 28:02d}T{i % 24:02d}:00:00" for i in lines],
            "event": ["view", "cart", "purchase"] * 1_000,
            "item": [f"i{i * 7 % 30}" for i in lines],
            "country": [("DE", "FR", "IT")[i % 300 % 3] for i in lines],
        }
    ).write_csv(path)
    return path


def settings(shop: Path, **sections: dict[str, object]) -> dict[str, object]:
    return {"data": {"events": str(shop), "format": "fedcart", "split_by": "country"}, **sections}


def test_items_are_hashed_where_sites_share_none_and_it_is_said(shop: Path) -> None:
    dealt = deal_data(build_config(settings(shop)))
    assert dealt.config.features.item_buckets == 1_000 and dealt.catalogue is None
    assert all(mask.any() for mask in dealt.masks.values())
    assert any(
        "no item of DE, FR, IT is sold at 3 sites" in note and "hashed" in note for note in dealt.data["fitted"]
    )


def test_a_limit_that_was_chosen_is_kept_and_refused_with_what_to_do(shop: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no item of DE, FR, IT is sold at 3 sites or more.*min_stockists"
    ) as error:
        deal_data(build_config(settings(shop, aggregation={"min_stockists": 3})))
    assert "features.item_buckets=1000" in str(error.value.hint)


@pytest.mark.parametrize(
    "way", [{"features": {"item_buckets": 1_000}}, {"aggregation": {"min_stockists": 1}}], ids=str
)
def test_what_the_hint_says_helps(shop: Path, way: dict[str, dict[str, object]]) -> None:
    dealt = deal_data(build_config(settings(shop, **way)))
    assert all(mask.any() for mask in dealt.masks.values())


def test_sales_need_no_items_in_common(shop: Path) -> None:
    sales: dict[str, object] = {"start": "2024-03-01", "periods": 120, "categories": ["all"]}
    assert deal_data(build_config({**settings(shop), "task": "sales", "sales": sales})).partition.names


def test_many_sites_are_counted_not_listed() -> None:
    masks = {f"s{i}": np.zeros(3, dtype=bool) for i in range(9)} | {"t": np.ones(3, dtype=bool)}
    with pytest.raises(ConfigError, match="s0, s1, s2, s3, s4 and 4 more"):
        require_shared_items(masks, 3)
