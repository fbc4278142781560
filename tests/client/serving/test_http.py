"""The service over HTTP: who may ask, what is answered, what is said of it, and what never appears in a log."""

import json
import logging
import re

import pytest

from client.serving.endpoints import ENDPOINTS
from client.serving.run import Address, read_token
from client.serving.schemas import OTHERS
from common.errors import BadInputError, ConfigError
from tests.serving_samples import ask, event, make_door, make_live, make_service

SECRET = "c-secret-name"
TOKEN = b"a-token-of-some-length"


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    return make_live(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def service(live, tmp_path):
    live.store = type(live.store)(1_000, live.engine.state_size)
    return make_service(live, tmp_path)


@pytest.fixture
def door(service):
    return make_door(service)


def test_an_event_is_scored_and_every_question_is_answered(door):
    for second in range(4):
        status, scored = ask(door, "POST", "/events", event(at=f"2024-05-01T10:00:0{second}"))
        assert (status, scored["position"]) == (200, second)
    status, found = ask(door, "GET", "/next/c1?k=3&exclude=item-01,item-02")
    assert status == 200
    assert len(found["choices"]) == 3
    assert ask(door, "GET", "/next/c1?what=event")[1]["choices"][0]["event"]
    assert 0 < ask(door, "GET", "/intent/c1")[1]["probability"] < 1
    assert len(ask(door, "GET", "/explain/c1?about=intent")[1]["events"]) == 4
    assert ask(door, "GET", "/next/stranger")[1]["known"] is False
    assert ask(door, "GET", "/intent/stranger")[0] == 404


def test_a_repeated_id_is_answered_the_same_and_changes_nothing(door, service):
    first = ask(door, "POST", "/events", event(id="e1"))
    ask(door, "POST", "/events", event(id="e2", at="2024-05-01T10:00:01"))
    assert ask(door, "POST", "/events", event(id="e1")) == first
    assert service.counters.of["events"] == 2
    many = [event(id=f"n{n}", at="2024-05-02T10:00:00", price=str(n)) for n in range(60)]
    assert len(ask(door, "POST", "/events", many)[1]["answers"]) == 60
    assert len(service.parts.repeats) == 50


def test_one_bad_event_among_many_does_not_stop_the_others(door):
    bad = [7, {"consumer": "c1"}, event(id="x" * 201), event(item="y" * 5_000)]
    status, found = ask(door, "POST", "/events", {"events": [event(), *bad, event(at="2024-05-01T10:00:01")]})
    assert status == 200
    assert ["error" in one for one in found["answers"]] == [False, True, True, True, True, False]


def test_half_a_character_anywhere_is_a_bad_value_and_stops_no_other_event(door):
    half = [event("c\ud800"), event(id="\ud800"), event(item="\ud800", at="2024-05-01T10:00:01")]
    status, found = ask(door, "POST", "/events", [event(), *half, event(at="2024-05-01T10:00:02")])
    assert status == 200
    assert ["error" in one for one in found["answers"]] == [False, True, False, True, False]
    assert ask(door, "POST", "/verdicts", {"consumer": "c\ud800", "verdict": "normal"})[0] == 400


def test_one_id_of_two_consumers_names_two_events(door, service):
    first = ask(door, "POST", "/events", event(id="7"))
    other = ask(door, "POST", "/events", event("c2", id="7", at="2024-05-01T10:00:05"))
    assert service.counters.of["events"] == 2
    assert ask(door, "GET", "/next/c2")[1]["known"] is True
    assert ask(door, "POST", "/events", event(id="7")) == first
    assert ask(door, "POST", "/events", event("c2", id="7")) == other


def test_a_failure_of_the_program_is_answered_once_and_as_json(door, service, monkeypatch):
    monkeypatch.setattr(service, "next", lambda *_, **__: 1 / 0)
    assert ask(door, "GET", "/next/c1") == (
        500,
        {"error": "the program failed", "hint": "see the log of the service"},
    )


@pytest.mark.parametrize(("method", "address", "body", "headers", "status"), [
    ("POST", "/events", b"{", {}, 400),
    ("POST", "/events", b"[" * 100_000, {}, 400),
    ("POST", "/events", b"\xff", {}, 400),
    ("POST", "/events", b"[" + b"0," * 1_001 + b"0]", {}, 400),
    ("POST", "/events", b" " * (1 << 20) + b"{}", {}, 413),
    ("POST", "/events", b"{}", {"content-length": "99999999"}, 413),
    ("POST", "/events", b"{}", {"content-type": "text/plain"}, 415),
    ("POST", "/verdicts", {"consumer": "c1", "verdict": "maybe"}, {}, 400),
    ("POST", "/verdicts", {"consumer": "c1"}, {}, 400),
    ("GET", "/next/c1?k=x", None, {}, 400),
    ("GET", "/next/c1?k=1001", None, {}, 400),
    ("GET", "/next/c1?what=shoes", None, {}, 400),
    ("GET", "/next/%20", None, {}, 400),
    ("GET", "/forecast", None, {}, 404),
    ("GET", "/nowhere", None, {}, 404),
    ("PUT", "/events", b"{}", {}, 404),
    ("GET", "/metrics", None, {"host": "evil.example:80"}, 403),
    ("POST", "/events", b"{}", {"origin": "http://evil.example"}, 403),
    ("GET", "/next/" + "x" * 20_000, None, {}, 400),
])  # fmt: skip
def test_what_cannot_be_answered_says_why_as_json(door, method, address, body, headers, status):
    found, said = ask(door, method, address, body, headers)
    assert found == status
    assert said["error"]
    assert said["hint"]


def test_a_body_that_does_not_come_keeps_nobody_waiting(service):
    status, said = ask(make_door(service, body_timeout_s=0.01), "POST", "/events", "never")
    assert (status, said["error"]) == (408, "the body did not come in time")


def test_only_who_shows_the_token_gets_in(service):
    door = make_door(service, TOKEN)
    for shown in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN.decode()}"}):
        assert ask(door, "GET", "/verdicts", None, shown)[0] == 401
    assert ask(door, "GET", "/verdicts", None, {"authorization": f"Bearer {TOKEN.decode()}"})[0] == 200
    assert ask(door, "GET", "/healthz")[0] == 200
    assert "consumers held" not in ask(door, "GET", "/")[1]


def test_the_token_is_compared_in_constant_time(service, monkeypatch):
    compared = []
    monkeypatch.setattr("client.serving.door.hmac.compare_digest", lambda *both: compared.append(both) or False)
    assert ask(make_door(service, TOKEN), "GET", "/verdicts", None, {"authorization": "Bearer x"})[0] == 401
    assert compared == [(b"x", TOKEN)]


def test_no_id_reaches_a_log_an_error_or_the_figures(door, service, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    ask(door, "POST", "/events", event(SECRET, id=f"id-{SECRET}"))
    said = [ask(door, "GET", f"/{what}/{SECRET}x") for what in ("intent", "explain", "nowhere")]
    said += [
        ask(door, "POST", "/events", event(SECRET, at="never")),
        ask(door, "GET", "/metrics"),
        ask(door, "GET", "/"),
    ]
    monkeypatch.setattr(service, "next", lambda *_, **__: 1 / 0)
    said.append(ask(door, "GET", f"/next/{SECRET}"))
    assert said[-1][0] == 500
    assert "ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text + json.dumps(said)


def test_hostile_names_are_only_text_on_the_page(tmp_path):
    service = make_service(make_live(tmp_path / "m"), tmp_path)
    service.live.answers = lambda: ("<script>alert(1)</script>",)
    page = ask(make_door(service), "GET", "/")[1]
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_model_without_a_head_says_so(tmp_path):
    heads = {"next-item": 1.0, "next-event": 1.0}
    live = make_live(tmp_path / "m", task="next-behaviour", model={"dim": 8, "hidden": 8, "heads": heads})
    door = make_door(make_service(live, tmp_path))
    ask(door, "POST", "/events", event())
    for address, head in (("/next/c1?what=category", "next-category"), ("/intent/c1", "purchase-intent")):
        status, said = ask(door, "GET", address)
        assert status == 404
        assert head in said["error"]
    sales = make_door(make_service(None, tmp_path))
    assert ask(sales, "POST", "/events", event())[0] == 404


def fits(schema, value):
    """Whether a value is what a schema says; as much of JSON Schema as ours use."""
    if "oneOf" in schema:
        return any(fits(one, value) for one in schema["oneOf"])
    kinds = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
        "array": list,
    }
    named = schema.get("type", [])
    for kind in [named] if isinstance(named, str) else named:
        if kind == "object" and isinstance(value, dict):
            known, more = schema.get("properties", {}), schema.get("additionalProperties")
            extra = [one for name, one in value.items() if name not in known]
            return set(schema.get("required", ())) <= value.keys() and (
                not extra or (more is not None and all(fits(more, one) for one in extra))
            ) and all(fits(one, value[name]) for name, one in known.items() if name in value)  # fmt: skip
        if kind in kinds and isinstance(value, kinds[kind]):
            return kind != "array" or all(fits(schema["items"], one) for one in value)
    return not named


def test_the_description_is_true_of_routes_and_answers(door, service):
    told = ask(door, "GET", "/openapi.json")[1]
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    assert described == {(one.method, one.path) for one in ENDPOINTS} | {("GET", path) for path in OTHERS}
    routed = {(method, re.sub(":path", "", route.path)) for route in door.app.routes for method in route.methods}
    assert (
        routed - {("HEAD", route.path) for route in door.app.routes} - {("HEAD", one.path) for one in ENDPOINTS}
        == described
    )
    service.parts.__dict__["forecast"] = lambda _: {
        "until": "2024-05-02",
        "rows": [{"category": "a", "quantity": 1.0}],
    }
    bodies = {
        "/events": [event(), event(at="x"), event(at="2024-05-01T10:00:01")],
        "/verdicts": {"consumer": "c1", "verdict": "normal"},
    }
    for method, path in sorted(described, key=lambda one: (one[0] == "DELETE", one[0] == "GET", one[1])):
        status, answer = ask(
            door, method, path.replace("{consumer}", "c1"), bodies.get(path) if method == "POST" else None
        )
        assert status == 200, (path, answer)
        content = told["paths"][path][method.lower()]["responses"]["200"]["content"]
        if path not in OTHERS:
            assert fits(content["application/json"]["schema"], answer), (path, answer)
    error = told["paths"]["/events"]["post"]["responses"]["400"]["content"]["application/json"]["schema"]
    assert fits(error, ask(door, "POST", "/events", b"{")[1])


def test_an_address_that_others_reach_needs_a_token_or_certificates(tmp_path):
    for host in ("0.0.0.0", "192.0.2.1", "::", "shop.example"):
        with pytest.raises(ConfigError, match="can be reached by others"):
            Address(host).check()
        Address(host, token=TOKEN).check()
        Address(host, certificate=tmp_path, key=tmp_path, client_authority=tmp_path).check()
    with pytest.raises(ConfigError):
        Address("0.0.0.0", certificate=tmp_path, key=tmp_path).check()
    for host in ("127.0.0.1", "::1", "localhost"):
        Address(host).check()


def test_a_token_file_is_made_once_and_refused_if_others_can_read_it(tmp_path):
    path = tmp_path / "token"
    token = read_token(path)
    assert read_token(path) == token
    assert len(token) > 30
    path.chmod(0o644)
    with pytest.raises(BadInputError, match="can be read by others"):
        read_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(BadInputError, match="holds no token"):
        read_token(path)
