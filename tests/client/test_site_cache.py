"""A process that serves many messages opens a kit once, and again as soon as one of its files changes."""

from pathlib import Path

import pytest
import tomli_w

from client.guard import open_guard
from client.site import load_site
from common.atomic import write_atomic
from common.errors import BadInputError, ConfigError, VerificationError
from common.privacy import PrivacyEvent
from server.provision import provision
from tests.guard_samples import proposal

STEP = PrivacyEvent(1.0, 0.1, 2)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    sites = [{"name": name, "population": 200, "events": "events.csv"} for name in ("north", "south", "east")]
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps({"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}))
    provision(file, tmp_path / "kits")
    return tmp_path / "kits/sites/north"


def test_a_kit_is_read_once_and_again_after_a_change(kit: Path) -> None:
    first = load_site(kit)
    assert load_site(kit) is first
    settings = (kit / "site.toml").read_text()
    write_atomic(kit / "site.toml", settings.replace("population = 200", "population = 300").encode())
    assert load_site(kit).file.site.population == 300


def test_a_kit_whose_key_or_settings_vanish_or_break_is_refused_at_once(kit: Path) -> None:
    load_site(kit)
    other = (kit.parent / "south/identity.key").read_bytes()
    own = (kit / "identity.key").read_bytes()
    write_atomic(kit / "identity.key", other, mode=0o600)
    with pytest.raises(BadInputError, match="not the one in its roster"):
        load_site(kit)
    write_atomic(kit / "identity.key", own, mode=0o600)
    write_atomic(kit / "site.toml", b"[site]\n")
    with pytest.raises(ConfigError):
        load_site(kit)
    (kit / "roster.json").unlink()
    with pytest.raises((BadInputError, ConfigError)):
        load_site(kit)


def test_a_simulated_site_keeps_its_guard_and_sees_what_another_process_wrote(kit: Path) -> None:
    site = load_site(kit, simulated=True)
    guard = site.guard()
    assert site.guard() is guard
    beside = open_guard(kit / "state", site.identity, guard.policy, "north", simulated=True)
    granted = beside.reserve(proposal(1, events=(STEP,)))
    beside.store(granted, b"numbers", granted.attestation.attestation.events)
    assert site.guard().commit(granted) == b"numbers"
    assert site.guard().status().committed == 1


def test_a_kept_guard_refuses_a_ledger_that_was_changed_and_takes_a_new_policy(kit: Path) -> None:
    site = load_site(kit, simulated=True)
    guard = site.guard()
    guard.reserve(proposal(1, events=(STEP,)))
    write_atomic(
        kit / "policy.toml", (kit / "policy.toml").read_bytes().replace(b"epsilon_max = 8", b"epsilon_max = 9")
    )
    assert site.guard() is not guard and site.guard().policy.epsilon_max == 9
    ledger = kit / "state/ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(VerificationError):
        site.guard()


def test_a_real_site_opens_its_ledger_anew_for_every_message(kit: Path) -> None:
    site = load_site(kit)
    assert site.guard() is not site.guard()
