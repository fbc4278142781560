"""A site keeps the models that it is given, works with one of them, and says which."""

from __future__ import annotations

import json

import pytest

import cli.main as front
from client import session
from client.library import damaged_models, kept_models, model_in_use, roll_back, use_model
from client.scoring.model import open_model
from common.errors import BadInputError
from common.kit_files import require_known_files
from tests.delivered_models import SITES, Federation, make_federation

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("market"))


@pytest.fixture
def federation(made: Federation) -> Federation:
    import shutil

    for name in SITES:
        shutil.rmtree(made.kits.site(name).models, ignore_errors=True)
    return made


def take(federation: Federation, *runs, site: str = SITES[0]) -> list[str]:
    return [session.keep(federation.site(site), federation.delivery(run))["model"] for run in runs]


def test_a_delivered_model_is_kept_whole_and_with_its_catalogue(federation):
    [name] = take(federation, federation.run())
    kit = federation.kits.site(SITES[0])
    [kept] = kept_models(kit)
    assert (kept.name, kept.rounds, kept.which, kept.took_part) == (name, 2, "last", False)
    assert {p.name for p in kept.folder.iterdir()} == {
        "model.safetensors", "model.json", "kept.json", "masks.npz", "catalogue.json", "roster.json",
    }  # fmt: skip
    require_known_files(kit)


def test_a_second_delivery_of_the_same_model_changes_nothing(federation):
    run = federation.run()
    assert take(federation, run) == take(federation, run)
    assert len(kept_models(federation.kits.site(SITES[0]))) == 1


def test_a_model_of_a_run_without_this_site_is_in_use_only_when_its_operator_says_so(federation):
    [name] = take(federation, federation.run())
    kit = federation.kits.site(SITES[0])
    with pytest.raises(BadInputError, match="no model yet"):
        model_in_use(kit)
    assert use_model(kit, name).name == name


def test_the_newest_is_in_use_until_somebody_chooses_and_rollback_goes_back(federation):
    kit = federation.kits.site(SITES[0])
    first, second = take(federation, federation.run(finished=10), federation.run(finished=20))
    for name in (first, second):
        mark_took_part(kit.models / name)
    assert model_in_use(kit).name == second
    assert roll_back(kit).name == first
    [third] = take(federation, federation.run(finished=30))
    mark_took_part(kit.models / third)
    assert model_in_use(kit).name == first, "what the operator chose stays"
    assert use_model(kit, "latest").name == third
    assert roll_back(kit).name == first, "that was in use before"
    with pytest.raises(BadInputError, match="before"):
        roll_back(kit)


def mark_took_part(folder) -> None:
    path = folder / "kept.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"took_part": True}))


def test_the_status_of_a_site_names_the_model_in_use_or_says_why_there_is_none(federation, capsys):
    kit = federation.site().kit
    assert front.main(["site", "status", str(kit.path)]) == 0
    assert "has no model yet" in capsys.readouterr().out
    [name] = take(federation, federation.run())
    use_model(kit, name)
    assert front.main(["site", "status", str(kit.path)]) == 0
    assert f"model         {name}, " in capsys.readouterr().out


def test_a_model_that_was_cut_off_is_named_and_never_used(federation):
    kit = federation.kits.site(SITES[0])
    old, new = take(federation, federation.run(finished=10), federation.run(finished=20))
    for name in (old, new):
        mark_took_part(kit.models / name)
    weights = kit.models / new / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    (kit.models / ".incoming-abc").mkdir()
    assert model_in_use(kit).name == old
    assert damaged_models(kit) == [new]
    take(federation, federation.run(finished=30))
    assert not (kit.models / ".incoming-abc").exists()


def test_predictions_need_no_path_to_a_model(federation, capsys):
    [name] = take(federation, federation.run())
    kit, events = str(federation.kits.site(SITES[0]).path), str(federation.events())
    assert front.main(["predict", kit, events]) == 2
    assert f"fedcart site use {kit} {name}" in capsys.readouterr().err
    assert front.main(["site", "use", kit, name]) == 0
    assert front.main(["predict", kit, events, "--top", "3", "--json"]) == 0
    out = capsys.readouterr().out
    said = json.loads(out[out.index("{") :])
    assert said["consumers"] > 50
    assert front.main(["detect", kit, events, "--json"]) == 0
    who = said["predictions"][0]["consumer"]
    assert front.main(["explain", who, kit, events, "--json"]) == 0
    capsys.readouterr()
    assert front.main(["site", "models", kit, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["in_use"]


def test_a_log_that_the_model_knows_nothing_of_is_refused_and_one_that_it_hardly_knows_is_remarked(
    federation, capsys, tmp_path
):
    kit = federation.kits.site(SITES[0])
    use_model(kit, take(federation, federation.run())[0])
    lines = [f"c{i},2024-01-01T10:00:0{i},view,other-{i}" for i in range(9)]
    strange = tmp_path / "strange.csv"
    strange.write_text("\n".join(["consumer,timestamp,event,item", *lines, ""]))
    assert front.main(["predict", str(kit.path), str(strange)]) == 2
    assert "0 % of these 9 events are about items that the model knows" in capsys.readouterr().err
    known = open_model(model_in_use(kit).folder, site=SITES[0]).item_name(1)
    strange.write_text(
        "\n".join(["consumer,timestamp,event,item", *lines, f"c1,2024-01-01T11:00:00,view,{known}", ""])
    )
    assert front.main(["predict", str(kit.path), str(strange)]) == 0
    assert "10 % of these 10 events are about items that the model knows" in capsys.readouterr().err


def test_a_model_handed_over_as_a_folder_is_verified_alike(federation, capsys, tmp_path):
    run, kit = federation.run(), federation.kits.site(SITES[0])
    assert front.main(["site", "models", str(kit.path), "--add", str(run.path)]) == 0
    assert len(kept_models(kit)) == 1
    assert front.main(["site", "models", str(kit.path), "--add", str(tmp_path)]) == 2
    assert "no model in" in capsys.readouterr().err
