"""Web proxies of the environment: nothing for this machine goes to one."""

import pytest

from common.errors import BadInputError
from common.loopback import NAMES, is_asked_locally
from common.processes import child_environment
from common.proxies import proxy_for, without_loopback


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ({}, []),
        ({"no_proxy": "shop.example, 127.0.0.1"}, ["shop.example"]),
        ({"NO_PROXY": "shop.example"}, ["shop.example"]),
        ({"no_proxy": "one.example", "NO_PROXY": "two.example"}, ["one.example"]),
    ],
)
def test_loopback_is_added_to_what_goes_past_the_proxy_and_nothing_is_taken_away(known, kept):
    both = without_loopback(known)
    assert both["no_proxy"] == both["NO_PROXY"]
    entries = both["no_proxy"].split(",")
    assert set(entries) == {*NAMES, *kept}
    assert len(entries) == len(set(entries))


def test_who_uses_no_proxy_at_all_stays_with_that():
    assert without_loopback({"no_proxy": "*"}) == {"no_proxy": "*", "NO_PROXY": "*"}


def test_a_child_of_ours_sends_nothing_for_this_machine_to_a_proxy(monkeypatch):
    import httpx

    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    for name, value in child_environment({"https_proxy": "http://proxy.example:3128"}).items():
        monkeypatch.setenv(name, value)
    patterns = httpx.Client()._mounts  # what the library that Flower uses makes of it
    direct = {pattern.pattern for pattern, transport in patterns.items() if transport is None}
    assert {"all://127.0.0.1", "all://[::1]", "all://localhost"} <= direct
    assert any(transport is not None for transport in patterns.values())


def test_the_proxy_of_a_server_elsewhere_is_the_one_of_the_environment(monkeypatch):
    assert proxy_for("shop.example", 9092) is None
    monkeypatch.setenv("https_proxy", "http://user:p%40ss@proxy.example:3128")
    found = proxy_for("shop.example", 9092)
    assert str(found) == "proxy.example:3128"
    assert found.authorization == "Basic dXNlcjpwQHNz"
    assert "p@ss" not in repr(found) and "dXNl" not in repr(found)
    assert proxy_for("127.0.0.1", 9092) is None
    monkeypatch.setenv("no_proxy", "shop.example")
    assert proxy_for("shop.example", 9092) is None
    assert proxy_for("eu.shop.example", 9092) is None
    assert proxy_for("other.example", 9092) is not None


@pytest.mark.parametrize("address", ["socks5://proxy.example:1080", "http://proxy.example:port", "http://"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_kind_or_refused(monkeypatch, address):
    monkeypatch.setenv("https_proxy", address)
    with pytest.raises(BadInputError, match="proxy"):
        proxy_for("shop.example", 9092)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"]
)
def test_a_page_of_this_machine_is_asked_by_its_own_names(host):
    assert is_asked_locally(host)


@pytest.mark.parametrize(
    "host",
    ["", ":80", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "127.0.0.1:80:90", "127.0.0.1:evil", "::1",
     "[::1]evil", "[::2]", "user@127.0.0.1", "127.0.0.1 ", "127.0.0.2"],
)  # fmt: skip
def test_by_any_other_name_it_is_not(host):
    assert not is_asked_locally(host)
