"""Follows a run from its folder: shows on the screen what is new there, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from cli.screen import Screen
from common.contribution import STATISTICS
from common.run import INTERRUPTED, RUNNING, RunFacts, RunFolder, SiteFacts, Summary

POLL_S = 0.2
ENDED_WORDS = ("finished", "failed", "stopped")
BEGIN_S = 180.0
GRACE_POLLS = 10  # a server app that has ended gets this long to leave its summary


class Follower:
    """Tells a screen what is new in a run folder. Guarantee: each round and each note is told once."""

    def __init__(self, folder: RunFolder, screen: Screen) -> None:
        self.folder, self.screen = folder, screen
        self._rounds = self._notes = 0

    def in_a_round(self) -> bool:
        """Whether a round is under way, as far as the run folder says."""
        now = self.folder.progress()
        return bool(now and now.round > sum(r.kind != STATISTICS for r in self.folder.metrics()))

    def look(self) -> None:
        """Tell rounds and notes that have come since the last look, and what is under way."""
        records, notes = self.folder.metrics(), self.folder.notes()
        for record in records[self._rounds :]:
            self.screen.round_done(record)
        for note in notes[self._notes :]:
            self.screen.note(note)
        self._rounds, self._notes = max(self._rounds, len(records)), max(self._notes, len(notes))
        if now := self.folder.progress():
            self.screen.progress(now.round, now.phase, now.done, now.total)

    def skip_past(self) -> None:
        """Do not show again what an earlier run of this program has shown."""
        self._rounds, self._notes = len(self.folder.metrics()), len(self.folder.notes())

    def to_the_end(self, flower_status: Callable[[], str]) -> Summary:
        """Show a run until it has ended, return its summary.

        ``flower_status`` is Flower's word for the run, asked until the server app has begun.
        """
        from common.run import run_is_held

        begun, gone, started = False, 0, time.monotonic()
        while True:
            self.look()
            held = run_is_held(self.folder)
            begun = begun or held
            summary = self.folder.summary() or Summary(RUNNING)
            if summary.status != RUNNING:
                self.look()
                return summary
            ended = not held if begun else flower_status() in ENDED_WORDS or time.monotonic() - started > BEGIN_S
            gone = gone + 1 if ended else 0
            if gone > GRACE_POLLS:
                hint = "see the server's log, then: fedcart server resume"
                return Summary(INTERRUPTED, error="the server app ended without a word", hint=hint, exit_code=1)
            time.sleep(POLL_S)


def deployed_facts(folder: RunFolder) -> RunFacts:
    """What is known of a deployed run before round 1, written into its folder. Raises: BadInputError."""
    from simulations import facts as facts_of

    config, plan, masks = folder.settings(), folder.plan(), folder.item_masks()
    sites = [
        SiteFacts(name, declared, int(masks[name].sum()) if name in masks else 0)
        for name, declared in plan.populations
    ]
    facts = replace(
        facts_of.run_facts(folder.path, config, plan, sites, {}),
        assumptions=(
            "populations are declared by the sites, not counted",
            "consumers of different sites are different people unless stated otherwise",
            *facts_of.of_schedule(plan),
        ),
        budget="enforced by each site: its own policy and ledger decide",
    )
    folder.write_facts(facts)
    return facts
