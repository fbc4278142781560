"""The crash matrix, the server's half and the line between, with real processes: run by hand before a release."""

from __future__ import annotations

import os
import signal
import time

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
    resume,
    run,
    run_to_the_end,
    turn_clock,
    wait_until,
)
from tests.e2e.test_deploy_story import child

pytestmark = pytest.mark.soak
STEPS = [*((phase, "after") for phase in PHASES), ("mask", "before"), ("unmask", "before")]
GIVEN_UP = {site: [2] for site in SITES}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with faulty_world(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.mark.parametrize(("phase", "when"), STEPS)
def test_a_server_app_killed_at_any_step_resumes_and_no_site_is_charged_twice(world, phase, when):
    local, _ = world
    struck = plant(local.coordinator, 2, phase, when, "kill-self")
    code, folder, err = run_to_the_end(local, f"app-{phase}-{when}", "training.rounds=3")
    assert not struck.exists(), "the fault did not strike"
    assert code == 1, err
    assert '"hint"' in err
    first = folder.metrics()
    code, summary, err = resume(local)
    assert code == 0, err
    assert (summary["status"], summary["rounds"]) == ("completed", 3)
    assert folder.metrics()[0] == first[0]
    left = phase in ("confirm", "unmask") or (phase, when) == ("mask", "after")
    given_up = phase == "mask" or left
    assert answered(folder) == [4, 0 if given_up else 4, 4]
    books_balance(local, folder, lost_on_the_way=GIVEN_UP if left else {})
    assert {left_open(local, site) for site in SITES} == {0}


@pytest.mark.parametrize("phase", ["advertise", "unmask"])
def test_a_server_with_a_full_disk_ends_the_run_with_words_and_resumes_when_there_is_room(world, phase):
    local, _ = world
    struck = plant(local.coordinator, 2, phase, "after", "fill-disk")
    code, folder, err = run_to_the_end(local, f"server-full-{phase}", "training.rounds=3")
    assert not struck.exists(), "the fault did not strike"
    assert code == 1, err
    assert "fedcart server resume" in err
    code, summary, err = resume(local)
    assert code == 0, err
    assert summary["rounds"] == 3
    given_up = phase == "unmask"
    assert answered(folder) == [4, 0 if given_up else 4, 4]
    books_balance(local, folder, lost_on_the_way=GIVEN_UP if given_up else {})


@pytest.mark.parametrize("phase", ["advertise", "confirm"])
def test_a_superlink_killed_in_a_round_is_started_again_and_the_run_resumes(world, phase):
    local, _ = world
    struck = plant(local.coordinator, 2, phase, "before", "pause")
    program = run(local, "privacy.holdout=0", f"name=link-{phase}", "training.rounds=3")
    wait_until(lambda: not struck.exists(), "the fault did not strike", 300)
    os.kill(child(local.server_process.pid), signal.SIGKILL)
    _, err = program.communicate(timeout=300)
    assert program.returncode == 1, err
    local.wait_online(SITES, 240)
    code, summary, err = resume(local)
    assert code == 0, err
    assert summary["rounds"] == 3
    given_up = phase == "confirm"
    assert answered(newest(local)) == [4, 0 if given_up else 4, 4]
    books_balance(local, newest(local), lost_on_the_way=GIVEN_UP if given_up else {})


def test_a_line_cut_for_more_than_a_minute_costs_rounds_of_that_site_only(world):
    local, line = world
    struck = plant(local.coordinator, 1, "share", "before", "nothing")
    program = run(local, "privacy.holdout=0", "name=cut", "training.rounds=5")
    wait_until(lambda: not struck.exists(), "no round 1", 300)
    line.cut()
    time.sleep(75)  # the fault itself, not a wait for something
    line.mend()
    _, err = program.communicate(timeout=900)
    assert program.returncode == 0, err
    assert min(answered(newest(local))) >= 3
    local.wait_online([VICTIM], 180)
    books_balance(local, newest(local), lost_on_the_way={})
    code, folder, err = run_to_the_end(local, "after-cut")
    assert code == 0, err
    assert answered(folder) == [4, 4]


def test_a_clock_of_the_server_that_jumps_for_a_while_costs_at_most_a_round(world):
    local, _ = world
    struck = plant(local.coordinator, 2, "share", "before", "nothing")
    program = run(local, "privacy.holdout=0", "name=server-clock", "training.rounds=4")
    wait_until(lambda: not struck.exists(), "no round 2", 300)
    turn_clock(local.coordinator, 3600.0)
    time.sleep(20)  # the fault itself
    turn_clock(local.coordinator, 0.0)
    _, err = program.communicate(timeout=600)
    if program.returncode == 1:
        local.wait_online(SITES, 240)
        code, _, err = resume(local)
        assert code == 0, err
    else:
        assert program.returncode == 0, err
    assert len(answered(newest(local))) == 4
    assert answered(newest(local))[3] == 4
    books_balance(local, newest(local), lost_on_the_way={})
