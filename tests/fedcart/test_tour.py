"""The tour of docs/python.md as a script without a main guard; and Ctrl-C in such a script."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full
ROOT = Path(__file__).resolve().parents[2]
CHECKS = """
assert run.metrics.height == 3 and run.status == "completed"
assert run.epsilon.width == 9
assert mine.epsilon.columns == ["round", "DE", "FR", "IT"]
assert comparison.table.height == 2
assert report.ok
assert halved.status == "completed"
print("the tour is over")
"""


def test_the_tour_of_the_documents_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    (tmp_path / "tour.py").write_text("\n".join(blocks) + CHECKS)
    done = subprocess.run([sys.executable, "tour.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the tour is over") == 1, "a worker has run the script again"


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path):
    (tmp_path / "long.py").write_text(
        "import fedcart\n"
        "fedcart.simulate(rounds=40, out='long', settings={'data.consumers': 1200, 'data.items': 100,"
        " 'training.local_steps': 1})\n"
    )
    process = subprocess.Popen([sys.executable, "long.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 2"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(60) != 0
    assert "fedcart.resume('long')" in rest
    code = "import fedcart; print(fedcart.resume('long', progress=False).status)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "completed", done.stderr
