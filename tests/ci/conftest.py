"""Tests that need a fresh environment. Here a skip is a failure: CI has what they need."""

from __future__ import annotations

import os

import pytest

NEED_SERVERS = ("test_postgres_source.py", "test_reverse_proxy.py", "test_pages_in_a_browser.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped, which is a failure here: {report.longrepr}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs servers where .ci/run found that they cannot be installed, and said so."""
    if os.environ.get("FEDCART_WITHOUT_SERVICES") == "1":
        left_out = [item for item in items if item.path.name in NEED_SERVERS]
        items[:] = [item for item in items if item.path.name not in NEED_SERVERS]
        config.hook.pytest_deselected(items=left_out)
