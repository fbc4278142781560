"""One consumer forgotten at a site: what is removed where, what is refused, what is said to stay."""

import json
import os

import pytest

from cli import main as front
from client.anomalies.alarms import Alarm, AlarmBook
from client.scoring.consumers import local_key
from client.serving import forgetting
from client.serving.hold import hold, served_by
from client.serving.opening import serving_folder
from client.serving.snapshot import read_any, set_aside_at
from common.data import pseudonym
from common.supervisor import only_one
from tests.delivered_models import make_federation
from tests.serving_samples import event, make_live, make_service


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    make_live(folder)
    return folder


@pytest.fixture
def state(model, tmp_path):
    """A state folder as a service leaves it, with what else a site makes of its consumers."""
    key = local_key(tmp_path)
    live = make_live(model)
    live._key = key
    service = make_service(live, tmp_path)
    for who in ("c1", "c2", "c1"):
        service.event(event(who, id=f"e-{who}"))
    service.judge("c1", "normal"), service.judge("c2", "anomaly")
    service.keep(service.frozen())
    (tmp_path / "personal" / "x").mkdir(parents=True)
    (tmp_path / "personal" / "x" / "personal.safetensors").write_bytes(b"own counts")
    return tmp_path


def test_a_consumer_is_out_of_snapshot_verdicts_and_personal_models(state, capsys):
    who = pseudonym("c1", local_key(state))
    assert front.main(["forget", "c1", "--state", str(state), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sum(one["count"] for one in said["removed"]) == 4  # row, one answer kept, verdict, personal model
    assert "event log is not touched" in said["stays"][0]
    left = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert not any(who.to_bytes(8, "little") in one or f"{who:016x}".encode() in one for one in left)
    assert len(read_any(serving_folder(state) / "live.snapshot").consumers.rows) == 1
    assert not (state / "personal").exists()
    assert front.main(["forget", f"{pseudonym('c2', local_key(state)):016x}", "--state", str(state)]) == 0
    assert "what cannot be undone here" in capsys.readouterr().out
    assert read_any(serving_folder(state) / "live.snapshot").consumers.rows == []


def test_it_is_refused_while_a_service_holds_the_state_and_says_how_to_ask_it(state, capsys):
    with hold(serving_folder(state)) as tell:
        tell("http://127.0.0.1:9")
        assert front.main(["forget", "c1", "--state", str(state)]) == 2
    assert "curl -X DELETE http://127.0.0.1:9/consumers/" in capsys.readouterr().err
    assert len(read_any(serving_folder(state) / "live.snapshot").consumers.rows) == 2


def alarm_about(who):
    return Alarm(f"{who:012x}"[:12], who, 1, 3, 2.0, 1.0, 1.0, "", "bot", 0.1)


def traces(state, who):
    names = who.to_bytes(8, "little"), f"{who:016x}".encode()
    return [x.name for x in state.rglob("*") if x.is_file() and any(name in x.read_bytes() for name in names)]


def test_what_watch_reported_and_what_was_put_aside_goes_too(state, capsys):
    who, other = (pseudonym(name, local_key(state)) for name in ("c1", "c2"))
    AlarmBook(state).add(alarm_about(who)), AlarmBook(state).add(alarm_about(other))
    path = serving_folder(state) / "live.snapshot"
    set_aside_at(path).write_bytes(path.read_bytes())
    assert sorted(traces(state, who)) == [
        "alarms.jsonl",
        "live-set-aside.snapshot",
        "live.snapshot",
        "verdicts.jsonl",
    ]
    assert front.main(["forget", "c1", "--state", str(state)]) == 0
    assert traces(state, who) == []
    assert [one.consumer for one in AlarmBook(state).alarms()] == [other]
    set_aside_at(path).write_bytes(b"damaged: nobody can say who is in it")
    assert front.main(["forget", "c2", "--state", str(state)]) == 0
    assert not set_aside_at(path).exists()


def test_a_running_service_forgets_alarms_and_what_was_put_aside_too(model, tmp_path):
    service = make_service(make_live(model), tmp_path)
    service.event(event("c1"))
    service.keep(service.frozen())
    who, path = service.live.consumer("c1"), service.parts.path
    set_aside_at(path).write_bytes(path.read_bytes())
    AlarmBook(tmp_path).add(alarm_about(who))
    service.forget("c1")
    assert traces(tmp_path, who) == []


def test_a_kit_and_a_state_at_once_are_refused_for_they_have_other_pseudonyms(state, tmp_path, capsys):
    kit = make_federation(tmp_path / "f").site().kit
    assert front.main(["forget", "c1", str(kit.path), "--state", str(state)]) == 2
    assert "at once" in capsys.readouterr().err
    assert len(read_any(serving_folder(state) / "live.snapshot").consumers.rows) == 2


def test_no_service_and_no_site_begins_while_somebody_is_forgotten(state, monkeypatch):
    seen = []
    monkeypatch.setattr(
        forgetting, "forget", lambda home, *_, **__: seen.append(served_by(serving_folder(home.state))[0]) or []
    )
    assert front.main(["forget", "c1", "--state", str(state)]) == 0
    assert seen == [os.getpid()]


def test_a_token_file_that_is_not_there_is_refused_and_not_made(state, capsys):
    missing = state / "typo.token"
    assert front.main(["forget", "c1", "--state", str(state), "--token-file", str(missing)]) == 2
    assert not missing.exists()


def test_a_name_that_says_nothing_or_a_state_without_a_key_is_refused(state, tmp_path, capsys):
    assert front.main(["forget", " ", "--state", str(state)]) == 2
    assert front.main(["forget", "c1", "--state", str(tmp_path / "empty")]) == 2
    assert "knows no consumer" in capsys.readouterr().err


def test_of_a_kit_what_was_prepared_and_has_not_left_goes_too(tmp_path, capsys):
    kit = make_federation(tmp_path).site().kit
    kit.state.mkdir(exist_ok=True)
    for name in ("consumers-aa-bb.rows", "purchases-aa.npz", "outbox/3.contribution", "events/1.part"):
        (kit.state / name).parent.mkdir(exist_ok=True)
        (kit.state / name).write_bytes(b"x")
    with only_one(kit, "site"):
        assert front.main(["forget", "1", str(kit.path)]) == 2
    assert "the site is running" in capsys.readouterr().err
    assert (kit.state / "outbox" / "3.contribution").exists()
    assert front.main(["forget", "1", str(kit.path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {one["place"]: one["count"] for one in said["removed"] if one["count"]} == {
        "prepared files": 3,
        "outbox": 1,
    }
    assert "no contribution of this site has left" in said["stays"][1]
    assert not [path for pattern in forgetting.MADE_AGAIN for path in kit.state.glob(pattern)]
    assert not list((kit.state / "outbox").iterdir())


def test_a_kit_is_served_with_the_model_in_use_there_and_its_own_words(tmp_path):
    from client import session
    from client.library import kept_models, use_model
    from client.scoring.place import model_place
    from client.serving.opening import ServeOptions, open_service
    from tests.delivered_models import SITES
    from tests.serving_samples import ask, make_door

    federation = make_federation(tmp_path)
    session.keep(federation.site(), federation.delivery(federation.run()))
    kit = federation.kits.site(SITES[0])
    use_model(kit, kept_models(kit)[0].name)
    service = open_service(model_place(kit.path), ServeOptions(past=federation.events()))
    assert len(service.live.store) > 50
    door = make_door(service)
    assert ask(door, "POST", "/events", event(id="k1"))[1]["position"] == 0
    who = f"{int(next(iter(service.live.store._place))):016x}"
    assert ask(door, "GET", f"/next/{who}?k=2")[1]["known"] is True
    service.keep(service.frozen())
    assert service.parts.path == kit.state / "serving" / "live.snapshot"
    assert open_service(model_place(kit.path), ServeOptions()).restored == len(service.live.store)
    assert front.main(["forget", who, str(kit.path)]) == 0
    assert open_service(model_place(kit.path), ServeOptions()).restored == len(service.live.store) - 1
