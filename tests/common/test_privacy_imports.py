"""Verification and the guard stay light: no training, no network framework, accountants only when needed."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import common.audit.verify, client.guard.guard, common.audit.statement, common.trust.randomness
print(*[m for m in ("torch", "opacus", "flwr", "polars", "dp_accounting", "scipy") if m in sys.modules])
"""


def test_importing_verification_and_guard_loads_nothing_heavy() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
