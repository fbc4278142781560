"""Two federations ask for the same consumers: one account, whoever asks, or the limit means nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from client.guard.shared_ledger import absorb, shared_ledger
from client.runtime.check import check_site
from client.runtime.ledgers import move
from client.site import load_site
from common.audit.verify import verify_path
from common.deployment import SiteKit
from common.errors import BadInputError, BudgetExhaustedError, PolicyRefusedError, RollbackError, VerificationError
from common.privacy.accountant import RdpAccountant
from common.privacy.entries import make_line, parse_line
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, PrivacyEvent
from common.run import build_config
from common.trust.identity import Identity
from tests.shared_kits import LOOK, asked, make_kits, spend


@pytest.fixture
def kits(tmp_path: Path) -> list[SiteKit]:
    """The same shop in two federations."""
    return make_kits(tmp_path)


def spend_on(kits: list[SiteKit]) -> None:
    for number in range(2, 9):
        spend(kits[number % 2], "run-two" if number % 2 else "run-one", number)


def truth(steps: int) -> float:
    return RdpAccountant([PrivacyEvent(1.15, 0.1, steps)]).epsilon(1e-5)


def test_kits_with_ledgers_of_their_own_are_told_so(kits: list[SiteKit]) -> None:
    for kit in kits:
        row = next(row for row in check_site(kit, timeout_s=0.2) if row.name == "ledger")
        assert (row.status, "first ledger of scope" in row.found) == ("warning", True)
        assert "point to that ledger" in row.todo


def test_a_second_federation_begins_where_the_first_one_ended(kits: list[SiteKit], tmp_path: Path) -> None:
    spend(kits[0], "run-one")
    before = load_site(kits[0].path).guard().status().epsilon
    moved = move(kits[0], str(tmp_path / "account"), "shoppers")
    assert moved.epsilon == before > 4
    assert (kits[0].state / "moved-ledger.jsonl").is_file() and not (kits[0].state / "ledger.jsonl").exists()
    move(kits[1], str(tmp_path / "account"), "shoppers")
    said = spend(kits[1], "run-two").attestation
    assert said.site == "shop-two"
    assert said.epsilon_before >= moved.epsilon
    assert said.epsilon_after >= truth(120)
    for kit in kits:  # both see the same account
        assert load_site(kit.path).guard().status().epsilon == pytest.approx(said.epsilon_after, abs=1e-5)
        assert verify_path(kit.path, every_round=True).ok
    with pytest.raises(BudgetExhaustedError):
        spend_on(kits)


def test_both_kits_hold_out_the_same_consumers(kits: list[SiteKit], tmp_path: Path) -> None:
    for kit in kits:
        move(kit, str(tmp_path / "account"), "shoppers")
    first, second = (load_site(kit.path) for kit in kits)
    assert first.split_key() == second.split_key()
    assert first.event_log().consumers.tolist() == second.event_log().consumers.tolist()
    spend(kits[0], "run-one")
    with pytest.raises(PolicyRefusedError, match="holdout"):
        second.guard().reserve(asked(second, "run-two", holdout=0.3))


def test_of_a_kit_with_another_hold_out_everything_counts_on_both_sides(
    kits: list[SiteKit], tmp_path: Path
) -> None:
    for kit, run in zip(kits, ("run-one", "run-two"), strict=True):
        spend(kit, run)
    move(kits[0], str(tmp_path / "account"), "shoppers")
    move(kits[1], str(tmp_path / "account"), "shoppers")
    spent = load_site(kits[0].path).guard().ledger.state.spent
    sides = {s: sum(e.steps for e in spent if e.sub_scope == s) for s in (TRAIN_SIDE, HOLDOUT_SIDE)}
    assert sides == {TRAIN_SIDE: 60 + 61, HOLDOUT_SIDE: 1 + 61}


def test_a_restart_of_one_kit_leaves_the_others_reservation_alone(kits: list[SiteKit], tmp_path: Path) -> None:
    for kit in kits:
        move(kit, str(tmp_path / "account"), "shoppers")
    one, two = (load_site(kit.path) for kit in kits)
    grant = one.guard().reserve(asked(one, "the-same-name"))
    two.guard().restart()
    two.guard().close_round("the-same-name", 1)
    assert one.guard().status().open == 1
    assert two.guard().find("the-same-name", 1) is None
    one.guard().store(grant, b"numbers", grant.attestation.attestation.events)
    assert one.guard().commit(grant) == b"numbers"


def test_the_servers_echo_of_the_old_ledger_is_no_rollback_and_of_a_later_one_is(
    kits: list[SiteKit], tmp_path: Path
) -> None:
    before = spend(kits[0], "run-one")
    move(kits[0], str(tmp_path / "account"), "shoppers")
    site = load_site(kits[0].path)
    echo = dataclasses.replace(before.attestation, scope="shoppers")
    old = type(before).sign(echo, site.identity)
    site.guard().reserve(asked(site, "run-one", 2), before)
    site.guard().reserve(asked(site, "run-one", 3, events=(LOOK,)), old)
    late = type(before).sign(dataclasses.replace(echo, sequence=99), site.identity)
    with pytest.raises(RollbackError):
        site.guard().reserve(asked(site, "run-one", 4, events=(LOOK,)), late)


@pytest.mark.parametrize("what", ["a stranger's reservation", "a forged admission", "an admission taken out"])
def test_who_was_not_admitted_cannot_write_unseen(kits: list[SiteKit], tmp_path: Path, what: str) -> None:
    move(kits[0], str(tmp_path / "account"), "shoppers")
    spend(kits[0], "run-one")
    file = tmp_path / "account" / "ledger.jsonl"
    owner = Identity.load("shoppers", tmp_path / "account" / "ledger.key")
    lines: list[bytes] = []
    for line in file.read_bytes().splitlines():
        entry = parse_line(line)
        body: Any = entry.body
        if what == "a stranger's reservation" and body.kind == "reserve":
            body = body.model_copy(update={"by": "ee" * 32})
        if what == "a forged admission" and body.kind == "admit":
            body = body.model_copy(update={"public_key": Identity.generate("thief").public_key.hex()})
        if what == "an admission taken out" and body.kind == "admit":
            continue
        previous = parse_line(lines[-1][:-1]).hash if lines else entry.previous
        lines.append(make_line(body, sequence=len(lines), previous=previous, time=entry.time, identity=owner))
    file.write_bytes(b"".join(lines))
    assert not verify_path(kits[0].path).ok
    with pytest.raises(VerificationError):
        load_site(kits[0].path).guard()


def test_the_scope_must_have_a_name_and_a_ledger_is_moved_once(kits: list[SiteKit], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="own name"):
        move(kits[0], str(tmp_path / "account"))
    spend(kits[0], "run-one")
    place = shared_ledger(str(tmp_path / "account"), "shoppers", "shop-one", kits[0].path)
    assert place is not None
    identity = load_site(kits[0].path).identity
    old, key = kits[0].state / "ledger.jsonl", kits[0].state / "consumers.key"
    assert absorb(place, 1e-5, old, identity.public_key, key)
    assert not absorb(place, 1e-5, old, identity.public_key, key)
    charged = move(
        kits[0], str(tmp_path / "account"), "shoppers"
    )  # cut off after the charge: ended, not charged twice
    assert charged.epsilon == pytest.approx(load_site(kits[0].path).guard().status().epsilon)
    assert len(load_site(kits[0].path).guard().ledger.state.absorbed) == 1
    with pytest.raises(BadInputError, match="already"):
        move(kits[0], str(tmp_path / "elsewhere"), "shoppers")


def test_the_users_own_folder_and_the_command(kits: list[SiteKit], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert main(["site", "move-ledger", str(kits[0].path), "user", "--scope", "shoppers"]) == 0
    assert "fedcart/ledgers/shoppers" in capsys.readouterr().out
    spend(kits[0], "run-one")
    assert (tmp_path / "state/fedcart/ledgers/shoppers/ledger.jsonl").is_file()
    assert main(["audit", "verify", str(kits[0].path)]) == 0
    assert main(["audit", "show", str(kits[0].path)]) == 0
    assert "shoppers" in capsys.readouterr().out
    assert main(["site", "move-ledger", str(kits[0].path), "user"]) == 2


def test_two_kits_make_one_key(kits: list[SiteKit], tmp_path: Path) -> None:
    place = shared_ledger(str(tmp_path / "account"), "shoppers", "shop-one", kits[0].path)
    other = shared_ledger(str(tmp_path / "account"), "shoppers", "shop-two", kits[1].path)
    assert place is not None and other is not None
    assert place.identity().public_key == other.identity().public_key
    assert (tmp_path / "account" / "ledger.key").stat().st_mode & 0o777 == 0o600


def test_rows_that_were_encoded_before_the_move_are_encoded_anew(kits: list[SiteKit], tmp_path: Path) -> None:
    """Kept under the old key, they would be split by the new one: held out by one kit, trained on by the other."""
    from common.data.features import feature_spec
    from common.run import RunPlan

    config = build_config({"features": {"item_buckets": 40}})
    populations = (("shop-one", 200), ("shop-two", 200), ("south", 200), ("east", 200))
    plan = RunPlan(
        "run", config.public_json(), populations, feature_spec(None, item_buckets=40).canonical(), 10, 1.0, 1.0
    )
    for kit in kits:
        load_site(kit.path).prepared(plan)  # each has taken part, under a key of its own
    for kit in kits:
        move(kit, str(tmp_path / "account"), "shoppers")
    one, two = (load_site(kit.path).prepared(plan).sides for kit in kits)
    assert one.holdout.consumers.tolist() == two.holdout.consumers.tolist()
    assert one.validation.consumers.tolist() == two.validation.consumers.tolist()
    assert one.train.consumers.tolist() == two.train.consumers.tolist()
