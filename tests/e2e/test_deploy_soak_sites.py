"""The crash matrix, the sites' half, with real processes: minutes each, run by hand before a release."""

from __future__ import annotations

import pytest

from tests.e2e.faults import (
    PHASES,
    SITES,
    VICTIM,
    answered,
    books_balance,
    faulty_world,
    left_open,
    newest,
    plant,
    run,
    run_to_the_end,
    turn_clock,
    wait_until,
)

pytestmark = pytest.mark.soak
STEPS = [(phase, when) for phase in PHASES for when in ("before", "after")]
IN_THE_SUM = ("confirm", "unmask")  # from here on the others finish the round with what the site had sent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with faulty_world(tmp_path_factory.mktemp("sites")) as made:
        yield made


def lost_by(phase: str, when: str) -> dict[str, list[int]]:
    """Killed between COMMIT and sending: charged, as it must be, and in no sum."""
    return {VICTIM: [1]} if (phase, when) == ("mask", "after") else {}


@pytest.mark.parametrize(("phase", "when"), STEPS)
def test_a_site_killed_at_any_step_costs_at_most_its_own_round_and_is_back_by_itself(world, phase, when):
    local, _ = world
    struck = plant(local.site(VICTIM), 1, phase, when, "kill-node")
    code, folder, err = run_to_the_end(local, f"kill-{phase}-{when}", "training.rounds=3")
    assert not struck.exists(), "the fault did not strike"
    assert code == 0, err
    assert answered(folder)[0] == (4 if phase in IN_THE_SUM else 3)
    assert answered(folder)[2] == 4, "the site was not back for round 3"
    books_balance(local, folder, lost_on_the_way=lost_by(phase, when))
    assert {left_open(local, site) for site in SITES} == {0}


@pytest.mark.parametrize("phase", ["advertise", "mask", "unmask"])
def test_a_site_killed_with_its_supervisor_goes_on_where_it_was_when_somebody_starts_it(world, phase):
    local, _ = world
    struck = plant(local.site(VICTIM), 1, phase, "after", "kill-site")
    program = run(local, "privacy.holdout=0", f"name=dead-{phase}", "training.rounds=3")
    wait_until(lambda: not struck.exists(), "the fault did not strike", 300)
    assert local.site_process(VICTIM).wait(30) != 0
    local.start_site(VICTIM)
    _, err = program.communicate(timeout=600)
    assert program.returncode == 0, err
    assert answered(newest(local))[0] == (4 if phase in IN_THE_SUM else 3)
    assert answered(newest(local))[2] == 4, "the site was not back for round 3"
    books_balance(local, newest(local), lost_on_the_way=lost_by(phase, "after"))
    assert {left_open(local, site) for site in SITES} == {0}


@pytest.mark.parametrize("phase", PHASES)
def test_a_full_disk_at_a_site_loses_it_for_that_round_and_nothing_is_charged_that_left_no_trace(world, phase):
    local, _ = world
    struck = plant(local.site(VICTIM), 1, phase, "before", "fill-disk")
    code, folder, err = run_to_the_end(local, f"full-{phase}")
    assert not struck.exists(), "the fault did not strike"
    assert code == 0, err
    assert answered(folder)[0] == (4 if phase in IN_THE_SUM else 3)
    assert answered(folder)[1] == 4
    books_balance(local, folder, lost_on_the_way={})
    assert {left_open(local, site) for site in SITES} == {0}


def test_a_clock_that_jumps_costs_the_site_rounds_until_it_is_set_right_and_nothing_else(world):
    local, _ = world
    kit = local.site(VICTIM)
    try:
        turn_clock(kit, -120.0)  # within what logins forgive
        code, folder, err = run_to_the_end(local, "clock-late")
        assert (code, answered(folder)) == (0, [4, 4]), err
        books_balance(local, folder, lost_on_the_way={})
        struck = plant(kit, 1, "share", "after", "nothing")
        program = run(local, "privacy.holdout=0", "name=clock-jump", "training.rounds=3")
        wait_until(lambda: not struck.exists(), "no round 1", 300)
        turn_clock(kit, 3600.0)
        _, err = program.communicate(timeout=600)
        assert program.returncode == 0, err
        assert [min(n, 3) for n in answered(newest(local))] == [3, 3, 3]
        assert answered(newest(local))[2] == 3, "the site went on with a wrong clock"
        books_balance(local, newest(local), lost_on_the_way=charged_in_vain(local))
    finally:
        turn_clock(kit, 0.0)
    local.wait_online([VICTIM], 120)
    code, folder, err = run_to_the_end(local, "clock-right")
    assert (code, answered(folder)) == (0, [4, 4]), err
    books_balance(local, folder, lost_on_the_way={})


def charged_in_vain(local) -> dict[str, list[int]]:
    """If the masked vector was on its way when the site was shut out, round 1 is charged and in no sum."""
    missing = newest(local).metrics()[0].sites[VICTIM]
    return {VICTIM: [1]} if (missing.status, missing.phase) == ("lost", "mask") else {}
