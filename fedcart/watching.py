"""What a notebook or a script sees of a run under way: one line per round on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from common.privacy import show_epsilon, show_exact
from common.run import Observer, RoundRecord, RunFacts, Summary

if TYPE_CHECKING:
    from simulations.jobs import Job

_SHOWN = ("recall@20", "intent_auc", "wape", "loss")


class Lines(Observer):
    """Writes what happens, a line each. Numbers are labelled released, public or oracle."""

    def __init__(self, job: Job, to: TextIO | None = None) -> None:
        self._job, self._to = job, to

    def prepared(self, facts: RunFacts) -> None:
        """Who takes part, under which promise, and where the files go."""
        promise = (
            f"ε ≤ {show_exact(facts.epsilon_target)} at δ = {show_exact(facts.delta)}"
            if facts.private
            else "NOT PRIVATE"
        )
        if facts.trust:
            promise += f" {facts.trust}; {show_epsilon(facts.alone, 3)} if no other site is honest"
        people = sum(site.population for site in facts.sites)
        self._say(f"{self._job.out}: {len(facts.sites)} sites, {people:,} consumers declared, {promise}")

    def round_done(self, record: RoundRecord) -> None:
        """The round's epsilon and first metric of each kind."""
        if record.aborted:
            self._say(f"round {record.round}: no sum ({record.aborted})")
            return
        words = [
            f"round {record.round} of {self._job.config.training.rounds}"
            if record.kind == "train"
            else record.kind
        ]
        for kind in ("released", "oracle"):
            name = next((name for name in _SHOWN if name in record.metrics[kind]), "")
            words += [f"{name} {record.metrics[kind][name]:.3f} ({kind})"] if name else []
        if record.worst_epsilon is not None:
            words.append(f"ε {show_epsilon(record.worst_epsilon, 3)} at the worst site (public)")
        self._say(", ".join(words))

    def note(self, message: str) -> None:
        """A remark of the run."""
        self._say(f"note: {message}")

    def finished(self, summary: Summary) -> None:
        """How it ended."""
        self._say(
            f"{summary.status}: {summary.sums} of {summary.rounds} rounds gave a sum, {summary.seconds:.1f} s"
        )

    def _say(self, text: str) -> None:
        print(text, file=self._to or sys.stderr, flush=True)
