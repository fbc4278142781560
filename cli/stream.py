"""``fedcart detect --follow``: events from standard input, scores to standard output, until the input ends."""

from __future__ import annotations

import sys
from pathlib import Path

from cli import show
from common.strict_json import one_line

Sources = tuple[str, Path | None, str, Path | None, bool]


def follow_stream(model: Path, events: Path | None, limits: tuple[float, int], sources: Sources) -> None:
    """Read JSON lines from stdin and answer each at once; ``limits`` = (rate, consumers in memory).

    ``events`` says what came before: it warms up the memory and the threshold.
    """
    from client.scoring.consumers import load_local, local_key, state_folder
    from client.scoring.follow import DriftingLevel, follow
    from client.scoring.model import open_model
    from client.scoring.stream import StreamScorer

    rate, consumers = limits
    format_name, catalogue, site, state, with_ids = sources
    key = local_key(state_folder(state))
    scorer = StreamScorer(open_model(model, catalogue=catalogue, site=site), consumers, key)
    recent = scorer.warm(load_local(events, format_name, key).log) if events is not None else ()
    level = DriftingLevel(rate, recent)
    scored = wrong = 0
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a broken character must not end the stream
    for answer in follow(sys.stdin, scorer, level, with_ids=with_ids):
        wrong += "error" in answer
        scored += "error" not in answer
        print(one_line(answer), flush=True)
    show.note(f"{scored:,} events scored, {wrong:,} unusable lines, {len(scorer):,} consumers in memory")
