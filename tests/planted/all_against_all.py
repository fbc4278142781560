"""Every planted bug against every test file and every group of the self-test that is named for some bug.

``python -m tests.planted.all_against_all [BUG ...]`` prints one JSON line per bug: who goes red. By hand, about a minute a
bug; the full tier runs only what the table in docs/audit.md names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.planted.bugs import BUGS

ROOT = Path(__file__).resolve().parents[2]
SELF_TEST = """
import json, os
import pytest
from client import selftest
from tests.planted.bugs import BUGS
BUGS[os.environ["FEDCART_PLANT"]].plant(pytest.MonkeyPatch())
red = []
for name, group in selftest.TESTS.items():
    try:
        caught = not all(check.passed for check in group())
    except Exception:  # a promise that cannot even be tested is not kept
        caught = True
    red += [name] * caught
print(json.dumps(red))
"""


def red_files(environment: Mapping[str, str]) -> list[str]:
    """The test files in which something fails with the bug of an environment planted."""
    files = sorted({bug.test for bug in BUGS.values()})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=no",
        "-p",
        "tests.planted.plugin",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, "-rfE", *files], cwd=ROOT, env=environment, capture_output=True, text=True)
    return sorted(set(re.findall(r"^(?:FAILED|ERROR) ([^:\s]+)", done.stdout, flags=re.M)))


def red_groups(environment: Mapping[str, str]) -> list[str]:
    """The groups of the self-test that fail with the bug of an environment planted."""
    done = subprocess.run(
        [sys.executable, "-c", SELF_TEST], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    red: list[str] = json.loads(done.stdout.splitlines()[-1])
    return red


def main() -> None:
    """Plant each bug, or those named, and print who sees it."""
    for name in sys.argv[1:] or BUGS:
        environment = {**os.environ, "FEDCART_PLANT": name}
        line = {"bug": name, "tests": red_files(environment), "self_test": red_groups(environment)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
