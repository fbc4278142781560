"""One account over several runs and ledgers: nothing twice that is proven to be one, nothing left out that is not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from client.guard import Guard, open_guard
from client.guard.recovery import recover_guard
from client.runtime.ledgers import move
from common.audit.history import Account, History, accounts_in, make_history
from common.audit.records import Records, find_records
from common.deployment import SiteKit
from common.privacy.accountant import RdpAccountant, ScopeAccountant, epsilon_of
from common.privacy.attestation import SignedAttestation
from common.privacy.mechanism import HOLDOUT_SIDE, Losses, PrivacyEvent
from common.run.files import RunFolder
from common.trust.identity import Identity
from tests.attacks.test_two_kits_one_scope import kits, spend, truth
from tests.guard_samples import policy, proposal
from tests.signed_runs import SignedRun, signed_run

__all__ = ["kits"]  # a fixture

STEPS = PrivacyEvent(2.0, 0.1, 10)
LOOK = PrivacyEvent(8.0, 1.0, 1, HOLDOUT_SIDE)
NORTH = Identity.from_seed("north", b"n" * 32)


def guard_of(state: Path, identity: Identity = NORTH, scope: str = "shoppers") -> Guard:
    return open_guard(state, identity, policy(epsilon_max=9.0), scope, code="test")


def release(guard: Guard, run: str, number: int = 1, *, leave: bool = True, **changes: Any) -> SignedAttestation:
    config = f"{sum(run.encode()):02x}".rjust(64, "0")
    asked = proposal(number, run=run, config=config, events=(STEPS, LOOK), query=f"{number:060x}{config[-4:]}")
    grant = guard.reserve(replace(asked, **changes))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    if leave:
        guard.commit(grant)
    guard.close_round(run, number)
    return grant.attestation


def folder_of(path: Path, *attested: SignedAttestation, identity: Identity = NORTH) -> Path:
    """A run folder as a coordinator has it: no ledger, only what the site attested."""
    run: SignedRun = signed_run(
        RunFolder.create(path), {identity.name: identity}, [f"name={path.name}"], (2.0, 8.0)
    )
    for number, one in enumerate(attested, start=1):
        run.append(number, {identity.name: one})
    return path


def history(*paths: Path) -> History:
    return make_history([account for path in paths for account in accounts_in(find_records(path))])


def ledger(state: Path) -> Path:
    return state / "ledger.jsonl"


def spent(state: Path) -> float:
    return guard_of(state).status().epsilon


def test_runs_of_one_ledger_are_one_account_in_whatever_order_they_are_named(tmp_path: Path) -> None:
    guard = guard_of(tmp_path / "state")
    months = ("january", "february", "march")
    runs = [folder_of(tmp_path / month, release(guard, month, 1), release(guard, month, 2)) for month in months]
    whole = guard.status().epsilon
    for order in (runs, runs[::-1], [runs[1], runs[2], runs[0]]):
        found = history(*order)
        assert [len(total.accounts) for total in found.scopes] == [1]
        assert found.epsilon == whole
        assert (found.scopes[0].limit, found.returning, found.warnings) == (9.0, (), ())
    assert history(runs[0]).epsilon < whole
    assert history(*runs, ledger(tmp_path / "state")).epsilon == whole


def test_what_was_given_back_after_it_was_attested_is_not_counted_twice(tmp_path: Path) -> None:
    """The last attested reservation of a run may be void; the next run's attestation then holds less of that setting."""
    guard = guard_of(tmp_path / "state")
    first = folder_of(tmp_path / "one", release(guard, "one"), release(guard, "one", 2, leave=False))
    other = (PrivacyEvent(3.0, 0.05, 7), LOOK)
    second = folder_of(tmp_path / "two", release(guard, "two", events=other))
    assert history(first, second).epsilon == guard.status().epsilon
    assert history(second, first).epsilon == guard.status().epsilon


def test_two_ledgers_of_one_scope_add_up(tmp_path: Path) -> None:
    """A kit that was made anew has a new key and begins at zero: to its consumers it is no new budget."""
    again = Identity.from_seed("north", b"m" * 32)
    old, new = guard_of(tmp_path / "old"), guard_of(tmp_path / "new", again)
    release(old, "one")
    release(new, "two")
    for paths in ([ledger(tmp_path / "old"), ledger(tmp_path / "new")], [tmp_path / "old", tmp_path / "new"]):
        found = history(*paths)
        both = RdpAccountant([STEPS, STEPS])
        assert found.epsilon >= both.epsilon(1e-5) > epsilon_of([STEPS], 1e-5)
        assert found.epsilon >= ScopeAccountant([STEPS, STEPS], old.ledger.state.order).epsilon(1e-5) - 1e-6
        assert "2 ledgers here" in found.warnings[0]


def test_a_consumer_who_was_trained_on_in_one_and_held_out_in_the_other_is_covered(tmp_path: Path) -> None:
    dear = PrivacyEvent(1.0, 1.0, 1, HOLDOUT_SIDE)
    again = Identity.from_seed("north", b"m" * 32)
    release(guard_of(tmp_path / "old"), "one", events=(PrivacyEvent(1.5, 0.1, 40),))
    release(guard_of(tmp_path / "new", again), "two", events=(dear,))
    mixed = RdpAccountant([PrivacyEvent(1.5, 0.1, 40), replace(dear, sub_scope="train")])
    assert history(ledger(tmp_path / "old"), ledger(tmp_path / "new")).epsilon >= mixed.epsilon(1e-5)


@pytest.mark.parametrize(
    "events",
    [  # the smaller of the two orders is the dearer one, then the larger
        (PrivacyEvent(2.0, 0.1, 10), PrivacyEvent(1.0, 0.05, 10)),
        (PrivacyEvent(1.2, 0.1, 150), PrivacyEvent(1.5, 0.1, 200)),
    ],
)
def test_the_order_of_whichever_ledger_came_first_is_enough(
    tmp_path: Path, events: tuple[PrivacyEvent, PrivacyEvent]
) -> None:
    """Which ledger was first is not known here: at each one's fixed order the sum is not below what is shown."""
    again = Identity.from_seed("north", b"m" * 32)
    old, new = guard_of(tmp_path / "old"), guard_of(tmp_path / "new", again)
    release(old, "one", events=events[:1])
    release(new, "two", events=events[1:])
    orders = {guard.ledger.state.order for guard in (old, new)}
    assert len(orders) == 2
    worst = max(ScopeAccountant(events, order).epsilon(1e-5) for order in orders)
    assert history(ledger(tmp_path / "old"), ledger(tmp_path / "new")).epsilon >= worst - 1e-6


def test_a_copy_that_was_gone_on_with_is_no_second_word_on_the_same_money(tmp_path: Path) -> None:
    guard = guard_of(tmp_path / "state")
    release(guard, "one")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    here, there = release(guard, "two"), release(guard_of(tmp_path / "copy"), "three")
    first, second = folder_of(tmp_path / "two", here), folder_of(tmp_path / "three", there)
    for pair in ([tmp_path / "state", tmp_path / "copy"], [first, second], [tmp_path / "state", second]):
        found = history(*pair)
        assert len(found.scopes[0].accounts) == 2
        assert found.epsilon > spent(tmp_path / "state")
        assert any("none holds the other" in warning for warning in found.warnings)


def test_a_later_word_that_lacks_what_was_attested_before_does_not_stand_for_it(tmp_path: Path) -> None:
    guard = guard_of(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    dear = (PrivacyEvent(1.0, 0.1, 20), LOOK)
    first = folder_of(tmp_path / "one", release(guard, "one", 1, events=dear), release(guard, "one", 2))
    copy = guard_of(tmp_path / "copy")
    second = folder_of(tmp_path / "two", *(release(copy, "two", number) for number in (1, 2, 3)))
    found = history(first, second)
    assert len(found.scopes[0].accounts) == 2
    assert found.epsilon > guard.status().epsilon


def test_a_later_word_of_a_copy_does_not_stand_for_the_other_end(tmp_path: Path) -> None:
    """The copy has gone on for longer: its sequence is higher, and its totals are more. The ledger's hash tells."""
    guard = guard_of(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    earlier = folder_of(tmp_path / "one", release(guard, "one"))
    copy = guard_of(tmp_path / "copy")
    for number in (1, 2, 3):
        release(copy, "two", number)
    found = history(ledger(tmp_path / "copy"), earlier)
    assert len(found.scopes[0].accounts) == 2
    assert found.epsilon > copy.status().epsilon


@pytest.mark.parametrize("rounds", [(1, 2), (1, 3), (2, 3), (3, 1)])
def test_two_hashes_under_one_number_are_two_ends_however_much_the_longer_covers(
    tmp_path: Path, rounds: tuple[int, int]
) -> None:
    """A state folder that was set back goes on as if nothing had been: no ledger is here, only what was attested."""
    guard = guard_of(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    first = [release(guard, "one", number) for number in range(1, rounds[0] + 1)]
    copy = guard_of(tmp_path / "copy")
    second = [release(copy, "two", number) for number in range(1, rounds[1] + 1)]
    found = history(folder_of(tmp_path / "one", *first), folder_of(tmp_path / "two", *second))
    assert len(found.scopes[0].accounts) == 2
    assert found.epsilon > max(guard.status().epsilon, copy.status().epsilon)
    assert "two different entries 1" in found.warnings[0]


def test_a_recovered_ledger_holds_the_lost_one(tmp_path: Path) -> None:
    guard = guard_of(tmp_path / "state")
    attested = release(guard, "one")
    run, old = folder_of(tmp_path / "one", attested), ledger(tmp_path / "state")
    saved = tmp_path / "saved.jsonl"
    shutil.copy(old, saved)
    old.write_bytes(b"".join(old.read_bytes().splitlines(keepends=True)[:1]))
    rescued = recover_guard(tmp_path / "state", NORTH, policy(epsilon_max=9.0), attested)
    release(rescued, "two")
    found = history(run, old)
    assert len(found.scopes[0].accounts) == 1
    assert found.epsilon == rescued.status().epsilon


def test_a_moved_ledger_is_in_the_shared_one_and_two_kits_of_it_are_one_account(kits: list[SiteKit]) -> None:
    attested = spend(kits[0], "run-one")
    apart = kits[0].state / "moved-ledger.jsonl"
    for kit in kits:
        move(kit, str(kits[0].path.parents[2] / "books"), "shoppers")
    spend(kits[1], "run-two", 1)
    shared, before = (accounts_in(find_records(path))[0] for path in (kits[0].path, apart))
    assert shared.holds(before)
    assert not shared.holds(replace(before, sequence=before.sequence + 1)), (
        "an entry after the move is not in the charge"
    )
    found = history(kits[0].path, kits[1].path, apart)
    assert [len(total.accounts) for total in found.scopes] == [1]
    assert found.epsilon >= truth(60 * 2) - 1e-6
    assert found.scopes[0].sites == ("shop-one", "shop-two")
    assert attested.attestation.scope not in {total.scope for total in found.scopes}


def test_a_moved_ledger_that_went_on_is_not_in_the_shared_one(kits: list[SiteKit], tmp_path: Path) -> None:
    spend(kits[0], "run-one")
    saved = tmp_path / "saved"
    shutil.copytree(kits[0].path, saved)
    move(kits[0], str(kits[0].path.parents[2] / "books"), "shoppers")
    spend(SiteKit(saved), "run-one", 2)
    assert len([a for total in history(kits[0].path, saved).scopes for a in total.accounts]) == 2


def test_periods_as_scopes_show_what_a_returning_consumer_has_lost(tmp_path: Path) -> None:
    for month in ("2026-01", "2026-02"):
        release(guard_of(tmp_path / month, scope=f"shoppers-of-{month}"), month)
    south = Identity.from_seed("south", b"s" * 32)
    release(guard_of(tmp_path / "south", south, scope="south"), "2026-01")
    found = history(*(tmp_path / name for name in ("2026-01", "2026-02", "south")))
    alone = epsilon_of([STEPS], 1e-5)
    assert [total.epsilon for total in found.scopes] == [pytest.approx(alone, abs=1e-5)] * 3
    assert found.warnings == ()
    of_north, of_all = found.returning
    assert (of_north.who, of_north.scopes) == (
        "in every scope of north",
        ("shoppers-of-2026-01", "shoppers-of-2026-02"),
    )
    assert of_north.epsilon >= RdpAccountant([STEPS, STEPS]).epsilon(1e-5) > alone
    assert of_all.epsilon >= RdpAccountant([STEPS] * 3).epsilon(1e-5)
    assert len(of_all.scopes) == 3


def test_an_earlier_simulation_is_held_by_the_run_that_began_from_it_and_by_no_other() -> None:
    from common.privacy.entries import Charge

    def simulated(run: str, events: tuple[PrivacyEvent, ...], *charges: Charge) -> Account:
        losses = Losses.of([*events, *(event for charge in charges for event in charge.events)])
        known = {"sites": frozenset({"north"}), "scope": "north", "key": run, "losses": losses, "order": 4.0}
        rest = {"adaptive": bool(charges), "delta": 1e-5, "limit": 8.0, "simulated": True, "sequence": 3}
        return Account(**known, **rest, head=run, runs=frozenset({run}), charges=charges, hash_at=lambda _: None)

    first = simulated("a-1", (STEPS,))
    second = simulated("b-2", (STEPS,), Charge(events=(STEPS,), reason="run a-1"))
    third = simulated("c-3", (STEPS,), Charge(events=second.events, reason="run b-2"))
    stranger = simulated("d-4", (STEPS,))
    assert second.holds(first) and third.holds(second)
    assert not second.holds(stranger) and not first.holds(second)
    assert not replace(second, simulated=False).holds(first), "a real ledger is proven by hashes"
    cheap = simulated("b-2", (STEPS,), Charge(events=(replace(STEPS, steps=5),), reason="run a-1"))
    assert not cheap.holds(first), "a charge holds what it covers"
    assert len(make_history([first, second, third, stranger]).scopes[0].accounts) == 2


def test_a_record_without_a_roster_proves_nothing_by_its_key(tmp_path: Path) -> None:
    guard = guard_of(tmp_path / "state")
    runs = [folder_of(tmp_path / name, release(guard, name)) for name in ("one", "two")]
    for run in runs:
        (run / "roster.json").unlink()
    assert history(*runs).epsilon > guard.status().epsilon


def test_the_command_shows_one_account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = guard_of(tmp_path / "state")
    runs = [folder_of(tmp_path / name, release(guard, name)) for name in ("one", "two")]
    assert main(["audit", "show", str(ledger(tmp_path / "state")), str(runs[0]), "--json"]) in (0, 1)
    plain = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in plain["runs"]] == ["one", "two"]
    assert plain["runs"][0]["so_far"] < plain["runs"][1]["so_far"] == plain["epsilon"] == guard.status().epsilon
    assert plain["scopes"][0]["left"] == pytest.approx(9.0 - plain["epsilon"])
    main(["audit", "show", *map(str, runs), "--csv", str(tmp_path / "all.csv")])
    shown = capsys.readouterr()
    assert "Totals per scope" in shown.out and "new events of the same people are no new budget" in shown.out
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 3
    assert main(["audit", "show", *map(str, runs), "--html", str(tmp_path / "x.html")]) == 2


def test_a_broken_record_is_named_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release(guard_of(tmp_path / "a"), "one")
    release(guard_of(tmp_path / "b", Identity.from_seed("south", b"s" * 32), "south"), "one")
    file = ledger(tmp_path / "b")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"outbox", b"outbux")]))
    assert main(["audit", "show", str(ledger(tmp_path / "a")), str(file)]) == 1
    said = capsys.readouterr()
    assert f"error: {file}: ledger.jsonl, line 3" in said.err


def test_the_rule_needs_a_record(tmp_path: Path) -> None:
    assert make_history([]) == History((), (), ())
    assert accounts_in(Records(tmp_path, None, ())) == []
