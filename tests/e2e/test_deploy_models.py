"""The finished model at every site, with real processes: delivered at the end, later to who was away, used by name of the kit."""

import json

import polars as pl
import pytest
import tomli_w

from client.library import kept_models, model_in_use
from common.data import write_catalogue
from common.data.writing import write_frame
from common.run import RunFolder
from simulations.demo import demo_settings
from simulations.processes import LocalFederation
from simulations.synthetic import SyntheticSpec, generate
from tests.e2e.test_deploy_story import fedcart, newest, wait_until

pytestmark = pytest.mark.e2e
SHOPS = ("north", "south", "east", "west")


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    market = generate(SyntheticSpec(sites=4, consumers=1_000, items=60, inequality=0.0), seed=6)
    write_catalogue(market.catalogue, folder / "market.json")
    sites = []
    for shop, name in zip(SHOPS, market.log.sites, strict=True):
        events = folder / f"{shop}.csv.gz"
        write_frame(market.log.at_site(name).frame.with_columns(pl.col("consumer").cast(pl.String)), events)
        sites.append({"name": shop, "population": 300, "events": str(events)})
    stock = dict(zip(market.log.sites, SHOPS, strict=True))
    run = demo_settings(1) | {"data": {}}
    run["aggregation"] = {"deadline_s": 60.0, "exchange_deadline_s": 25.0}
    (folder / "run.toml").write_text(tomli_w.dumps(run))
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as local:
        local.provision(sites, more={"catalogue": "market.json", "stock": stock})
        for shop in SHOPS:
            policy = local.site(shop).policy
            policy.write_text(policy.read_text().replace("epsilon_max = 8.0", "epsilon_max = 100.0"))
        local.start_server()
        for shop in SHOPS[:3]:
            local.start_site(shop)
        local.wait_online(SHOPS[:3])
        yield local


def done(*arguments: object) -> str:
    program = fedcart(*arguments)
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err
    return out


def a_run(federation: LocalFederation) -> RunFolder:
    done("server", "run", federation.coordinator.path, federation.folder / "run.toml", "--json")
    return newest(federation)


def test_every_site_has_the_model_and_who_was_away_gets_it_later(federation):
    first = a_run(federation)
    assert first.catalogue_file.is_file(), "the coordinator's run folder has what predict needs"
    for shop in SHOPS[:3]:
        [kept] = kept_models(federation.site(shop))
        assert kept.took_part
        assert model_in_use(federation.site(shop)).run == first.plan().run
    assert set(first.delivered()) == set(SHOPS[:3])

    said = json.loads(done("predict", federation.site("north").path, federation.folder / "north.csv.gz", "--json"))
    assert said["consumers"] > 100

    away = federation.site("west")
    assert kept_models(away) == []
    federation.start_site("west")
    federation.wait_online(SHOPS)
    handed = json.loads(done("server", "deliver", federation.coordinator.path, "--json"))
    assert set(handed["have"]) == set(SHOPS)
    wait_until(lambda: len(kept_models(away)) == 1, "no model at west")
    assert not kept_models(away)[0].took_part

    federation.stop_site("south")
    second = a_run(federation)
    assert second.plan().run != first.plan().run
    assert len(kept_models(federation.site("south"))) == 1
    federation.start_site("south")
    federation.wait_online(SHOPS)
    third = a_run(federation)
    runs = [kept.run for kept in kept_models(federation.site("south"))]
    assert set(runs) == {run.plan().run for run in (first, second, third)}, "the next run brought what was missed"

    kit = federation.site("north")
    assert json.loads(done("site", "rollback", kit.path, "--json"))["run"] == second.plan().run
    assert model_in_use(kit).run == second.plan().run
