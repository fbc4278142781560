"""A kit that was delivered with a state in it that its site did not begin, or with pipes where files are read."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from client.own_state import MARK_FILE, adopt_state, require_own_state
from client.runtime.check import FAILED, check_site
from client.site import load_site
from common.deployment import Kits, SiteKit
from common.errors import BadInputError
from common.trust import Identity
from tests.delivered_kits import point, write

PLANTED = (
    "consumers.key",
    "consumers-0123.npz",
    "roster.accepted.json",
    "journal.jsonl",
    "outbox/7.contribution",
    "approvals/ab.json",
    "releases/ab.ring",
    "models/in-use.json",
    "events/0.rows",
    "running.pid",
    "own.json",
    "diagnostics.jsonl",
)


@pytest.mark.parametrize("name", PLANTED)
def test_a_state_that_was_delivered_is_refused_by_name(kit, name):
    write(kit.state / name, '{"site":"north","signature":"00"}')
    rows = {row.name: row for row in check_site(kit, timeout_s=0.1)}
    assert rows["settings"].status == FAILED
    assert f"state/{name}" in rows["settings"].found
    with pytest.raises(BadInputError, match="was not begun by this site"):
        load_site(kit.path)
    assert not kit.ledger.exists()  # nothing was begun in it
    (kit.state / name).unlink()
    load_site(kit.path).guard()


def test_a_mark_of_another_site_begins_nothing(kits):
    """The coordinator has its own site's, and those of kits that it made the keys of."""
    other, kit = kits.site("south"), kits.site("north")
    load_site(other.path).guard()
    shutil.copytree(other.state, kit.state, dirs_exist_ok=True)
    mark = json.loads((kit.state / MARK_FILE).read_text())
    write(kit.state / MARK_FILE, json.dumps(mark | {"site": "north"}))
    write(kit.consumers_key, "k" * 32)
    with pytest.raises(BadInputError, match=r"state/consumers\.key"):
        load_site(kit.path)


def used(kit: SiteKit) -> SiteKit:
    """With the site's own ledger, hold-out key and answers."""
    site = load_site(kit.path)
    site.secret()
    site.guard()
    write(kit.state / "journal.jsonl", "")
    return kit


def test_a_site_may_move_its_kit_and_put_its_state_into_a_new_one(kit, made, tmp_path):
    shutil.copytree(used(kit).path, tmp_path / "elsewhere")
    load_site(tmp_path / "elsewhere").guard()
    for name, left_out in (("whole", ()), ("of an earlier version", (MARK_FILE,))):
        fresh = SiteKit(tmp_path / name)
        shutil.copytree(Kits(made).site("north").path, fresh.path)
        shutil.copytree(kit.state, fresh.state, ignore=lambda _, __, out=left_out: out, dirs_exist_ok=True)
        load_site(fresh.path).guard()
        assert (fresh.state / MARK_FILE).is_file()


def test_a_ledger_may_come_alone_into_a_new_kit(kit, made, tmp_path):
    fresh = SiteKit(tmp_path / "fresh")
    shutil.copytree(Kits(made).site("north").path, fresh.path)
    fresh.state.mkdir(exist_ok=True)
    shutil.copy(used(kit).ledger, fresh.ledger)
    load_site(fresh.path).guard()


def test_a_state_under_former_keys_is_this_sites_once_it_has_proved_them(kit):
    former, identity = Identity.load("north", used(kit).identity_key), Identity.generate("north")
    kit.identity_key.unlink()
    identity.save(kit.identity_key)
    with pytest.raises(BadInputError, match="was not begun by this site"):
        require_own_state(kit, identity)
    with pytest.raises(BadInputError, match="was not begun by this site"):
        adopt_state(kit, Identity.generate("north").public_key)
    adopt_state(kit, former.public_key)
    require_own_state(kit, identity)


@pytest.mark.parametrize(
    "name", ["roster.json", "policy.toml", "ca.crt", "state/own.json", "state/ledger.jsonl", "state/consumers.key"]
)
def test_a_pipe_in_a_kit_keeps_nobody_waiting(kit, name):
    (kit.path / name).unlink(missing_ok=True)
    (kit.path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(kit.path / name)
    rows = {row.name: row for row in check_site(kit, timeout_s=0.1)}
    assert f"{name}: a special file" in rows["files"].found
    assert rows["settings"].status == FAILED
    if name.startswith("state/"):
        with pytest.raises(BadInputError, match="was not begun by this site"):
            load_site(kit.path)


def test_a_shared_ledger_cannot_be_planted_in_the_state(kit):
    """site.toml is delivered too, and may name a folder whose keys somebody else made."""
    point(kit, ledger="state/shared", scope="shoppers")
    for name in ("ledger.key", "consumers.key"):
        write(kit.state / "shared" / name, "k" * 32)
    with pytest.raises(BadInputError, match=r"state/shared/consumers\.key"):
        load_site(kit.path)
