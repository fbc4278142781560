"""The adversary table: who may want to know something of a consumer, what they see, and the epsilon that holds against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from common.audit.budgets import SiteBudget
from common.privacy import PrivacyEvent, Quorum, epsilon_of, round_up


@dataclass(frozen=True)
class Adversary:
    """One row of the adversary table: who, what they see, and the epsilon that holds against them."""

    who: str
    sees: str
    epsilon: float | None
    why: str


def _worst(budgets: Iterable[SiteBudget], honest: int = 0) -> float | None:
    """Over scopes with different deltas at the smallest of them: one figure has one delta.

    ``honest``: whose shares of noise are counted, where it is fewer than promised.
    """
    return max(
        (round_up(epsilon_of(_with_honest(b, honest), b.delta, b.order)) for b in _at_least_delta(budgets)),
        default=None,
    )


def _at_least_delta(budgets: Iterable[SiteBudget]) -> list[SiteBudget]:
    of_all = list(budgets)
    delta = min((budget.delta for budget in of_all), default=1.0)
    return [replace(budget, delta=delta) for budget in of_all]


def _with_honest(budget: SiteBudget, honest: int) -> tuple[PrivacyEvent, ...]:
    if not honest:
        return budget.events
    return tuple(replace(e, honest=min(e.honest, honest)) if e.in_quorum else e for e in budget.events)


def colluders_of(budgets: Iterable[SiteBudget]) -> int | None:
    """How many colluding sites every figure holds against; None: any number."""
    return min((b.colluders for b in budgets if b.colluders is not None), default=None)


def adversaries_of(
    budgets: Sequence[SiteBudget], secure: bool | None, quorum: Quorum | None
) -> tuple[Adversary, ...]:
    """Who may want to know, what they see, and what holds against them.

    ``secure``: contributions were summed under masks, None if nothing says so; ``quorum``: of the run, where it is known and
    nothing else was ever charged.
    """
    machine = Adversary(
        "whoever controls the site's machine", "the raw data", None, "nothing here protects against it"
    )
    if (colluders := colluders_of(budgets)) is not None:
        return (*_against_a_quorum(budgets, colluders, quorum), machine)
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
        machine,
    )


def _against_a_quorum(budgets: Sequence[SiteBudget], colluders: int, quorum: Quorum | None) -> Iterator[Adversary]:
    """Rows of growing numbers of colluding sites: as promised, beyond it while no two lists can be signed, and no other honest.

    Whoever reads a model may be told by the sites that collude what they have added: the promise counts them for everybody.
    """
    worst = _worst(budgets)
    alone = max((budget.alone for budget in _at_least_delta(budgets)), default=None)
    together = f"together with up to {colluders} of the other sites" if colluders else "no other site with them"
    why = "a sum opens only with the noise of so many honest sites: secure aggregation and each site's own check of it"
    yield Adversary("recipient of the final model", f"the model of the last round, {together}", worst, why)
    if colluders:
        yield Adversary(
            "the other sites", f"the model of every round, up to {colluders} of them together", worst, why
        )
    yield Adversary("the server", f"the sums and who took part, {together}", worst, why)
    if quorum is not None:
        for number in range(colluders + 1, quorum.cliff):
            honest = quorum.honest_against(number)
            yield Adversary(
                f"the server together with {_sites(number)}",
                "sums of fewer honest sites than the promise counts on",
                _worst(budgets, honest) if honest > 1 else alone,
                f"still the noise of {honest} honest sites"
                if honest > 1
                else "only the site's own share of the noise",
            )
    beyond = "more" if quorum is None else f"{max(quorum.cliff, colluders + 1)} or more"
    yield Adversary(
        f"the server together with {beyond} colluding sites",
        "at worst one site's noised contributions alone",
        alone,
        "only the site's own share of the noise is left",
    )


def _sites(number: int) -> str:
    return f"{number} colluding site{'s' if number > 1 else ''}"
