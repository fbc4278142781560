"""What all papers are made of: figures with their origin, what was planned, and the one statement. And the parts that papers share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.audit.papers.paper import Item, Reference, Section, Table
from common.audit.statement import Statement
from common.privacy import show_epsilon, show_exact

FALSE_ALARM = 0.01
NOT_PRIVATE = (
    "NOT PRIVATE",
    "This run gives no guarantee about any consumer: nothing here may be called differentially private.",
)
SIMULATED = (
    "SIMULATED",
    "Drawn from a simulation on one machine: its sites and budgets stand for nobody, and nothing of it carries over to a deployment.",
)  # fmt: skip


@dataclass(frozen=True)
class Total:
    """What one consumer has lost at ``who``, a site or a scope; ``alone``: if no other site is honest, where sites share noise.

    ``colluders``: how many colluding sites ``epsilon`` holds against; None: any number. ``limit`` None: nothing here says it;
    ``limit_from``: where it is from, if not from what a site has attested.
    """

    who: str
    epsilon: float
    alone: float
    colluders: int | None
    delta: float
    limit: float | None
    references: tuple[Reference, ...]
    limit_from: str = ""


@dataclass(frozen=True)
class Release:
    """One reservation of a site, in words and figures."""

    site: str
    run: str
    round: int
    state: str
    what: str
    epsilon: float
    so_far: float
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class RunFacts:
    """What the plan and the records of one run say of it."""

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Facts:
    """``name``: of the whole; ``checked``: what the verification has looked at; ``together``: consumers of several sites or
    scopes, with their epsilon. ``published``: day of the last release that a ledger knows. Units: ``drawn_up``: YYYY-MM-DD, UTC.
    """

    name: str
    statement: Statement
    totals: tuple[Total, ...]
    together: tuple[tuple[str, float, float], ...]
    releases: tuple[Release, ...]
    runs: tuple[RunFacts, ...]
    sites: tuple[str, ...]
    checked: tuple[str, ...]
    published: str
    drawn_up: str
    version: str

    @property
    def private(self) -> bool:
        """Whether anything is promised at all."""
        return self.statement.private

    @property
    def shared(self) -> bool:
        """Whether some sum holds noise of several sites."""
        return any(total.colluders is not None for total in self.totals)

    @property
    def worst(self) -> Total | None:
        """Where most was spent; None where nothing is promised."""
        return max(self.totals, key=lambda total: total.epsilon, default=None) if self.private else None

    @property
    def ends(self) -> tuple[Reference, ...]:
        """Where a figure over all totals is from: the end of the account behind each."""
        return tuple(dict.fromkeys(one for total in self.totals for one in total.references[:1]))

    @property
    def marks(self) -> tuple[tuple[str, str], ...]:
        """What nobody may overlook, for the top of every paper."""
        marks = [] if self.private else [NOT_PRIVATE]
        marks += [SIMULATED] if self.statement.simulated else []
        own = ("NOT PRIVATE", "Simulated ledgers")
        return (*marks, *(("note", words) for words in self.statement.warnings if not words.startswith(own)))


def eps(value: float) -> str:
    """An epsilon as ``audit show`` writes it."""
    return show_epsilon(value, 3)


def most_found(epsilon: float, delta: float) -> float:
    """Share of those who took part that a test finds at most, if it accuses ``FALSE_ALARM`` of those who did not.

    Source: Kairouz, Oh and Viswanath (2015), theorem 2.1: the region of tests that (epsilon, delta) allows.
    """
    if math.isinf(epsilon):
        return 1.0
    by_alarm = math.exp(min(epsilon, 700.0)) * FALSE_ALARM + delta
    by_miss = 1 - (1 - FALSE_ALARM - delta) * math.exp(-epsilon)
    return min(1.0, by_alarm, by_miss)


def totals_table(facts: Facts) -> Table:
    """What a consumer has lost, at each site or scope; with both figures where sites share their noise."""
    shared = facts.shared
    columns = ("site or scope", "ε so far", *(("holds against", "ε alone") if shared else ()), "limit", "δ")
    rows = []
    for total in facts.totals:
        both = (_whom(total.colluders), eps(total.alone)) if shared else ()
        limit = "not in this record" if total.limit is None else f"{show_exact(total.limit)}{total.limit_from}"
        cells = (total.who, eps(total.epsilon), *both, limit, f"{total.delta}")
        rows.append((cells, total.references))
    return Table("What one consumer has lost at most", columns, tuple(rows), "public")


def _whom(colluders: int | None) -> str:
    if colluders is None:
        return "everybody outside the site"
    return f"the server and up to {colluders} other sites together" if colluders else "the server alone"


def together_table(facts: Facts) -> Table:
    """The same consumer in several places; empty where there is one place."""
    rows = tuple(((who, eps(epsilon), f"{delta}"), facts.ends) for who, epsilon, delta in facts.together)
    return Table("A consumer known at several places", ("case", "ε", "δ"), rows, "public")


def adversaries_table(facts: Facts) -> Table:
    """Against whom which figure holds."""
    rows = tuple(
        (
            (a.who, a.sees, "none" if a.epsilon is None else eps(a.epsilon), a.why),
            () if a.epsilon is None else facts.ends,
        )
        for a in facts.statement.adversaries
    )
    return Table("Against whom", ("who", "sees", "ε", "because"), rows, "public")


def releases_table(facts: Facts) -> Table:
    """Every reservation with the entry or record that it comes from."""
    columns = ("site", "run", "round", "state", "what was released", "ε alone", "ε so far")
    rows = tuple(
        ((r.site, r.run, str(r.round), r.state, r.what, "–" if r.state == "void" else eps(r.epsilon), eps(r.so_far)), r.references)
        for r in facts.releases
    )  # fmt: skip
    return Table("Every release", columns, rows, "public")


def stated(facts: Facts, *titles: str) -> tuple[Item, ...]:
    """Sections of the statement, sentence by sentence."""
    return tuple(
        Item(section.title, sentence)
        for section in facts.statement.sections
        if section.title in titles
        for sentence in section.sentences
    )


def listed(label: str, sentences: tuple[str, ...]) -> tuple[Item, ...]:
    """Sentences under one label."""
    return tuple(Item(label, sentence) for sentence in sentences)


def run_sections(facts: Facts) -> tuple[Section, ...]:
    """One section per run: what was planned and what was done."""
    return tuple(Section(f"Run {run.name}", items=run.items) for run in facts.runs)


def checked_section(facts: Facts) -> Section:
    """That the record was verified when the paper was drawn up, and by what that can be repeated."""
    items = (
        Item("Verified", f"{facts.drawn_up}, offline, by fedcart {facts.version}"),
        *listed("Checked", facts.checked),
    )
    return Section("How this paper was checked", "fedcart audit verify repeats it for anybody who has the record.", items)  # fmt: skip
