"""A scratch site of a federation whose sites share the noise of a sum, and the sessions that ask it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from client import session
from client.selftest import people, sessions
from common.contribution import EVALUATE
from common.run import PerformanceSettings

ALLOWED = {"trust": "quorum", "colluders": 2, "honest": 3, "sampling_rate": 0.5, "epsilon": 1000.0}
SETTINGS: dict[str, Any] = {
    "model": {"heads": {"next-item": 1.0, "next-event": 0.3}},
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 0.7, "rounds": 60},
    "privacy": ALLOWED,
    "aggregation": {"threshold": 5},
}
MARKET = people.Market(others=(2_048, 512, 512, 512, 512, 512), stocked=15)
NOISE = (0.6, 1.5)
SCALE = 0.7 / (0.5 * 2_048 * 0.8)  # learning rate over the expected batch of the site with most consumers
PHASES = ("share", "accept", "mask", "confirm", "unmask")


@contextmanager
def quorum_site() -> Iterator[people.Scratch]:
    with people.scratch_site(people.people(60), SETTINGS, NOISE, market=MARKET) as made:
        yield made


def model_of(scratch: people.Scratch) -> np.ndarray:
    return (0.3 * np.random.default_rng(1).normal(size=scratch.plan.parameters)).astype(np.float32)


def asked(scratch: people.Scratch, number: int = 1, **changes: Any) -> dict[str, Any]:
    number = 61 if changes.get("kind") == EVALUATE else number
    return sessions.asked(scratch, number, model_of(scratch), **changes)


def under(scratch: people.Scratch, **sections: dict[str, Any]) -> people.Scratch:
    """The same site under a plan with other settings that nobody has validated."""
    settings = json.loads(scratch.plan.settings)
    for section, changes in sections.items():
        settings[section] |= changes
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return dataclasses.replace(scratch, plan=dataclasses.replace(scratch.plan, settings=text))


def advertise(scratch: people.Scratch, request: dict[str, Any]) -> None:
    session.advertise(scratch.site, request, PerformanceSettings())


def charged(scratch: people.Scratch) -> int:
    status = scratch.site.guard().status()
    return status.open + status.committed + status.forfeit


def to(scratch: people.Scratch, phase: str, **changes: Any) -> sessions.Round:
    """A session in which the site has answered everything before this exchange."""
    made = sessions.Round(scratch, asked(scratch, **changes))
    before = PHASES[: PHASES.index(phase)]
    while made.step_from(*before):
        pass
    return made


def leave(made: sessions.Round) -> None:
    """All that is left of a session until the masked vector leaves."""
    while made.step_from("share", "accept", "mask"):
        pass
