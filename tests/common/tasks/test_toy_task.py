"""A new task is three files and one line: a toy task, put into a copy of the program as docs/how-to-read-this-code.md says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("common", "client", "server", "simulations", "cli", "fedcart")
TOY = ROOT / "tests" / "toy_task"
FILES = {
    "common_half.py": "common/tasks/basket.py",
    "client_half.py": "client/tasks/basket.py",
    "oracle_half.py": "simulations/tasks/basket.py",
}
SMALL = ("data.consumers=900", "data.items=60", "training.local_steps=4", "model.dim=8", "model.hidden=8")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with the toy task: three files and one line."""
    copy = tmp_path_factory.mktemp("toy") / "program"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in FILES.items():
        assert not (copy / target).exists()
        shutil.copy(TOY / source, copy / target)
    registry = copy / "common" / "tasks" / "registry.py"
    text = registry.read_text()
    assert text.count('    "sales",\n') == 1
    registry.write_text(text.replace('    "sales",\n', '    "sales",\n    "basket",\n'))
    return copy


def run(program: Path, code: str, *words: str, cwd: Path | None = None) -> str:
    environment = os.environ | {"PYTHONPATH": str(program)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd or program, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_settings_layout_costs_and_metrics_know_it(program):
    facts = run(
        program,
        "import json\n"
        "from common.run import build_config\n"
        "from common.run import RunPlan\n"
        "from common.tasks.metrics import metric_named\n"
        "config = build_config({'task': 'basket-size'})\n"
        "plan = RunPlan('r', config.public_json(), (('a', 512), ('b', 256), ('c', 128)), '{}', 100, 1.5, 3.0)\n"
        "print(json.dumps([config.model.heads, plan.metrics, [b.name for b in plan.blocks('train')],"
        " len(plan.events('train')), metric_named(plan.task.primary).words]))",
    )
    heads, metrics, blocks, events, words = json.loads(facts)
    assert heads == {"basket-size": 1.0}
    assert metrics == ["consumers", "loss", "basket_size_accuracy"]
    assert (blocks, events) == (["update", "metrics"], 2)
    assert words == "Basket size accuracy"


@pytest.mark.full
def test_a_private_federation_trains_it_and_the_audit_verifies(program, tmp_path):
    words = ["simulate", "--rounds", "2", "--out", "run", "--set", "task=basket-size"]
    for setting in SMALL:
        words += ["--set", setting]
    code = "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"
    shown = run(program, code, *words, cwd=tmp_path)
    assert "completed: 2 rounds" in shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for kind in ("released", "oracle"):
        assert "basket_size_accuracy" in summary["metrics"][kind]
    assert 0 < summary["metrics"]["oracle"]["basket_size_accuracy"] <= 1
    assert 0 < summary["baselines"]["majority"]["basket_size_accuracy"] <= 1
    assert all(7 < epsilon <= 8 for epsilon in summary["epsilon"].values())
    run(program, code, "audit", "verify", "run", cwd=tmp_path)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Basket size accuracy" in report
    run(program, code, "data", "synth", "shop.csv", "--events", "2000", "--items", "60", cwd=tmp_path)
    answered = json.loads(
        run(program, code, "predict", "run", "shop.csv", "--task", "basket-size", "--json", cwd=tmp_path)
    )
    shares = {}
    for line in answered["predictions"]:
        shares.setdefault(line["consumer"], {})[line["choice"]] = line["probability"]
    assert len(shares) == answered["consumers"] > 10
    assert all(set(share) == set("01234") and abs(sum(share.values()) - 1) < 1e-5 for share in shares.values())
    assert len({share["0"] for share in shares.values()}) > 10, "everybody is answered alike"


@pytest.mark.full
def test_its_gradients_are_clipped_whole(program):
    run(
        program,
        "import numpy as np, torch\n"
        "import common.tasks.registry\n"
        "from client.training.dpsgd.engine import TapeEngine\n"
        "from common.run import ModelSettings\n"
        "from common.model.batch import Batcher\n"
        "from common.model.network import ModelShape, build_model\n"
        "from common.model.targets import RowTargets\n"
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.dpsgd_samples import Rows, SIZES, brute_force\n"
        "rng = np.random.default_rng(1)\n"
        "offsets = np.array([0, 5, 9, 16, 20])\n"
        "integers = np.stack([rng.integers(0, s, 20) for s in SIZES.values()], axis=1).astype(np.int32)\n"
        "targets = RowTargets(np.array([4, 3, 6, 3]), {'basket-size': np.array([0.0, 4.0, np.nan, 2.0])})\n"
        "batcher = Batcher(Rows(offsets, integers), ('basket-size',), targets)\n"
        "model = build_model(ModelSettings(dim=6, hidden=6, heads={'basket-size': 1.0}), ModelShape(SIZES), 1)\n"
        "want = brute_force(model, batcher, np.arange(4), 0.05)\n"
        "got, seen = TapeEngine(model, batcher, 0.05).clipped_sum(np.arange(4))\n"
        "torch.testing.assert_close(got.float(), want, rtol=1e-4, atol=1e-6)\n"
        "assert (seen.norms > 0.05).sum() >= 2\n",
    )
