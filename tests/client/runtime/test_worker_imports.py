"""What the process from which a site's answers are forked may hold: imports, but no thread."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from client.runtime.worker import HEAVY, preload
for name in HEAVY:
    preload(name)
def loaded():
    return "polars.series" in sys.modules
def threads():
    return len(os.listdir("/proc/self/task"))
print(loaded(), threads(), flush=True)
if os.fork() == 0:
    import polars as pl
    frame = pl.DataFrame({"a": [1, 1, 2], "b": [3, 4, 5]}).group_by("a").agg(pl.col("b").sum()).sort("a")
    print(loaded(), frame["b"].to_list(), flush=True)
    os._exit(0)
print(os.wait()[1])
"""


@pytest.mark.full
def test_a_worker_has_its_imports_behind_it_without_polars_and_a_fork_of_it_can_use_polars():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"}
    )
    before, inside, after = done.stdout.splitlines()
    assert before == "False 1"
    assert inside == "True [7, 5]"
    assert after == "0"
