"""What is said of a run before its first round: log, sites, training, price, and what to expect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

import cli.show as show
from common.plain_text import shown
from common.run import RunFacts

SITES_SHOWN = 12


def facts_lines(facts: RunFacts) -> list[str]:
    """What a run is about to do, as lines of markup."""
    people = sum(site.population for site in facts.sites)
    rows = log_rows(facts.data)
    rows.append(("sites", f"{len(facts.sites)}, {people:,} consumers declared, {facts.parameters:,} parameters"))
    width = max((len(site.name) for site in facts.sites[:SITES_SHOWN]), default=0)
    for site in facts.sites[:SITES_SHOWN]:
        text = f"{site.name:<{width}} {site.population:>8,} consumers {site.items:>7,} items  {site.note}"
        rows.append(("", escape(text.rstrip())))
    if len(facts.sites) > SITES_SHOWN:
        rows.append(("", f"and {len(facts.sites) - SITES_SHOWN} more"))
    steps = show.count(facts.local_steps, "local step")
    rows.append(("training", f"{show.count(facts.rounds, 'round')} of {steps}"))
    rows.append(("aggregation", escape(facts.aggregation)))
    if facts.private:
        promise = (
            f"per consumer at each site: ε ≤ {show.exact(facts.epsilon_target)} at δ = {show.exact(facts.delta)}"
        )
        noise = f"noise multiplier {facts.noise_multiplier:.3f}{' of the sum' if facts.trust else ''}"
        rows.append(("privacy", f"{promise}, {noise}, sampling rate {facts.sampling_rate:g}"))
        if facts.trust:
            rows.append(("", escape(facts.trust)))
            rows.append(("", f"if no other site is honest: ε ≤ {show.epsilon(facts.alone)} (public)"))
        rows.append(("budget", escape(facts.budget)))
        signal = f" (signal S = {facts.expected_signal:,.0f})" if math.isfinite(facts.expected_signal) else ""
        first, *more = facts.expectation.splitlines() or [""]
        rows += [("expect", escape(first + signal)), *(("", escape(line)) for line in more)]
    else:
        rows.append(("privacy", "[bold yellow]none: this run is NOT PRIVATE[/]"))
    return [f"[dim]{name:<12}[/] {text}" for name, text in rows]


def log_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the event log was taken for, what was left out, and what its data made of the settings."""
    rows, read = [], data.get("cleaning")
    if read:
        doubt = "" if read["status"] == "ok" else "; `fedcart data check` says what was dropped or changed"
        taken = "".join(f"; {shown(note, 300)}" for note in read["notes"])
        rows.append(("log", escape(f"{read['kept']:,} of {read['lines']:,} lines usable{taken}{doubt}")))
    rows += [("", f"[yellow]note:[/] {escape(shown(words, 300))}") for words in data.get("fitted", ())]
    return rows
