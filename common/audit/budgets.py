"""What a site's scope has spent, as its attestation or its ledger says it."""

from __future__ import annotations

from dataclasses import dataclass

from common.privacy import (
    Losses,
    PrivacyEvent,
    Reading,
    Replay,
    ScopeAccountant,
    SignedAttestation,
    epsilon_alone,
    epsilon_of,
    round_up,
)


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
    def alone(self) -> float:
        """The same where no other site is honest: what each site's own noise allows, against everybody."""
        return round_up(epsilon_alone(self.events, self.delta, self.order))

    @property
    def colluders(self) -> int | None:
        """How many colluding sites ``epsilon`` holds against; None: any number, each site's own noise is enough."""
        return Losses.of(self.events).colluders

    @property
    def left(self) -> float | None:
        """Limit minus spent, at least 0; None without a limit."""
        return None if self.limit is None else max(0.0, self.limit - self.epsilon)

    def reading(self) -> Reading:
        """Both accountants."""
        return ScopeAccountant(self.events, self.order).reading(self.delta)


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
