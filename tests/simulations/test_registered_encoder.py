"""A registered encoder and head reach the processes that train, and the model can be used where they are registered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
import fedcart
from tests.extensions import encoders

out = sys.argv[1]
try:
    fedcart.open_model(out)
    raise SystemExit("an unknown encoder was opened")
except fedcart.FedcartError as error:
    assert "no encoder named 'deep'" in error.message or "model" in error.message
fedcart.register_encoder("deep", encoders.Deep)
fedcart.register_head("next-price", "price")
heads = {"next-item": 1.0, "next-price": 0.2}
small = {"data.consumers": 240, "data.items": 40, "data.min_population": 1, "model.dim": 8, "model.hidden": 8,
         "training.local_steps": 2, "model.encoder": "deep", "model.heads": heads, "performance.workers": 2}
run = fedcart.simulate(rounds=1, sites=3, out=out, settings=small, progress=False)
assert run.status == "completed", run.status
assert "released_next_price_accuracy" in run.metrics.columns
scorer = fedcart.open_model(out).stream()
for minute in (1, 2):
    scored = scorer.push(scorer.event("c1", f"2024-05-01T10:0{minute}:00", "view", price=3))
assert scored.nats["next-price"] > 0
fedcart.verify(run).raise_if_broken()
"""


@pytest.mark.full
def test_workers_train_what_the_script_has_registered(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
