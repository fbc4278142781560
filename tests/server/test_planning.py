"""What a deployed coordinator makes of settings before anything is asked: items that sites do not share, dates of a split in time."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import tomli_w

from client.site import load_site
from client.verification import check_plan
from common.deployment import CoordinatorKit
from common.errors import ConfigError, PolicyRefusedError
from common.run import RunConfig, build_config
from server.planning import plan_of_run, remark_on_stock
from server.provision import Provisioned, provision

NAMES = ("north", "south", "east")


def provisioned(folder: Path, shared: int) -> Provisioned:
    """Three sites with twelve items each, of which so many are sold at all of them."""
    lines = [(f"{'all' if number < shared else name}:{number}", name) for name in NAMES for number in range(12)]
    pl.DataFrame(lines, schema=["item", "site"], orient="row").write_csv(folder / "catalogue.csv")
    sites = [{"name": name, "population": 200} for name in NAMES]
    tree = {"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites, "catalogue": "catalogue.csv"}
    (folder / "federation.toml").write_text(tomli_w.dumps(tree))
    return provision(folder / "federation.toml", folder / "kits")


def config(**sections: dict[str, object]) -> RunConfig:
    return build_config({"model": {"dim": 8, "hidden": 8}, **sections})


def kit(folder: Path) -> CoordinatorKit:
    return CoordinatorKit(folder / "kits/coordinator")


def test_items_are_hashed_where_sites_share_none_and_it_is_said_when_kits_are_made_and_before_a_run(
    tmp_path: Path,
) -> None:
    made = provisioned(tmp_path, shared=0)
    assert "no item of north, south, east is sold at 3 sites or more" in made.stock_remark
    assert "hashed into 1,000 buckets" in remark_on_stock(kit(tmp_path), config(), base=tmp_path)
    plan = plan_of_run(kit(tmp_path), config(), base=tmp_path)
    assert json.loads(plan.features)["item_buckets"] == 1_000 == plan.config.features.item_buckets
    for name in NAMES:  # a real site, with the catalogue in its kit
        site = load_site(tmp_path / "kits/sites" / name)
        check_plan(site, plan)
        assert site.catalogue_of(plan) is None


def test_items_that_sites_share_are_read_by_the_catalogue_and_nothing_is_said(tmp_path: Path) -> None:
    assert provisioned(tmp_path, shared=4).stock_remark == ""
    assert remark_on_stock(kit(tmp_path), config(), base=tmp_path) == ""
    plan = plan_of_run(kit(tmp_path), config(), base=tmp_path)
    site = load_site(tmp_path / "kits/sites/north")
    check_plan(site, plan)
    assert site.catalogue_of(plan) is not None


@pytest.mark.parametrize(
    "chosen", [{"aggregation": {"min_stockists": 3}}, {"data": {"catalogue": "catalogue.csv"}}]
)
def test_what_was_chosen_stays_and_is_refused_with_what_to_do(tmp_path: Path, chosen: dict) -> None:
    provisioned(tmp_path, shared=0)
    for ask in (plan_of_run, remark_on_stock):
        with pytest.raises(ConfigError, match="no item of north, south, east") as refusal:
            ask(kit(tmp_path), config(**chosen), base=tmp_path)
        assert "item_buckets=1000" in str(refusal.value.hint)


def test_a_sales_run_asks_for_no_items_in_common(tmp_path: Path) -> None:
    provisioned(tmp_path, shared=0)
    sales = config(task="sales", sales={"start": "2026-01-01", "periods": 90}, model={"hidden": 8})
    assert remark_on_stock(kit(tmp_path), sales, base=tmp_path) == ""


def test_a_site_takes_no_encoding_but_that_of_its_catalogue_or_hashes_alone(tmp_path: Path) -> None:
    provisioned(tmp_path, shared=4)
    site, plan = load_site(tmp_path / "kits/sites/north"), plan_of_run(kit(tmp_path), config(), base=tmp_path)
    features = json.loads(plan.features)
    for forged in (
        features | {"catalogue_items": 3},
        features | {"catalogue_digest": ""},
        features | {"item_buckets": 7},
    ):
        other = type(plan)(**{**vars(plan), "features": json.dumps(forged, sort_keys=True, separators=(",", ":"))})
        with pytest.raises(PolicyRefusedError, match="encode"):
            check_plan(site, other)


def test_a_deployed_split_in_time_names_its_dates(tmp_path: Path) -> None:
    provisioned(tmp_path, shared=4)
    with pytest.raises(ConfigError, match="needs the public dates"):
        plan_of_run(kit(tmp_path), config(training={"split": "time"}), base=tmp_path)
    dates = {"split": "time", "validation_from": "2026-03-01", "test_from": "2026-04-01"}
    plan = plan_of_run(kit(tmp_path), config(training=dates), base=tmp_path)
    assert plan.config.training.dates_us == (1772323200000000, 1775001600000000)
