"""The commands of a deployment: what they print, and their exit codes when nothing is running."""

import json

import pytest
import tomli_w

from cli.main import main

SITES = [{"name": name, "population": 200, "events": "events.csv"} for name in ("north", "south", "east")]


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    write_federation(folder)
    assert main(["provision", str(folder / "federation.toml"), "--out", str(folder / "kits")]) == 0
    return folder / "kits"


def write_federation(folder, sites=SITES):
    tree = {"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}
    (folder / "federation.toml").write_text(tomli_w.dumps(tree))


def code_and_output(capsys, *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_provision_says_whose_keys_were_made_here_and_what_to_do_next(tmp_path, capsys):
    write_federation(tmp_path)
    code, out, err = code_and_output(capsys, "provision", tmp_path / "federation.toml", "--out", tmp_path / "k")
    assert code == 0
    assert "trial only" in out
    assert "warning: private keys of 3 sites were made here" in err
    assert "keep KITS/authority offline" in err


def test_provision_gives_json_on_stdout_alone(tmp_path, capsys):
    write_federation(tmp_path)
    code, out, _ = code_and_output(
        capsys, "provision", tmp_path / "federation.toml", "--out", tmp_path / "k", "--json"
    )
    assert code == 0
    assert json.loads(out)["sites"] == ["north", "south", "east"]


def test_a_bad_federation_file_is_bad_input(tmp_path, capsys):
    write_federation(tmp_path, [*SITES, SITES[0]])
    code, _, err = code_and_output(capsys, "provision", tmp_path / "federation.toml", "--out", tmp_path / "k")
    assert (code, "name used twice: north" in err, "hint:" in err) == (2, True, True)


def test_keygen_makes_keys_once_and_never_over_others(tmp_path, capsys):
    assert code_and_output(capsys, "site", "keygen", "--name", "west", "--out", tmp_path)[0] == 0
    assert (tmp_path / "west.keys.json").exists()
    code, _, err = code_and_output(capsys, "site", "keygen", "--name", "west", "--out", tmp_path)
    assert (code, "move the old keys away" in err) == (2, True)


def test_check_of_a_site_that_cannot_start_ends_with_1_and_says_what_to_do(kits, capsys):
    code, out, _ = code_and_output(capsys, "site", "check", kits / "sites/north")
    assert code == 1
    assert "failed   data" in out
    assert "->" in out


def test_check_as_json_has_a_status_for_every_row(kits, capsys):
    code, out, _ = code_and_output(capsys, "site", "check", kits / "sites/north", "--json")
    result = json.loads(out)
    assert (code, result["status"]) == (1, "failed")
    assert {row["status"] for row in result["checks"]} <= {"ok", "warning", "failed"}


def test_status_of_a_site_shows_budget_and_that_it_does_not_run(kits, capsys):
    code, out, _ = code_and_output(capsys, "site", "status", kits / "sites/north", "--json")
    result = json.loads(out)
    assert (code, result["pid"], result["budget"]["epsilon"], result["budget"]["limit"]) == (0, None, 0.0, 8.0)


def test_approve_without_a_waiting_run_says_so_and_an_unknown_run_is_bad_input(kits, capsys):
    assert "no run waits" in code_and_output(capsys, "site", "approve", kits / "sites/north")[1]
    assert code_and_output(capsys, "site", "approve", kits / "sites/north", "none")[0] == 2


def test_recover_from_something_else_than_an_attestation_is_bad_input(kits, tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    code, _, err = code_and_output(
        capsys, "site", "recover", kits / "sites/north", "--attestation", tmp_path / "x.json"
    )
    assert (code, "hint:" in err) == (2, True)


def test_status_of_a_server_that_is_down_is_an_answer(kits, capsys):
    code, out, _ = code_and_output(capsys, "server", "status", kits / "coordinator")
    assert (code, "down" in out, "not connected" in out) == (0, True, True)


def test_a_run_needs_a_running_server(kits, tmp_path, capsys):
    (tmp_path / "run.toml").write_text('name = "x"\n')
    code, _, err = code_and_output(capsys, "server", "run", kits / "coordinator", tmp_path / "run.toml")
    assert (code, "the server is not running" in err) == (2, True)


def test_resume_without_a_run_is_bad_input(kits, capsys):
    code, _, err = code_and_output(capsys, "server", "resume", kits / "coordinator")
    assert (code, "has no run" in err) == (2, True)


@pytest.mark.parametrize(
    "words", [("site", "check"), ("site", "start"), ("server", "start"), ("server", "status")]
)
def test_a_folder_that_is_no_kit_is_bad_input(tmp_path, capsys, words):
    code, _, err = code_and_output(capsys, *words, tmp_path)
    assert (code, "is not a" in err) == (2, True)


def test_the_demo_does_not_write_into_a_folder_that_holds_something(tmp_path, capsys):
    (tmp_path / "x").write_text("mine")
    assert code_and_output(capsys, "demo", "--keep", tmp_path)[0] == 2
