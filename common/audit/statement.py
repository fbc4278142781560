"""What may be claimed about privacy, as data: for ``audit show``, the HTML report and the run's summary.

The order follows NIST SP 800-226: unit, neighbouring relation, trust model, mechanism, sampling,
composition, random source, and then what is not covered. Texts are about this product's mechanism only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from common.audit.adversaries import Adversary, adversaries_of, colluders_of
from common.audit.budgets import SiteBudget
from common.errors import ConfigError
from common.privacy import (
    Losses,
    PrivacyEvent,
    Quorum,
    Replay,
    delta_remark,
    epsilon_everywhere,
    epsilon_everywhere_in_one_run,
    epsilon_of,
    round_up,
)

EXACT_ROWS = 250


@dataclass(frozen=True)
class CrossSite:
    """The same consumer at several sites. ``delta`` is the smallest of the sites', which is the cautious one."""

    disjoint: float
    everywhere: float
    delta: float
    sites: int


@dataclass(frozen=True)
class StatementSection:
    """One heading of the statement with its sentences."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """The whole claim. ``private`` False: nothing is claimed, and every output must say so."""

    private: bool
    simulated: bool
    sites: tuple[SiteBudget, ...]
    adversaries: tuple[Adversary, ...]
    cross_site: CrossSite | None
    sections: tuple[StatementSection, ...]
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class LedgerRow:
    """One RESERVE of a ledger: what it was for, what it cost, and where the scope stood after it.

    ``epsilon_so_far`` counts everything up to it that is not void (in a long ledger up to a later row).
    """

    sequence: int
    time: str
    run: str
    round: int
    attempt: int
    state: str
    events: tuple[PrivacyEvent, ...]
    epsilon_this_round: float
    epsilon_so_far: float


def make_statement(
    budgets: Sequence[SiteBudget],
    *,
    secure: bool | None,
    private: bool = True,
    hardened: bool = False,
    quorum: Quorum | None = None,
    one_run: bool = False,
) -> Statement:
    """Assemble the claim for these sites.

    ``secure``: contributions were summed under masks, None if nothing says so; ``private`` False: trained without noise, or with the
    seeded test stream. ``quorum``: of the run, where sites share the noise of a sum and the run is known;
    ``one_run``: nothing but this run was ever charged. Where more was, its thresholds may be others: nothing is then said
    between what is promised and the site's own noise.
    """
    simulated = any(budget.simulated for budget in budgets)
    return Statement(
        private=private and bool(budgets),
        simulated=simulated,
        sites=tuple(budgets),
        adversaries=adversaries_of(budgets, secure, quorum if one_run else None) if private else (),
        cross_site=cross_site(budgets, one_run=one_run) if private and budgets else None,
        sections=_sections(hardened=hardened, shared=colluders_of(budgets) is not None),
        assumptions=_assumptions(simulated=simulated),
        not_covered=NOT_COVERED if colluders_of(budgets) is None else (*NOT_COVERED, *NOT_COVERED_IN_A_QUORUM),
        warnings=_warnings(budgets, private=private, simulated=simulated),
    )


def ledger_rows(state: Replay) -> list[LedgerRow]:
    """The history of a ledger, one row per RESERVE, epsilon rounded up to six decimals.

    Guarantee: no ``epsilon_so_far`` is below the truth. In a ledger of more than ``EXACT_ROWS`` reservations only
    so many are computed; a row between two of them shows the later one's.
    """
    if state.header is None:
        return []
    delta, reservations = state.header.delta, list(state.reservations.values())
    spent: list[Losses] = []
    total = state.carried
    for r in reservations:
        total = total if r.state == "void" else total + Losses.of(r.body.events)
        spent.append(total)
    this_round = cache(lambda events: round_up(epsilon_of(events, delta)))
    step = -(-len(reservations) // EXACT_ROWS)
    late = min(state.late, default=None)

    def order_at(index: int) -> float | None:
        begun = late is not None and reservations[index].sequence >= late
        return state.order if state.carried_adaptive or begun else None

    so_far = cache(lambda index: round_up(epsilon_of(spent[index], delta, order_at(index))))
    return [
        LedgerRow(
            r.sequence, r.time, r.body.run, r.body.round, r.body.attempt, r.state, r.body.events,
            this_round(r.body.events), so_far(min((i // step + 1) * step, len(spent)) - 1),
        )
        for i, r in enumerate(reservations)
    ]  # fmt: skip


def cross_site(budgets: Sequence[SiteBudget], *, one_run: bool = False) -> CrossSite:
    """Both extremes: every consumer known at one site only, and a consumer known at all of them.

    ``one_run``: whatever was charged is of the sums of one run, where a sum that several sites share is moved several times.
    """
    delta = min(budget.delta for budget in budgets)
    everywhere = epsilon_everywhere([(Losses.of(b.events), b.order) for b in budgets], delta)
    if one_run and all(b.colluders is not None and b.order is None for b in budgets):
        everywhere = min(everywhere, epsilon_everywhere_in_one_run([Losses.of(b.events) for b in budgets], delta))
    disjoint = max(epsilon_of(budget.events, delta, budget.order) for budget in budgets)
    return CrossSite(round_up(disjoint), round_up(everywhere), delta, len(budgets))


COMPOSITION = StatementSection(
    "Composition",
    (
        "All rounds, restarts, runs and models on one scope add up in the site's ledger.",
        "Reported is the smaller of two upper bounds, Rényi and privacy loss distribution, as long as every run of the "
        "scope was planned before its first release. A run that came later may have been chosen for what was released: "
        "then the Rényi bound counts, at the one order that was written into the ledger before the first release.",
        "The promise is the limit. Epsilon so far is what the ledger counts now; it may still grow up to it.",
    ),
)


_LOCAL_TRUST = "Local to the site: the figure holds against everybody outside, the server included."
_SHARED_TRUST = (
    "The figure holds against the server and whoever commands no more sites than the promise names, because sums open only "
    "with the noise of enough honest sites. Against more, the figure of the site's own noise holds, which is shown beside it."
)
_SHARED_MECHANISM = (
    "Where sites share the noise of a sum: each consumer's gradient is clipped as above; each coordinate of the clipped sum is "
    "clamped, rounded at random, and discrete Gaussian noise is added in the ring of secure aggregation; what that differs from "
    "a Gaussian by is in every figure."
)


def _sections(*, hardened: bool, shared: bool = False) -> tuple[StatementSection, ...]:
    source = "AES-256 in counter mode under a key from the operating system, fresh in each process"
    normals = "sums of four Box-Muller normals" if hardened else "Box-Muller normals with a 63-bit radius"
    return (
        StatementSection(
            "Unit", ("One consumer: everything that a site holds about one person is one row of its data.",)
        ),
        StatementSection(
            "Neighbouring relation", ("Add or remove one consumer; so the number of consumers is private too.",)
        ),
        StatementSection(
            "Trust model",
            (
                _SHARED_TRUST if shared else _LOCAL_TRUST,
                "The site's own software, machine and operator are trusted.",
            ),
        ),
        StatementSection(
            "Mechanism",
            (
                "Each consumer's gradient is clipped in L2 norm over all parameters together; Gaussian noise in "
                "proportion to the clipping norm is added to the sum in every step.",
                "Evaluation and statistics release noised sums of bounded values; nothing else is released.",
                "Sales series: each consumer's purchases are clipped in L2 norm over all cells together, and Gaussian "
                "noise is added to every cell once; training on the released series is post-processing, at no charge.",
                *([_SHARED_MECHANISM] if shared else []),
            ),
        ),
        StatementSection(
            "Sampling",
            (
                "Poisson: every consumer is in a step independently with a public probability.",
                "The choice of sites per round is not counted as amplification: the server knows who took part.",
            ),
        ),
        COMPOSITION,
        StatementSection("Random source", (f"{source}; {normals}, for noise, sampling and rounding.",)),
    )


NOT_COVERED = (
    "What the guarantee bounds is the extra risk of taking part; facts about people in general can be learnt.",
    "Floating point: the guarantee is stated for real numbers; the released vector is rounded to a fixed-point grid.",
    "Which sites take part, message sizes and time are visible to the server. A real site's training answer waits for the "
    "next full second, so time tells the number of consumers to some hundreds; two rounds of a run may be given back unpaid.",
    "That an answer failed, and its code (a fixed word such as failed or budget), is seen by the server. A failure after the "
    "reservation is charged, but for two processes a run that were ended while they computed; whether there is one could still "
    "depend on the data: by memory, disk, or a bug.",
    "Where events come from a query of the operator's own, a value on which that query fails makes the site fail, and that is seen.",
    "A scope is one ledger. The same people in the ledger of another machine or another scope are not known here.",
    "Rounding in single precision within 256 consumers: the noise has a public slack for it, measured and not proven.",
    "An item catalogue that was built from an event log is itself a release and is not counted.",
    "A consumer who uses several accounts or devices at a site counts as several consumers.",
    "Figures marked oracle in a simulation are computed from all data; a deployment does not have them.",
    "What a site does with the model, and who can read its disk.",
)


NOT_COVERED_IN_A_QUORUM = (
    "Who else is honest: sites that skip or repeat their noise, run other code, share an operator or a machine, or stand for "
    "nobody, count as colluding, in the whole roster and as long as keys of the session are held.",
    "Against more colluding sites than named, the site's own share of the noise is all there is: that figure, not this one.",
)


def _assumptions(*, simulated: bool) -> tuple[str, ...]:
    common = (
        "The declared population, sampling rate and number of steps are constants that do not depend on the data.",
        "One row of a site's data is one consumer; hold-out and training consumers are disjoint and fixed.",
        "The operating system's random numbers are unpredictable, and AES-256 is not broken.",
        "SHA-256 and Ed25519 hold; the site's signing key is used by the site alone.",
    )
    if not simulated:
        return common
    return (*common, "Simulation: the declared population is the true one rounded up to a power of two.")


def _delta_warning(budget: SiteBudget) -> list[str]:
    if budget.population is None:
        return []
    try:
        remark = delta_remark(budget.delta, {budget.site: budget.population})
    except ConfigError as error:
        remark = f"{error.message}: the promise says nothing about any consumer."
    return [remark] if remark else []


def _warnings(budgets: Sequence[SiteBudget], *, private: bool, simulated: bool) -> tuple[str, ...]:
    warnings = []
    if not private:
        warnings.append("NOT PRIVATE: this run gives no guarantee about any consumer.")
    if simulated:
        warnings.append("Simulated ledgers: this budget does not carry over to a deployment or to another run.")
    for budget in budgets if private else ():
        if budget.limit is not None and budget.epsilon > budget.limit:
            warnings.append(
                f"{budget.site}: spent {budget.epsilon} is above the limit {budget.limit} of its policy now."
            )
        warnings += _delta_warning(budget)
        if budget.reading().adaptive:
            warnings.append(
                f"{budget.site}: a run was not planned before the scope's first release; the Rényi bound at order "
                f"{budget.order:g} counts (if all had been planned: {round_up(budget.reading().if_fixed_in_advance, 4)})."
            )
    return tuple(warnings)
