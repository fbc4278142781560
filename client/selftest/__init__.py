"""Does this installation do what it says? Run at a site, on made-up consumers, with the code that answers.

Checks look at one promise each, from the accountant's known answers over sensitivity, noise and sampling of every task's
model to the numbers that wait in the outbox of a scratch site, or open in a sum whose noise several sites share. Their statistics alarm falsely with probability 1e-4 in all.
The empirical audit then attacks a training step of the real engine and sets the epsilon that it can prove (at 95 %) beside
the one that the accountant promises.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import client.selftest.account as account
import client.selftest.attack as attack
import client.selftest.draws as draws
import client.selftest.quorum as quorum
import client.selftest.ring as rings
import client.selftest.rules as rules
import client.selftest.shared_noise as shared_noise
import client.selftest.sums as sums
from client.selftest.report import Check, SelfTestResult

__all__ = ["TESTS", "Check", "SelfTestResult", "quiet", "run_selftest"]

Progress = Callable[[str, int, int], None]  # what is being tested, done, total

TESTS: dict[str, Callable[[], list[Check]]] = {
    "accountant": account.vectors,
    "ledger": account.ledger,
    "rules": rules.rules,
    "sensitivity": sums.sensitivity,
    "metrics": sums.metrics,
    "series": sums.series,
    "noise": draws.noise,
    "sampling": draws.sampling,
    "draws": draws.accounts_for_its_draws,
    "whole answer": rings.ring,
    "shared noise": shared_noise.noise,
    "quorum": quorum.rules,
}
"""Groups of checks by name, each callable alone."""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


def run_selftest(observer: Progress = quiet) -> SelfTestResult:
    """Test the mechanism of this installation. Reads no consumer's data and charges nothing."""
    started, checks = time.monotonic(), []
    for number, (name, test) in enumerate(TESTS.items()):
        observer(name, number, len(TESTS) + 1)
        checks += test()
    observer("empirical audit", len(TESTS), len(TESTS) + 1)
    audit = attack.empirical_audit()
    observer("done", len(TESTS) + 1, len(TESTS) + 1)
    return SelfTestResult(tuple(checks), audit, time.monotonic() - started)
