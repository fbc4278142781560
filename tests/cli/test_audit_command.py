"""``fedcart audit``: every figure is on the table, the page, in CSV and JSON; what is broken is named."""

import csv
import io
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main
from cli.report.audit_page import render_audit
from cli.report.audit_view import Audit, read_audit
from client.guard import open_guard
from common.privacy.mechanism import PrivacyEvent
from common.run.files import RunFolder
from common.trust.identity import Identity
from tests.cli.test_report import Outline
from tests.guard_samples import policy
from tests.signed_runs import signed_run

LIMIT = 9.0
COORDINATOR = Identity.from_seed("coordinator", b"c" * 32)
SITES = ("north", "south")
EVENTS = (PrivacyEvent(2.0, 0.1, 10), PrivacyEvent(8.0, 1.0, 1, "holdout"))


def make_audited_run(path: Path, rounds: int = 3, *, simulated: bool = True) -> Path:
    """A run folder with true ledgers of two sites; south reserves once without leaving, so one entry is void."""
    run = RunFolder.create(path)
    identities = {name: Identity.from_seed(name, name.encode().ljust(32, b"-")) for name in SITES}
    settings = ["name=audited", "training.rounds=3", "training.local_steps=10", "privacy.sampling_rate=0.1"]
    signed = signed_run(run, identities, settings, (2.0, 8.0))
    guards = {
        name: open_guard(
            path / "state" / name,
            identity,
            policy(epsilon_max=LIMIT, plain_aggregation=True),
            name,
            ledger_path=path / "ledgers" / f"{name}.jsonl",
            simulated=simulated,
        )
        for name, identity in identities.items()
    }
    for number in range(1, rounds + 1):
        attested = {}
        for name, guard in guards.items():
            grant = guard.reserve(signed.proposal(number))
            guard.store(grant, b"contribution", grant.attestation.attestation.events)
            if not (name == "south" and number == 2):
                guard.commit(grant)
            guard.close_round("run", number)
            attested[name] = grant.attestation
        signed.append(number, attested, oracle={"clip_fraction": 0.9} if simulated else {})
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_audited_run(tmp_path_factory.mktemp("audit") / "run")


@pytest.fixture(scope="module")
def audit(run) -> Audit:
    return read_audit(run)


def test_the_table_has_every_release_the_totals_and_the_whole_statement(run, capsys):
    assert main(["audit", "show", str(run)]) == 0
    out, err = capsys.readouterr()
    for words in ("void", "committed", "10 × σ 2 at q 0.1; validation 1 × σ 8", "Totals per site", "rounds left"):
        assert words in out
    titles = [
        "Unit",
        "Neighbouring relation",
        "Trust model",
        "Mechanism",
        "Sampling",
        "Composition",
        "Random source",
    ]
    places = [out.index(f"\n{title}\n") for title in [*titles, "Assumed", "Not covered"]]
    assert places == sorted(places)
    assert "known at all 2 sites" in out
    assert "the server together with colluding sites" in out
    assert "does not carry over" in err


def test_no_shown_epsilon_is_below_the_computed_and_no_rest_above_it(run, audit, capsys):
    main(["audit", "show", str(run)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("north ", "south "))]
    totals = {row[0]: row for row in rows if len(row) > 8 and row[-1] == "simulated"}
    for site in audit.sites:
        shown, left = float(totals[site.budget.site][2]), float(totals[site.budget.site][4])
        assert site.budget.epsilon <= shown <= site.budget.epsilon + 0.001
        assert left <= LIMIT - site.budget.epsilon


def test_a_void_entry_is_shown_and_not_counted(audit):
    north, south = audit.sites
    assert [row.state for row in south.rows] == ["committed", "void", "committed"]
    assert len(south.charged) == 2
    assert south.budget.epsilon < north.budget.epsilon
    assert south.rows[1].epsilon_so_far == south.rows[0].epsilon_so_far


def test_the_limit_and_the_rounds_left_come_from_the_sites_own_attestations(audit):
    for site in audit.sites:
        assert site.budget.limit == LIMIT
        assert site.rounds_left is not None
        assert site.rounds_left > 0
    assert audit.sites[1].rounds_left >= audit.sites[0].rounds_left


def test_csv_has_one_line_per_site_and_reservation(run, tmp_path, capsys):
    assert main(["audit", "show", str(run), "--csv", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [(r["site"], r["round"], r["state"]) for r in rows if r["site"] == "south"] == [
        ("south", "1", "committed"),
        ("south", "2", "void"),
        ("south", "3", "committed"),
    ]
    assert all(float(r["epsilon_so_far"]) + float(r["left"]) == pytest.approx(LIMIT) for r in rows)


def test_json_is_one_value_with_every_figure(run, capsys):
    assert main(["audit", "show", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["intact"]
    assert [s["site"] for s in found["sites"]] == list(SITES)
    assert found["sites"][0]["rows"][0]["epsilon_this_round"] > 0
    assert found["statement"]["cross_site"]["everywhere"] > found["statement"]["cross_site"]["disjoint"]


def test_the_page_is_well_formed_self_contained_and_holds_the_statement(audit):
    page = render_audit(audit)
    outline = Outline(page)
    assert outline.fetched == []
    words = " ".join(outline.words)
    for expected in (
        *audit.statement.assumptions,
        *audit.statement.not_covered,
        "limit 9",
        "known at all 2 sites",
    ):
        assert expected in words
    assert "Share of consumers clipped" in words
    assert page.count("<svg") >= 4


def test_a_lone_ledger_and_a_folder_of_ledgers_can_be_read_too(run, capsys):
    assert main(["audit", "show", str(run / "ledgers" / "north.jsonl")]) == 0
    assert "north" in capsys.readouterr().out
    assert [s.budget.limit for s in read_audit(run / "ledgers").sites] == [None, None]


def test_without_ledgers_the_attestations_tell(tmp_path):
    run = make_audited_run(tmp_path / "run")
    whole = read_audit(run)
    for file in (run / "ledgers").iterdir():
        file.unlink()
    seen = read_audit(run)
    assert [s.source for s in seen.sites] == ["attestations", "attestations"]
    assert seen.sites[0].budget.epsilon == whole.sites[0].budget.epsilon


def test_a_broken_record_is_named_and_never_shown_as_intact(tmp_path, capsys):
    run = make_audited_run(tmp_path / "run")
    ledger = run / "ledgers" / "north.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert main(["audit", "verify", str(run)]) == 1
    out, err = capsys.readouterr()
    assert "NOT INTACT: north.jsonl, line 3" in out
    assert err.splitlines()[-2].startswith("error: north.jsonl, line 3")
    assert err.splitlines()[-1].startswith("hint: ")
    assert main(["audit", "show", str(run), "--html", str(tmp_path / "a.html")]) == 1
    assert "NOT INTACT" in capsys.readouterr().err
    assert ">NOT INTACT<" in (tmp_path / "a.html").read_text()
    assert main(["audit", "verify", str(run), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_an_intact_record_says_what_was_checked(run, capsys):
    assert main(["audit", "verify", str(run), "--every-round"]) == 0
    assert "intact: 2 ledgers, 6 attestations" in capsys.readouterr().out
    assert main(["audit", "verify", str(run), "--roster", str(run / "roster.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_nothing_to_audit_is_bad_input(tmp_path, capsys, command):
    assert main(["audit", command, str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_run_without_privacy_claims_nothing(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run")
    (run.path / "run.toml").write_text("[privacy]\nenabled = false\n")
    assert main(["audit", "show", str(run.path), "--html", str(tmp_path / "a.html")]) == 0
    assert "NOT PRIVATE" in capsys.readouterr().err
    assert ">NOT PRIVATE<" in (tmp_path / "a.html").read_text()


@dataclass(frozen=True)
class _Check:
    name: str = "sensitivity"
    passed: bool = True
    seen: float = 0.9
    limit: float = 1.0
    meaning: str = "one consumer moves the sum by at most the clipping norm"


@dataclass(frozen=True)
class _Attack:
    canaries: int = 10
    guesses: int = 4
    correct: int = 3
    lower: float = 0.2
    upper: float = 0.9
    delta: float = 1e-5
    confidence: float = 0.999


@dataclass(frozen=True)
class _Result:
    passed: bool
    checks: tuple = (_Check(),)
    audit: _Attack = _Attack()


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_self_test_shows_lower_beside_upper_bound_and_fails_with_the_mechanism(monkeypatch, capsys, passed, code):
    def played(observer):
        observer("noise", 1, 2)
        return _Result(passed)

    monkeypatch.setitem(sys.modules, "client.selftest", types.SimpleNamespace(run_selftest=played))
    assert main(["audit", "self-test"]) == code
    out, err = capsys.readouterr()
    assert out.index("lower bound") < out.index("upper bound")
    assert ("FAILED" in out) is not passed
    assert "self-test: noise (1 of 2)" in err
