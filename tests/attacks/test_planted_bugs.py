"""Every planted bug is caught by the installed program's own self-test; by a test: test_planted_bugs_by_tests_0.py and the others."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import client
import common
from client import selftest
from client.selftest import attack
from common.privacy import accountant
from tests.planted import table
from tests.planted.bugs import BUGS, noise_halved

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.full
# Whatever is imported for the first time while a bug is planted would keep the bug for all tests that come after.
for package in (client, common):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if bug.check])
def test_the_self_test_catches_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    accountant._epsilon_of.cache_clear()
    with monkeypatch.context() as patch:
        BUGS[name].plant(patch)
        try:
            caught = [check.name for check in selftest.TESTS[BUGS[name].check]() if not check.passed]
        except Exception as error:  # a promise that cannot even be tested is not kept
            caught = [type(error).__name__]
    accountant._epsilon_of.cache_clear()  # what a bug has computed must not be believed later
    assert caught


def test_the_attack_sees_half_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    noise_halved(monkeypatch)
    assert not attack.empirical_audit().passed


def test_the_table_in_the_documents_is_that_of_the_bugs() -> None:
    text = (ROOT / "docs" / "audit.md").read_text()
    assert table.with_table(text) == text, "run: python -m tests.planted.table docs/audit.md"
