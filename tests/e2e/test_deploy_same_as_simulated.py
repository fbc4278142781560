"""The same run, simulated and deployed: without privacy both give the same model."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.deployment import SITE_VARIABLE, flower_environment
from common.run import build_config
from server.runtime.control import open_control, submit
from simulations.processes import LocalFederation
from simulations.run import simulate

pytestmark = pytest.mark.e2e
APPS = Path(__file__).parent / "apps"
SETTINGS = {
    "name": "twin",
    "data": {"sites": 3, "consumers": 300, "items": 60, "min_population": 1},
    "features": {"max_events": 10},
    "model": {"dim": 8, "hidden": 8},
    "training": {"rounds": 1, "local_steps": 3},
    "privacy": {"enabled": False},
    "performance": {"workers": 1},
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("twin") / "simulated"
    simulate(build_config(SETTINGS), out)
    return out


def copy_run(simulated: Path, local: LocalFederation) -> Path:
    """The simulated run before its first round, with the roster of the deployed federation."""
    folder = local.coordinator.runs / "twin"
    (folder / "evidence").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    for name in ("plan.json", "run.toml", "masks.npz", "item_of.npy"):
        shutil.copy(simulated / name, folder / name)
    shutil.copy(simulated / "checkpoints/round-00000.safetensors", folder / "checkpoints")
    shutil.copy(local.coordinator.roster, folder / "roster.json")
    return folder


def test_the_deployed_run_gives_the_model_that_the_simulated_one_gave(simulated, tmp_path):
    plan = json.loads((simulated / "plan.json").read_text())
    nodes = []
    with LocalFederation(tmp_path, {"OMP_NUM_THREADS": "1"}) as local:
        local.provision([{"name": n, "population": p, "events": "none.csv"} for n, p in plan["populations"]])
        for name, _ in plan["populations"]:
            for path in (simulated / "sites" / name / "state").iterdir():
                if path.name.startswith("consumers"):
                    shutil.copy(path, local.site(name).state)
        folder = copy_run(simulated, local)
        local.start_server()
        try:
            for name, _ in plan["populations"]:
                kit = local.site(name)
                environment = {**flower_environment(kit, SITE_VARIABLE), "FEDCART_PRELOAD": "0"}
                command = [sys.executable, str(APPS / "simulated_node.py"), str(kit.path)]
                with open(kit.log, "ab") as log:
                    nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            local.wait_online([name for name, _ in plan["populations"]])
            with open_control(local.coordinator) as control:
                submit(local.coordinator, control, "twin")
            assert ended(folder)["status"] == "completed"
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait(20)
    deployed, twin = load_file(folder / "model.safetensors"), load_file(simulated / "model.safetensors")
    first, last = (load_file(simulated / f"checkpoints/round-0000{n}.safetensors")["parameters"] for n in (0, 1))
    assert np.abs(last - first).max() > 1e-3, "the run must have learnt something for this to mean anything"
    assert set(deployed) == set(twin)
    for name, value in twin.items():
        np.testing.assert_allclose(deployed[name], value, atol=1e-5)  # the fixed point rounds at random


def ended(folder: Path) -> dict:
    end = time.monotonic() + 180
    while True:
        if (folder / "summary.json").exists():
            summary = json.loads((folder / "summary.json").read_text())
            if summary["status"] != "running":
                return summary
        assert time.monotonic() < end, "the run does not end"
        time.sleep(0.2)
