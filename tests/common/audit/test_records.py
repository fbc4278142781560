"""An audit takes a run, a ledger, a folder of ledgers or a kit, and finds what lies beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.main import main
from cli.report.audit_view import read_audit
from client.guard import open_guard
from common.audit.records import find_records
from common.audit.verify import verify_path
from common.errors import BadInputError
from common.trust.identity import Identity, Roster
from tests.cli.test_audit_command import make_audited_run
from tests.guard_samples import policy, proposal

LIMIT = 6.5
SHOP = Identity.from_seed("shop", b"s" * 32)
COORDINATOR = Identity.from_seed("coordinator", b"c" * 32)
OTHER = Identity.from_seed("shop", b"o" * 32)


def make_kit(path: Path, *, plain: bool = False) -> Path:
    """A site's kit after one round."""
    path.mkdir()
    (path / "site.toml").write_text("")
    rules = policy(epsilon_max=LIMIT, plain_aggregation=plain)
    rules.save(path / "policy.toml")
    Roster.signed_by(COORDINATOR, [("shop", SHOP.public_key)]).save(path / "roster.json")
    guard = open_guard(path / "state", SHOP, rules, "consumers")
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)
    (path / "state" / "journal.jsonl").write_text('{"session": 1}\n')
    return path


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return make_kit(tmp_path / "kit")


FORMS = ["", "state", "state/ledger.jsonl"]


@pytest.mark.parametrize("form", FORMS)
def test_a_kit_and_the_ledger_in_it_are_verified_against_the_pinned_key(kit, form):
    report = verify_path(kit / form)
    assert report.ok, report.findings
    assert [ledger.pinned for ledger in report.ledgers] == [True]


@pytest.mark.parametrize("form", FORMS)
def test_limit_and_aggregation_are_those_of_the_policy_beside_it(kit, form):
    audit = read_audit(kit / form)
    assert [site.budget.limit for site in audit.sites] == [LIMIT]
    seen = {a.who: a.sees for a in audit.statement.adversaries}["the server"]
    assert seen.startswith("the sum over the surviving sites")


def test_a_site_that_allows_plain_aggregation_is_not_said_to_be_secure(tmp_path):
    audit = read_audit(make_kit(tmp_path / "kit", plain=True))
    seen = {a.who: a.sees for a in audit.statement.adversaries}["the server"]
    assert "does not record" in seen


def test_another_key_in_the_roster_beside_it_is_found(kit):
    Roster.signed_by(COORDINATOR, [("shop", OTHER.public_key)]).save(kit / "roster.json")
    for form in FORMS:
        assert "another key" in str(verify_path(kit / form).findings[0])


def test_a_damaged_roster_beside_it_is_a_finding(kit):
    (kit / "roster.json").write_text("{")
    assert verify_path(kit).findings[0].where == "roster.json"


def test_a_cut_tail_is_found_by_the_anchor_beside_it(kit):
    ledger = kit / "state" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    assert "tail is cut" in str(verify_path(kit).findings[0])


def test_a_ledger_alone_still_verifies_and_says_that_nothing_pins_it(kit, tmp_path):
    lone = tmp_path / "elsewhere" / "shop.jsonl"
    lone.parent.mkdir()
    shutil.copy(kit / "state" / "ledger.jsonl", lone)
    report = verify_path(lone)
    assert report.ok
    assert any("not pinned" in str(note) for note in report.notes)
    assert read_audit(lone).sites[0].budget.limit is None


def test_the_ledgers_of_a_run_are_pinned_by_the_runs_roster(tmp_path):
    run = make_audited_run(tmp_path / "run")
    for path in (run / "ledgers", run / "ledgers" / "north.jsonl"):
        report = verify_path(path)
        assert report.ok, report.findings
        assert all(ledger.pinned for ledger in report.ledgers)


def test_a_broken_ledger_in_a_folder_is_named_not_skipped(tmp_path):
    run = make_audited_run(tmp_path / "run")
    (run / "ledgers" / "north.jsonl").write_bytes(b"{nonsense\n")
    report = verify_path(run / "ledgers")
    assert [finding.where.split(",")[0] for finding in report.findings] == ["north.jsonl"]
    assert [ledger.site for ledger in report.ledgers] == ["south"]


def test_a_coordinators_kit_means_its_newest_run(tmp_path):
    run = make_audited_run(tmp_path / "coordinator" / "runs" / "first")
    assert find_records(tmp_path / "coordinator").run.path == run


@pytest.mark.parametrize("words", [["audit", "show"], ["audit", "verify"]])
def test_where_there_is_nothing_the_command_says_so(tmp_path, capsys, words):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing", Path("/"), Path("/proc")):
        assert main([*words, str(path)]) == 2
        assert "hint: name a run folder, a ledger, a folder of ledgers, or a kit" in capsys.readouterr().err
    with pytest.raises(BadInputError):
        find_records(tmp_path / "missing")
