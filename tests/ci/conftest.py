"""Tests that need a fresh environment. Here a skip is a failure: CI has what they need."""

from __future__ import annotations

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped, which is a failure here: {report.longrepr}"
    return report
