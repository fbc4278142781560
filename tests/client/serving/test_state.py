"""The state of a service: kept whole, restored as it was, refused if it is not ours, one consumer forgotten."""

import pytest

from client.anomalies.evidence import Verdict
from client.anomalies.verdicts import VerdictBook
from client.scoring.place import model_place
from client.serving.hold import hold, served_by
from client.serving.opening import ServeOptions, open_service
from client.serving.snapshot import set_aside
from common.errors import BadInputError
from common.trust import CONSUMERS_KEY
from tests.serving_samples import event, make_live, make_service


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    make_live(tmp_path_factory.mktemp("model") / "m")
    return tmp_path_factory.getbasetemp() / next(iter(tmp_path_factory.getbasetemp().glob("model*"))).name / "m"


def served(folder, home, **parts):
    return make_service(make_live(folder), home, **parts)


def send(service, count, begin=0):
    return [
        service.event(event(f"c{n % 5}", f"2024-05-01T10:{n // 60:02d}:{n % 60:02d}", item=f"item-0{n % 7 + 1}", id=f"e{n}"))
        for n in range(begin, begin + count)
    ]  # fmt: skip


def test_a_restored_service_goes_on_as_if_it_had_never_stopped(folder, tmp_path):
    first, straight = served(folder, tmp_path), served(folder, tmp_path / "other")
    send(first, 130), send(straight, 130)
    assert first.keep(first.frozen()) == first.parts.path.stat().st_size
    second = served(folder, tmp_path)
    assert second.restore() == 5
    assert second.counters.of == first.counters.of
    assert second.live.clock == first.live.clock
    assert isinstance(send(second, 1, 129)[0], bytes)  # an id that was answered before the restart
    assert send(second, 40, 130) == send(straight, 40, 130)
    assert oct(first.parts.path.stat().st_mode)[-3:] == "600"


def test_the_order_of_use_survives(folder, tmp_path):
    first = served(folder, tmp_path)
    send(first, 5)
    first.keep(first.frozen())
    small = make_service(make_live(folder, capacity=2), tmp_path)
    small.restore()
    assert [small.live.consumer(f"c{n}") in small.live.store for n in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("place", [0, 40, 200, -40, -1])
def test_a_damaged_state_is_refused(folder, tmp_path, place):
    service = served(folder, tmp_path)
    send(service, 10)
    service.keep(service.frozen())
    content = bytearray(service.parts.path.read_bytes())
    content[place] ^= 1
    service.parts.path.write_bytes(content)
    with pytest.raises(BadInputError, match="damaged"):
        served(folder, tmp_path).restore()
    assert set_aside(service.parts.path).exists()
    assert served(folder, tmp_path).restore() == 0


def test_a_state_of_another_model_is_refused(folder, tmp_path):
    service = served(folder, tmp_path)
    send(service, 3)
    service.keep(service.frozen())
    with pytest.raises(BadInputError, match="of another model"):
        served(folder, tmp_path, digest="e" * 64).restore()


@pytest.mark.parametrize("changed", ["key", "site"])
def test_a_state_of_other_pseudonyms_or_of_another_sites_items_is_refused(folder, tmp_path, changed):
    place = model_place(folder, state=tmp_path)
    service = open_service(place, ServeOptions())
    send(service, 3)
    service.keep(service.frozen())
    assert open_service(place, ServeOptions()).restored == 3
    if changed == "key":
        (tmp_path / CONSUMERS_KEY).write_bytes(bytes(32))
    with pytest.raises(BadInputError, match="of another model, site or key"):
        open_service(
            model_place(folder, state=tmp_path, site="" if changed == "key" else "merchant-1"), ServeOptions()
        )


def test_a_forgotten_consumer_is_in_no_part_of_the_state(folder, tmp_path):
    service = served(folder, tmp_path)
    send(service, 20)
    service.judge("c1", "normal")
    who = service.live.consumer("c1")
    gone = service.forget("c1")
    assert gone == {"live state": 1, "answers kept": 4, "verdicts": 1, "alarms": 0, "state put aside": 0}
    assert service.live.known(who) is None
    assert who.to_bytes(8, "little") not in service.parts.path.read_bytes()
    assert f"{who:016x}" not in (tmp_path / "verdicts.jsonl").read_text()
    again = served(folder, tmp_path)
    assert again.restore() == 4
    assert again.parts.verdicts.of(who) == ""
    assert set(service.forget("nobody").values()) == {0}


def test_a_state_frozen_before_does_not_bring_a_forgotten_consumer_back(folder, tmp_path):
    service = served(folder, tmp_path)
    send(service, 20)
    before = service.frozen()
    service.forget("c1")
    assert service.keep(before) == 0
    assert served(folder, tmp_path).restore() == 4


def test_a_verdict_of_normal_ends_the_alarms_of_this_consumer_only(folder, tmp_path):
    service = served(folder, tmp_path)
    for _ in range(100):
        service.parts.level.add(0.001)
    assert [one["alarm"] for one in send(service, 10)] == [False] * 5 + [True] * 5
    service.judge("c2", "normal")
    later = send(service, 5, 10)
    assert [one["alarm"] for one in later] == [True, True, False, True, True]
    assert "a person has said normal" in later[2]["reason"]
    assert "usual up to" in later[1]["reason"]


def test_a_word_said_on_the_page_of_review_is_heard_and_what_was_forgotten_there_is_gone(folder, tmp_path):
    service = served(folder, tmp_path)
    who = service.live.consumer("c1")
    VerdictBook(tmp_path).say([Verdict(who, False)])
    assert service.parts.verdicts.of(who) == "normal"
    VerdictBook(tmp_path).forget(who)
    assert service.parts.verdicts.all() == []


def test_a_state_is_served_by_one_process(tmp_path):
    with hold(tmp_path) as tell:
        tell("http://127.0.0.1:1")
        assert served_by(tmp_path)[1] == "http://127.0.0.1:1"
        with pytest.raises(BadInputError, match="already served by process"), hold(tmp_path):
            pass
    assert served_by(tmp_path) == (0, "")
