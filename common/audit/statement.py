"""What may be claimed about privacy, as data: for ``audit show``, the HTML report and the run's summary.

The order follows NIST SP 800-226: unit, neighbouring relation, trust model, mechanism, sampling,
composition, random source, and then what is not covered. Texts are about this product's mechanism only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from common.errors import ConfigError
from common.privacy import (
    Losses,
    PrivacyEvent,
    Reading,
    Replay,
    ScopeAccountant,
    SignedAttestation,
    delta_remark,
    epsilon_everywhere,
    epsilon_of,
    round_up,
)

EXACT_ROWS = 250


@dataclass(frozen=True)
class SiteBudget:
    """What one site's scope has spent. ``limit`` None where only the ledger is known: policies stay at sites.

    ``order``: the Rényi order that counts because a run was not planned before the first release, else None.
    ``population``: declared consumers, where it is known.
    """

    site: str
    scope: str
    delta: float
    limit: float | None
    events: tuple[PrivacyEvent, ...]
    simulated: bool
    order: float | None = None
    population: int | None = None

    @property
    def epsilon(self) -> float:
        """Spent so far, rounded up to six decimals."""
        return round_up(epsilon_of(self.events, self.delta, self.order))

    @property
    def left(self) -> float | None:
        """Limit minus spent, at least 0; None without a limit."""
        return None if self.limit is None else max(0.0, self.limit - self.epsilon)

    def reading(self) -> Reading:
        """Both accountants."""
        return ScopeAccountant(self.events, self.order).reading(self.delta)


@dataclass(frozen=True)
class Adversary:
    """One row of the adversary table: who, what they see, and the epsilon that holds against them."""

    who: str
    sees: str
    epsilon: float | None
    why: str


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
    epsilon_alone: float
    epsilon_so_far: float


def make_statement(
    budgets: Sequence[SiteBudget], *, secure: bool | None, private: bool = True, hardened: bool = False
) -> Statement:
    """Assemble the claim for these sites.

    ``secure``: contributions were summed under masks, None if nothing says so; ``private`` False: trained without noise, or with the
    seeded test stream.
    """
    simulated = any(budget.simulated for budget in budgets)
    return Statement(
        private=private and bool(budgets),
        simulated=simulated,
        sites=tuple(budgets),
        adversaries=_adversaries(budgets, secure=secure) if private else (),
        cross_site=cross_site(budgets) if private and budgets else None,
        sections=_sections(hardened=hardened),
        assumptions=_assumptions(simulated=simulated),
        not_covered=NOT_COVERED,
        warnings=_warnings(budgets, private=private, simulated=simulated),
    )


def budget_of_attestation(signed: SignedAttestation) -> SiteBudget:
    """A site's budget from its latest attestation: the deployed server's and the run folder's view."""
    said = signed.attestation
    return SiteBudget(
        said.site, said.scope, said.delta, said.limit, said.totals, said.simulated, said.adaptive_order
    )


def budget_of_ledger(state: Replay, limit: float | None = None) -> SiteBudget:
    """A site's budget from its replayed ledger. Raises: ValueError if the ledger is empty."""
    if state.header is None:
        raise ValueError("the ledger has no entry")
    header = state.header
    return SiteBudget(
        header.site, header.scope, header.delta, limit, state.spent.events, header.simulated, state.adaptive_order
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
    alone = cache(lambda events: round_up(epsilon_of(events, delta)))
    step = -(-len(reservations) // EXACT_ROWS)
    late = min(state.late, default=None)

    def order_at(index: int) -> float | None:
        begun = late is not None and reservations[index].sequence >= late
        return state.order if state.carried_adaptive or begun else None

    so_far = cache(lambda index: round_up(epsilon_of(spent[index], delta, order_at(index))))
    return [
        LedgerRow(
            r.sequence, r.time, r.body.run, r.body.round, r.body.attempt, r.state, r.body.events,
            alone(r.body.events), so_far(min((i // step + 1) * step, len(spent)) - 1),
        )
        for i, r in enumerate(reservations)
    ]  # fmt: skip


def cross_site(budgets: Sequence[SiteBudget]) -> CrossSite:
    """Both extremes: every consumer known at one site only, and a consumer known at all of them."""
    delta = min(budget.delta for budget in budgets)
    everywhere = epsilon_everywhere([(Losses.of(b.events), b.order) for b in budgets], delta)
    disjoint = max(epsilon_of(budget.events, delta, budget.order) for budget in budgets)
    return CrossSite(round_up(disjoint), round_up(everywhere), delta, len(budgets))


def _worst(budgets: Iterable[SiteBudget]) -> float | None:
    """Over scopes with different deltas at the smallest of them: one figure has one delta."""
    of_all = list(budgets)
    delta = min((budget.delta for budget in of_all), default=1.0)
    return max((round_up(epsilon_of(b.events, delta, b.order)) for b in of_all), default=None)


def _adversaries(budgets: Sequence[SiteBudget], *, secure: bool | None) -> tuple[Adversary, ...]:
    worst = _worst(budgets)
    local = "every site adds its full noise before anything leaves, so this needs no trust in anybody else"
    server_sees = (
        "the sum over the surviving sites of each round, and who took part"
        if secure
        else "every site's noised contribution alone (plain aggregation)"
        if secure is False
        else "noised contributions; a ledger does not record whether each alone or their sum"
    )
    return (
        Adversary("recipient of the final model", "the model of the last round", worst, local),
        Adversary("the other sites", "the model of every round", worst, local),
        Adversary("the server", server_sees, worst, local),
        Adversary(
            "the server together with colluding sites",
            "at worst one site's noised contributions alone: all others subtract theirs",
            worst,
            local + "; secure aggregation adds nothing here",
        ),
        Adversary("whoever controls the site's machine", "the raw data", None, "nothing here protects against it"),
    )


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


def _sections(*, hardened: bool) -> tuple[StatementSection, ...]:
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
                "Local to the site: the figure holds against everybody outside, the server included.",
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
