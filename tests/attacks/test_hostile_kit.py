"""A kit that was delivered with more in it than a kit has, keys that others can read, a policy that allows all."""

from __future__ import annotations

import os
import shutil
import stat
import sys

import pytest
import tomli_w

from cli.main import main
from client.guard import SitePolicy
from client.guard.policy import ALLOWS_MORE_ABOVE, ALLOWS_MORE_BELOW, WORDS
from client.runtime.check import FAILED, OK, WARNING, check_site
from client.runtime.kit_check import require_sound_kit
from client.runtime.unit import systemd_unit
from client.site import load_site
from common.deployment import Kits
from common.errors import BadInputError
from common.kit_files import strange_files
from common.tasks import TASKS
from common.trust.certificates import load_node_key
from server.provision import provision
from server.runtime.start import start_server
from server.runtime.unit import systemd_unit as server_unit
from tests.delivered_kits import point, write


def test_a_kit_as_it_is_delivered_and_used_is_sound(kit):
    require_sound_kit(kit)
    write(kit.path / "events.csv")
    write(kit.path / "north.keys.json", "{}")
    load_site(kit.path).guard()
    for name in ("log.txt", "log.1.txt", "running.pid", "session.json", "consumers-0123.npz", "consumers-01-23.rows", "000001.part", "purchases-01.npz",
                 "journal.jsonl", "ledger.head.json", "ledger.lost-1.jsonl", "moved-ledger.jsonl", "feedback.jsonl", "verdicts.jsonl",
                 "alarms.jsonl", "serving/live.snapshot", "serving/live-set-aside.snapshot", "serving/serving.json",
                 "outbox/7.contribution", "outbox/.7.contribution.4711", ".session.json.abc_123", "approvals/ab.json",
                 "releases/ab.ring", "diagnostics.jsonl", "flower/apps/any.py", "work/any.so"):  # fmt: skip
        write(kit.state / name)
    assert strange_files(kit) == []


STRANGE = {
    "uvicorn.py": "uvicorn.py",
    "client/__init__.py": "client: a folder",
    "torch/x": "torch: a folder",
    "sitecustomize.py": "sitecustomize.py",
    "usercustomize.py": "usercustomize.py",
    "evil.pth": "evil.pth",
    ".env": ".env",
    "pyproject.toml": "pyproject.toml",
    "start.sh": "start.sh",
    "fedcart-site.service": "fedcart-site.service",
    "Identity.key": "Identity.key",
    "ROSTER.JSON": "ROSTER.JSON",
    "site.toml ": "site.toml ",
    "libgomp.so.1": "libgomp.so.1",
    "events.py": "events.py",
    ".north.keys.json": ".north.keys.json",
    "south.keys.json": "south.keys.json",
    "North.keys.json": "North.keys.json",
    "state/client/__init__.py": "state/client/__init__.py",
    "state/x.so": "state/x.so",
    "state/.x.py.json": "state/.x.py.json",
    "state/.evil.py.abc": "state/.evil.py.abc",
    "state/outbox/run.sh": "state/outbox/run.sh",
    "State/ledger.jsonl": "State: a folder",
}


@pytest.mark.parametrize(("name", "said"), STRANGE.items())
def test_whatever_else_lies_in_a_kit_is_named(kit, name, said):
    write(kit.path / name)
    assert strange_files(kit) == [said]
    with pytest.raises(BadInputError, match="not part of a kit"):
        require_sound_kit(kit)
    row = {row.name: row for row in check_site(kit, timeout_s=0.1)}["files"]
    assert row.status == FAILED
    assert said in row.found


@pytest.mark.parametrize(
    "name", ["\x1b[2J.keys.json", "state/\x1b[2J.json", "state/x\u202e.json", "state/a b.json"]
)
def test_no_name_that_acts_on_whoever_lists_it_is_one_of_a_kit(kit, name):
    write(kit.path / name)
    assert strange_files(kit) == [name]


def test_nothing_is_followed(kit, tmp_path):
    away = tmp_path / "away"
    write(away / "roster.json")
    kit.roster.unlink()
    kit.roster.symlink_to(away / "roster.json")
    shutil.rmtree(kit.state)
    kit.state.symlink_to(away)
    kit.authority.unlink()
    kit.authority.mkdir()
    os.mkfifo(kit.path / "README.txt.")
    (kit.path / "README.txt").unlink()
    os.mkfifo(kit.path / "README.txt")
    (kit.path / "events.csv").symlink_to(away / "events.csv")
    assert set(strange_files(kit)) == {
        "roster.json: a link", "state: a link", "ca.crt: a folder", "README.txt: a special file",
        "README.txt.: a special file", "events.csv: a link",
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["flower", "work"])
def test_a_folder_that_is_emptied_at_the_start_must_not_be_a_link(kit, tmp_path, folder):
    """Whatever it pointed to would be emptied."""
    (tmp_path / "precious").mkdir()
    (kit.state / folder).symlink_to(tmp_path / "precious")
    assert strange_files(kit) == [f"state/{folder}: a link"]


def test_data_may_lie_in_the_kit_where_site_toml_names_it_and_is_never_code(kit):
    point(kit, events="data/2026", mapping="maps/own.toml")
    for name in ("data/2026/a.parquet", "data/2026/deep/b.parquet", "maps/own.toml"):
        write(kit.path / name)
    assert strange_files(kit) == []
    for name in ("data/2026/deep/c.py", "data/other.csv", "maps/more.toml"):
        write(kit.path / name)
    assert strange_files(kit) == ["data/2026/deep/c.py", "data/other.csv", "maps/more.toml"]


@pytest.mark.parametrize(
    "events", ["client/__init__.py", "uvicorn.py", "client", ".", "", "../north", "a/../../x"]
)
def test_a_kit_cannot_call_its_code_data(kit, events):
    point(kit, events=events)
    write(kit.path / "client/__init__.py")
    write(kit.path / "uvicorn.py")
    assert "uvicorn.py" in strange_files(kit)
    assert any(name.startswith("client") for name in strange_files(kit))


@pytest.mark.parametrize("side", ["group", "others"])
@pytest.mark.parametrize("name", ["identity.key", "node.key", "state/consumers.key"])
def test_a_site_with_a_key_that_others_can_read_does_not_start(kit, name, side):
    load_site(kit.path).secret()
    (kit.path / name).chmod(0o640 if side == "group" else 0o604)
    with pytest.raises(BadInputError, match="others can read") as caught:
        require_sound_kit(kit)
    assert "chmod 600" in caught.value.hint
    row = {row.name: row for row in check_site(kit, timeout_s=0.1)}["permissions"]
    assert row.status == FAILED
    assert name in row.found
    use = {"identity.key": lambda: load_site(kit.path), "node.key": lambda: load_node_key(kit.node_key)}
    with pytest.raises(BadInputError, match="others can read"):
        use.get(name, lambda: load_site(kit.path).secret())()


@pytest.mark.parametrize("name", ["identity.key", "server.key", "control.token"])
def test_a_server_with_a_key_that_others_can_read_does_not_start(kits, name, monkeypatch):
    monkeypatch.setattr("server.runtime.start.keep_running", lambda *_: pytest.fail("it was started"))
    (kits.coordinator.path / name).chmod(0o644)
    with pytest.raises(BadInputError, match=f"others can read: {name}"):
        start_server(kits.coordinator, lambda _: None)


def test_an_authority_that_others_can_read_issues_nothing(kits, made):
    (kits.folder / "authority/ca.key").chmod(0o640)
    with pytest.raises(BadInputError, match=r"others can read: ca\.key"):
        provision(made.parent / "federation.toml", kits.folder)


@pytest.mark.parametrize("name", ["policy.toml", "roster.json", "."])
def test_a_kit_that_others_can_write_fails_the_check(kit, name):
    path = kit.path / name
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o020)
    row = {row.name: row for row in check_site(kit, timeout_s=0.1)}["permissions"]
    assert row.status == FAILED
    assert "writable by others" in row.found


def test_the_default_policy_has_no_laxer_rule_and_a_new_kit_neither(kit):
    assert SitePolicy().laxer_rules() == []
    assert SitePolicy.load(kit.policy).laxer_rules() == []
    rows = [row for row in check_site(kit, timeout_s=0.1) if row.name == "policy"]
    assert [row.status for row in rows] == [OK]


def test_every_rule_has_a_direction():
    known = [*ALLOWS_MORE_ABOVE, *ALLOWS_MORE_BELOW, *WORDS]
    assert sorted(known) == sorted(SitePolicy.model_fields)


LAX = {
    "epsilon_max": 1e6, "delta": 0.09, "noise_multiplier_min": 0.1, "evaluation_noise_min": 0.2,
    "sampling_rate_max": 1.0, "steps_max": 10**6, "clip_min": 1e-9, "clip_max": 1e9, "learning_rate_max": 1e6,
    "weight_ratio_max": 1e9, "min_cohort": 1, "min_consumers": 1, "min_stockists": 1, "min_threshold_fraction": 0.01,
    "plain_aggregation": True, "failures_max": 99, "voids_max": 99, "approve": "auto",
}  # fmt: skip


@pytest.mark.parametrize(("rule", "value"), LAX.items())
def test_a_rule_that_allows_more_than_the_default_is_named_in_the_check(kit, rule, value):
    SitePolicy(**{rule: value}).save(kit.policy)
    rows = [row for row in check_site(kit, timeout_s=0.1) if row.name == "policy"]
    assert [(row.status, row.found.split(" = ")[0]) for row in rows] == [(WARNING, rule)]


def test_a_rule_that_allows_less_is_not(kit):
    policy = SitePolicy(
        epsilon_max=1.0, delta=1e-7, min_cohort=9, evaluation=False, allowed_tasks=tuple(TASKS)[:1]
    )
    assert policy.laxer_rules() == []


def test_a_kit_brings_no_program(kit):
    assert not [path for path in kit.path.rglob("*") if path.is_file() and path.stat().st_mode & 0o111]
    assert {path.suffix for path in kit.path.iterdir() if path.is_file()} <= {
        ".toml",
        ".json",
        ".crt",
        ".key",
        ".txt",
    }


def test_a_unit_is_written_at_the_site_with_its_own_paths(kit):
    text = systemd_unit(kit, "shop")
    assert f"ExecStart={sys.executable} -P -m cli.main site start {kit.path}" in text
    assert f"ReadWritePaths={kit.state}\n" in text
    assert "User=shop" in text and "WorkingDirectory=/\n" in text and "PrivateTmp=no" in text


def test_a_coordinators_unit_writes_its_state_and_runs_only(kits):
    kit = kits.coordinator
    lines = server_unit(kit, "fed").splitlines()
    assert f"ReadWritePaths={kit.state} {kit.runs}" in lines
    assert next(line for line in lines if line.startswith("ExecStart=")).endswith(
        f"cli.main server start {kit.path}"
    )
    assert {"User=fed", "Type=notify", "LimitNOFILE=65536"} <= set(lines)


def test_a_unit_brings_the_password_of_a_source_from_a_file_of_root_and_holds_none(kit, monkeypatch):
    monkeypatch.setenv("FEDCART_SOURCE_SHOP", "only-for-the-database")
    text = kit.settings.read_text().replace('events = "events.csv"', 'events = ""')
    source = '[source]\nkind = "sql"\ndriver = "sqlite"\nuri = "/home/shop/a.db"\nquery = "SELECT 1"\n'
    kit.settings.write_text(text + source + 'password_env = "FEDCART_SOURCE_SHOP"\n')
    unit = systemd_unit(kit, "shop")
    assert "\nEnvironmentFile=/etc/fedcart-north.env\n" in unit
    assert "FEDCART_SOURCE_SHOP=..." in unit and "only-for-the-database" not in unit
    assert "ProtectHome=read-only" in unit  # the database lies below /home


def test_a_unit_without_a_secret_asks_for_no_file(kit):
    assert "EnvironmentFile" not in systemd_unit(kit, "shop")


@pytest.mark.parametrize("name", ["two words", "per%cent", "dollar$HOME", 'quo"te', "semi;colon", "back\\slash"])
def test_a_path_cannot_add_a_word_to_a_unit(kits, name):
    kits.folder.rename(kits.folder.with_name(name))
    kit = Kits(kits.folder.with_name(name)).site("north")
    line = next(line for line in systemd_unit(kit, "shop").splitlines() if line.startswith("ExecStart="))
    escaped = name.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    assert line.endswith(f'site start "{kit.path.parents[2]}/{escaped}/sites/north"')


def test_a_path_with_a_line_break_makes_no_unit(kits):
    kits.folder.rename(kits.folder.with_name("a\nExecStartPre=evil"))
    with pytest.raises(BadInputError, match="cannot stand in a unit"):
        systemd_unit(Kits(kits.folder.with_name("a\nExecStartPre=evil")).site("north"), "shop")


@pytest.mark.parametrize("command", [["site", "start"], ["site", "unit"], ["site", "check"]])
def test_the_commands_stop_at_a_strange_file(kit, command, capsys):
    write(kit.path / "uvicorn.py")
    assert main([*command, str(kit.path)]) in (1, 2)
    said = capsys.readouterr()
    assert "not part of a kit: 'uvicorn.py'" in said.out + said.err


@pytest.mark.parametrize(
    "events",
    ["/data/\U0001f6d2/events.csv", 'quo"te.csv', "back\\slash.csv", "new\nline = 1", "tab\t.csv", "']\n[x]"],
)
def test_a_path_with_any_character_survives_the_making_of_a_kit_and_a_move_of_its_ledger(tmp_path, events):
    from client.runtime.ledgers import move

    sites = [{"name": "north", "population": 1000, "events": events, "catalogue": events}]
    tree = {"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}
    (tmp_path / "federation.toml").write_text(tomli_w.dumps(tree), "utf-8")
    provision(tmp_path / "federation.toml", tmp_path / "kits")
    kit = Kits(tmp_path / "kits").site("north")
    assert (kit.read().site.events, kit.read().site.catalogue) == (events, events)
    folder = tmp_path / 'led"ger \U0001f6d2\\1'
    folder.mkdir(mode=0o700)
    move(kit, str(folder), "shoppers")
    assert (kit.read().site.ledger, kit.read().site.events) == (str(folder), events)
