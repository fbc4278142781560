"""An account that is moved, copied, restored or shared within one run: never a second budget, never a smaller epsilon."""

from __future__ import annotations

import dataclasses
import shutil
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from client.guard import SitePolicy
from client.runtime.ledgers import move
from client.site import load_site
from common.audit.history import accounts_in, make_history
from common.audit.records import find_records
from common.audit.verify import verify_path
from common.deployment import SiteKit
from common.errors import BadInputError, FedcartError, PausedError, RollbackError
from common.kit_files import require_known_files
from common.privacy.accountant import RdpAccountant
from common.privacy.attestation import AttestedHeads
from common.privacy.entries import parse_line
from common.privacy.mechanism import TRAIN_SIDE, Losses, PrivacyEvent
from server.admission import HeadsBook
from tests.shared_kits import STEP, asked, make_kits, spend

ROUND = PrivacyEvent(5.0, 0.1, 20)
RUN = PrivacyEvent(5.0, 0.1, 60)
LIGHT: dict[str, Any] = {"events": (ROUND,), "run_events": (RUN,)}


@pytest.fixture
def kits(tmp_path: Path) -> list[SiteKit]:
    return make_kits(tmp_path)


def steps(kit: SiteKit) -> int:
    spent = load_site(kit.path).guard().ledger.state.spent
    return sum(event.steps for event in spent if event.sub_scope == TRAIN_SIDE and event.sampling_rate < 1)


def share(kits: list[SiteKit], tmp_path: Path) -> Path:
    for kit in kits:
        move(kit, str(tmp_path / "account"), "shoppers")
        load_site(kit.path).guard()
        require_known_files(kit)
    return tmp_path / "account"


def test_two_federations_may_call_their_sites_alike(tmp_path: Path) -> None:
    """Charged were the 60 steps of the first kit; the second one's were taken for the same ledger and lost."""
    kits = make_kits(tmp_path, ("shop", "shop"))
    for kit, run in zip(kits, ("run-one", "run-two"), strict=True):
        spend(kit, run)
    share(kits, tmp_path)
    assert steps(kits[0]) == steps(kits[1]) >= 2 * STEP.steps
    together = make_history([one for kit in kits for one in accounts_in(find_records(kit.path))])
    assert together.epsilon >= RdpAccountant([dataclasses.replace(STEP, steps=120)]).epsilon(1e-5)


def test_a_kit_made_anew_under_its_old_name_brings_what_it_spent(kits: list[SiteKit], tmp_path: Path) -> None:
    spend(kits[0], "run-one")
    move(kits[0], str(tmp_path / "account"), "shoppers")
    again = make_kits(private(tmp_path / "again"), ("shop-one", "shop-two"))[0]
    spend(again, "run-two")
    move(again, str(tmp_path / "account"), "shoppers")
    assert steps(again) >= 2 * STEP.steps


def private(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_ledger_that_went_on_after_its_move_is_charged_with_the_rest(
    kits: list[SiteKit], tmp_path: Path
) -> None:
    """Its state came back from a backup, and with it a kit that knew nothing of the account."""
    spend(kits[0], "run-one")
    backup = tmp_path / "backup"
    shutil.copytree(kits[0].path, backup)
    move(kits[0], str(tmp_path / "account"), "shoppers")
    shutil.rmtree(kits[0].path)
    shutil.copytree(backup, kits[0].path)
    spend(kits[0], "run-one", 2)
    move(kits[0], str(tmp_path / "account"), "shoppers")
    assert steps(kits[0]) == 2 * STEP.steps, "the common beginning once, and what came after it"


def test_two_ends_of_one_ledger_are_both_charged(kits: list[SiteKit], tmp_path: Path) -> None:
    spend(kits[0], "run-one")
    backup = tmp_path / "backup"
    shutil.copytree(kits[0].path, backup)
    spend(kits[0], "run-one", 2)
    move(kits[0], str(tmp_path / "account"), "shoppers")
    shutil.rmtree(kits[0].path)
    shutil.copytree(backup, kits[0].path)
    spend(kits[0], "run-one", 3)
    move(kits[0], str(tmp_path / "account"), "shoppers")
    assert steps(kits[0]) >= 3 * STEP.steps


def test_a_moved_kit_is_no_rollback_to_its_server(kits: list[SiteKit], tmp_path: Path) -> None:
    """The shared ledger had lower numbers than the kit had attested: its server refused every answer, all of them charged."""
    heads, key = AttestedHeads(), load_site(kits[1].path).identity.public_key
    for number in range(1, 4):
        heads.accept(spend(kits[1], "run-two", number, **LIGHT), key)
    spend(kits[0], "run-one")
    share(kits, tmp_path)
    last = heads.latest("shop-two")
    site = load_site(kits[1].path)
    site.guard().reserve(asked(site, "run-one", 9, events=(ROUND,)), last)  # and the echo is none to the site
    site.guard().close_round("run-one", 9)
    after = spend(kits[1], "run-one", 10, events=(ROUND,))
    heads.accept(after, key)
    assert after.attestation.sequence > last.attestation.sequence  # type: ignore[union-attr]
    for kit in kits:
        assert verify_path(kit.path, every_round=True).ok


def test_two_sites_of_one_run_share_an_account(kits: list[SiteKit], tmp_path: Path) -> None:
    """Refused was the second round (rule run_total): what the other site had spent counted as this one's."""
    share(kits, tmp_path)
    sites = [load_site(kit.path) for kit in kits]
    keys = tuple(site.identity.public_key.hex() for site in sites)
    truth = RdpAccountant([dataclasses.replace(RUN, steps=120)]).epsilon(1e-5)
    before = [site.guard().with_run(asked(site, "one", 1, kits=keys, **LIGHT))[1] for site in sites]
    for number in range(1, 4):
        for kit in kits:
            site = load_site(kit.path)
            site.guard().check_proposal(asked(site, "one", number, kits=keys, **LIGHT))
            spend(kit, "one", number, kits=keys, **LIGHT)
    assert steps(kits[0]) == 2 * RUN.steps
    after = [load_site(kit.path).guard().status().epsilon for kit in kits]
    assert min(before) >= max(after) - 1e-5, "what is shown before a yes is what it comes to"
    assert max(after) <= truth
    with pytest.raises(FedcartError, match="run_total"):
        spend(kits[0], "one", 4, kits=keys, **LIGHT)


def test_what_fails_at_one_kit_pauses_that_one_only(kits: list[SiteKit], tmp_path: Path) -> None:
    share(kits, tmp_path)
    one, two = (load_site(kit.path) for kit in kits)
    one.guard().fail(one.guard().reserve(asked(one, "same", 1, **LIGHT)))
    with pytest.raises(PausedError):
        one.guard().reserve(asked(one, "same", 2, **LIGHT))
    assert one.guard().status().paused == ("same",)
    spend(kits[1], "same", 2, **LIGHT)
    assert two.guard().status().paused == ()


def test_the_server_counts_what_the_other_site_of_a_scope_has_attested_since(
    kits: list[SiteKit], tmp_path: Path
) -> None:
    share(kits, tmp_path)
    book = HeadsBook(tmp_path / "heads.json", AttestedHeads())
    for kit, name in zip(kits, ("shop-one", "shop-two"), strict=True):
        book.heads.accept(spend(kit, "one", 1, **LIGHT), load_site(kit.path).identity.public_key)
        book.answered(name)
    ledger = load_site(kits[0].path).guard().status().epsilon
    assert all(epsilon >= ledger for epsilon in book.epsilon().values())
    book.ask(["shop-two"], (ROUND,))
    assert all(Losses.of(book.spent(one)).covers(Losses.of([RUN])) for one in ("shop-one", "shop-two"))


@pytest.mark.parametrize("what", ["copy", "another folder", "another scope", "none"])
def test_a_kit_that_is_pointed_elsewhere_does_not_begin_anew(
    kits: list[SiteKit], tmp_path: Path, what: str
) -> None:
    account = share(kits, tmp_path)
    spend(kits[0], "run-one")
    text = kits[0].settings.read_text()
    if what == "copy":
        shutil.copytree(account, tmp_path / "copy")
    new = {"copy": str(tmp_path / "copy"), "another folder": str(tmp_path / "other"), "none": ""}.get(what)
    text = text if new is None else text.replace(f'ledger = "{account}"', f'ledger = "{new}"')
    kits[0].settings.write_text(text.replace('"shoppers"', '"others"') if what == "another scope" else text)
    with pytest.raises((BadInputError, RollbackError)):
        spend(kits[0], "run-one", 2)


def test_a_folder_that_moved_as_a_whole_is_the_same_account(kits: list[SiteKit], tmp_path: Path) -> None:
    account = share(kits, tmp_path)
    spend(kits[0], "run-one")
    account.rename(tmp_path / "elsewhere")
    for kit in kits:
        kit.settings.write_text(kit.settings.read_text().replace(str(account), str(tmp_path / "elsewhere")))
    assert steps(kits[1]) == STEP.steps
    spend(kits[1], "run-two")
    assert steps(kits[0]) == 2 * STEP.steps


def test_an_account_that_was_set_back_is_noticed_by_its_kits(kits: list[SiteKit], tmp_path: Path) -> None:
    """Ledger, anchor and key came back from a backup together: nothing in that folder could tell."""
    account = share(kits, tmp_path)
    spend(kits[0], "run-one")
    shutil.copytree(account, tmp_path / "backup")
    spend(kits[0], "run-one", 2)
    shutil.rmtree(account)
    shutil.copytree(tmp_path / "backup", account)
    with pytest.raises(RollbackError):
        spend(kits[0], "run-one", 3)


def test_copies_that_two_kits_went_on_with_are_named_a_fork_and_add_up(
    kits: list[SiteKit], tmp_path: Path
) -> None:
    """The second kit never knew the first folder, so only who sees both can tell."""
    move(kits[0], str(tmp_path / "account"), "shoppers")
    spend(kits[0], "run-one")
    shutil.copytree(tmp_path / "account", tmp_path / "copy")
    move(kits[1], str(tmp_path / "copy"), "shoppers")
    spend(kits[0], "run-one", 2)
    spend(kits[1], "run-two", 1)
    found = make_history([one for kit in kits for one in accounts_in(find_records(kit.path))])
    assert any("two different entries" in warning for warning in found.warnings)
    assert found.epsilon >= RdpAccountant([dataclasses.replace(STEP, steps=180)]).epsilon(1e-5)


def test_a_kit_is_not_pointed_to_a_ledger_that_refuses_it(kits: list[SiteKit], tmp_path: Path) -> None:
    """Half a move: site.toml named a ledger of another delta, and the kit never started again."""
    move(kits[0], str(tmp_path / "account"), "shoppers")
    SitePolicy.load(kits[1].policy).model_copy(update={"delta": 1e-6}).save(kits[1].policy)
    before = kits[1].settings.read_text()
    with pytest.raises(BadInputError, match="delta"):
        move(kits[1], str(tmp_path / "account"), "shoppers")
    assert kits[1].settings.read_text() == before


def spend_rounds(kit: SiteKit, run: str) -> None:
    for number in range(1, 9):
        spend(kit, run, number, events=(ROUND,))


def test_kits_that_train_at_the_same_time_lose_no_entry(kits: list[SiteKit], tmp_path: Path) -> None:
    account = share(kits, tmp_path)
    processes = [
        get_context("spawn").Process(target=spend_rounds, args=(kit, run))
        for kit, run in zip(kits, ("run-one", "run-two"), strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    bodies = [parse_line(line).body for line in (account / "ledger.jsonl").read_bytes().splitlines()]
    assert sum(body.kind == "commit" for body in bodies) == 16
    assert steps(kits[0]) == steps(kits[1]) == 16 * ROUND.steps
    assert all(verify_path(kit.path, every_round=True).ok for kit in kits)
