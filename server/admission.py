"""Which answers are let into a round: only those whose signed ledger statement holds.

A site whose attestation is missing or wrong is out of the round before anything of it is summed, so no sum
is ever larger than the epsilon shown for it. What was attested is on disk before the next exchange, so that
a server that dies cannot forget it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from common.atomic import write_atomic
from common.contribution import Query
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy import (
    AttestedHeads,
    Losses,
    PrivacyEvent,
    SignedAttestation,
    epsilon_alone,
    epsilon_of,
    round_up,
)
from common.run import ASKED_FILE, RunPlan
from common.trust import Roster


@dataclass
class HeadsBook:
    """The newest attestation of every site, on disk. Kept per coordinator, so that a new run does not forget.

    ``asked``: what a site was asked since then and has not answered: it may be in its ledger, so it counts as spent until
    a later attestation, which holds all that is in the ledger.
    """

    path: Path
    heads: AttestedHeads
    asked: dict[str, Losses] = field(default_factory=dict)

    @staticmethod
    def open(path: Path) -> HeadsBook:
        """Read the book, or begin one. Raises: BadInputError if it is damaged."""
        heads, asked = _read(path, {}), _read(path.with_name(ASKED_FILE), {})
        try:
            losses = {site: Losses.of(PrivacyEvent(**event) for event in events) for site, events in asked.items()}
            return HeadsBook(path, AttestedHeads.from_json(heads), losses)
        except (ValueError, TypeError) as error:
            raise BadInputError(f"{path} is damaged", hint="restore it from a backup; do not remove it") from error

    def save(self) -> None:
        """Make what was accepted durable."""
        write_atomic(self.path, json.dumps(self.heads.to_json(), allow_nan=False).encode())
        self._save_asked()

    def ask(self, sites: Sequence[str], events: Sequence[PrivacyEvent]) -> None:
        """Note, durably, before a question leaves, what it costs the sites that answer it."""
        for site in sites if events else ():
            self.asked[site] = self.asked.get(site, Losses()) + Losses.of(events)
        self._save_asked()

    def answered(self, site: str, events: Sequence[PrivacyEvent] | None = None) -> None:
        """A site has attested all that is in its ledger; ``events``: or only said that it did not reserve these."""
        left = Losses() if events is None else self.asked.get(site, Losses()).beyond(Losses.of(events))
        self.asked = {name: losses for name, losses in {**self.asked, site: left}.items() if losses}

    def spent(self, site: str) -> Losses:
        """What the consumers of a site have lost at most: what was attested of their scope, and what was asked since.

        Sites that name one scope answer about the same consumers, from one ledger: each attests what all have spent, up to
        its own answer.
        """
        total = Losses()
        for one in self.of_scope(site):
            latest = self.heads.latest(one)
            total |= Losses.of(latest.attestation.totals) if latest else Losses()
        return reduce(add, (self.asked.get(one, Losses()) for one in self.of_scope(site)), total)

    def of_scope(self, site: str) -> list[str]:
        """The site itself, and all others whose last attestation names the same scope."""
        latest = {name: signed.attestation.scope for name, signed in self.heads.all().items()}
        return [site, *(name for name, scope in latest.items() if name != site and scope == latest.get(site))]

    def epsilon(self, delta: float = 1.0) -> dict[str, float]:
        """Spent at most, per site that ever attested; of one that never did nothing is known.

        ``delta``: at which the figures are shown; a site's own where that is smaller.
        """
        return {site: max(shown, self._at_most(site, delta)) for site, shown in self.heads.epsilon().items()}

    def _at_most(self, site: str, delta: float) -> float:
        """At the order of whichever site of the scope knows of a later run: one that has not answered since does not."""
        latest = [self.heads.latest(one) for one in self.of_scope(site)]
        said = [signed.attestation for signed in latest if signed is not None]
        at, spent = min(delta, *(one.delta for one in said)), self.spent(site)
        return round_up(max(epsilon_of(spent, at, one.adaptive_order) for one in said))

    def alone(self, delta: float = 1.0) -> dict[str, float]:
        """The same if no other site is honest, of those that share the noise of sums with others."""
        found = {}
        for site in self.heads.epsilon():
            latest, spent = self.heads.latest(site), self.spent(site)
            if latest is not None and spent.colluders is not None:
                said = latest.attestation
                found[site] = round_up(epsilon_alone(spent, min(delta, said.delta), said.adaptive_order))
        return found

    def _save_asked(self) -> None:
        plain = {site: [asdict(event) for event in losses] for site, losses in sorted(self.asked.items())}
        write_atomic(self.path.with_name(ASKED_FILE), json.dumps(plain, allow_nan=False).encode())


def _read(path: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(path.read_text()) if path.exists() else otherwise
    except ValueError as error:
        raise BadInputError(f"{path} is damaged", hint="restore it from a backup; do not remove it") from error
    return plain


@dataclass
class Admission:
    """The check of one round's answers. ``accepted`` holds the attestations that were let in, as JSON values.

    ``witness``: the root over the heads that the sites are shown; ``attempt``: the one under way. ``simulated``: whether all
    of this is: a real site that calls itself simulated would have the record look as if its ledger were missing.
    """

    plan: RunPlan
    query: Query
    roster: Roster
    book: HeadsBook
    witness: bytes
    attempt: int = 0
    simulated: bool = False
    accepted: dict[str, Any] = field(default_factory=dict)

    def admit(self, site: str, parts: dict[str, Any]) -> None:
        """Return if the answer may go on.

        Raises: FedcartError (mostly VerificationError or BadInputError) if it may not; no other error leaves, whatever
        the answer is.
        """
        if not self.plan.config.privacy.enabled:
            return
        try:
            if "attestation" not in parts:
                raise VerificationError(f"{site} sent no attestation of its ledger")
            self._take(site, SignedAttestation.from_text(parts["attestation"]))
        except FedcartError:
            raise
        except Exception as error:  # one site must not be able to end the run for all
            raise BadInputError(f"attestation of {site}: unexpected {type(error).__name__}") from error

    def _take(self, site: str, signed: SignedAttestation) -> None:
        said = signed.attestation
        asked = {
            "site": site,
            "query": self.query.digest().hex(),
            "run": self.plan.run,
            "round": self.query.round,
            "attempt": self.attempt,
            "events": self.plan.events(self.query.kind),
            "roster": self.roster.digest.hex(),
            "witness": self.witness.hex(),
            "simulated": self.simulated,
        }
        for what, wanted in asked.items():
            if getattr(said, what) != wanted:
                raise VerificationError(f"{site} attests another {what} than was asked")
        if not self.plan.accepts_delta(site, said.delta):
            raise VerificationError(f"{site} attests another delta than was asked")
        self.book.heads.accept(signed, self.roster.party(site).public_key)
        self.accepted[site] = signed.to_json()
        self.book.answered(site)

    def ask(self, sites: Sequence[str]) -> None:
        """The question is about to leave: what it costs counts until these sites say otherwise. Raises: WorkFailedError."""
        if self.plan.config.privacy.enabled:
            self.book.ask(sites, self.plan.events(self.query.kind))

    def note_no(self, site: str) -> None:
        """A site says that it refused, before it reserved anything."""
        if self.plan.config.privacy.enabled:
            self.book.answered(site, self.plan.events(self.query.kind))

    def note_charge(self, site: str, parts: dict[str, Any]) -> None:
        """Take in what a site attests with an error: it failed, or is late, after it was charged."""
        if parts.get("attestation"):
            with suppress(FedcartError):  # a false one changes nothing: the site is out of the round anyway
                self.admit(site, parts)

    def close(self) -> None:
        """All answers are in: remember them before anything else is asked."""
        if self.plan.config.privacy.enabled:
            self.book.save()
