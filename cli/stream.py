"""``fedcart detect --follow``: events from standard input, scores to standard output, until the input ends."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cli.options as options
import cli.show as show
from common.strict_json import one_line


@dataclass(frozen=True)
class Limits:
    """``rate``: share of recent behaviour to report; ``consumers``: how many are kept in memory."""

    rate: float
    consumers: int


def follow_stream(model: Path, events: Path | None, limits: Limits, reading: options.ReadOptions) -> None:
    """Read JSON lines from stdin and answer each at once.

    ``events`` says what came before: it warms up the memory and the threshold.
    """
    from client.scoring.consumers import load_local, local_key
    from client.scoring.lines import DriftingLevel, bounded, follow
    from client.scoring.stream import StreamScorer

    place = options.place_of(model, reading)
    shared, key = options.open_at(place, reading), local_key(place.state)
    scorer = StreamScorer(shared, limits.consumers, key)
    recent = scorer.warm(load_local(events, place.format, key).log) if events is not None else ()
    level = DriftingLevel(limits.rate, recent)
    scored = wrong = 0
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a broken character must not end the stream
    for answer in follow(bounded(sys.stdin), scorer, level, with_ids=reading.with_ids):
        wrong += "error" in answer
        scored += "error" not in answer
        print(one_line(answer), flush=True)
    show.note(f"{scored:,} events scored, {wrong:,} unusable lines, {len(scorer):,} consumers in memory")
