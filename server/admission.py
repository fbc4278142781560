"""Which answers are let into a round: only those whose signed ledger statement holds.

A site whose attestation is missing or wrong is out of the round before anything of it is summed, so no sum
is ever larger than the epsilon shown for it. What was attested is on disk before the next exchange, so that
a server that dies cannot forget it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.atomic import write_atomic
from common.contribution import Query
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy import AttestedHeads, SignedAttestation
from common.run import RunPlan
from common.trust import Roster


@dataclass
class HeadsBook:
    """The newest attestation of every site, on disk. Kept per coordinator, so that a new run does not forget."""

    path: Path
    heads: AttestedHeads

    @staticmethod
    def open(path: Path) -> HeadsBook:
        """Read the book, or begin one. Raises: BadInputError if it is damaged."""
        if not path.exists():
            return HeadsBook(path, AttestedHeads())
        try:
            return HeadsBook(path, AttestedHeads.from_json(json.loads(path.read_text())))
        except ValueError as error:
            raise BadInputError(f"{path} is damaged", hint="restore it from a backup; do not remove it") from error

    def save(self) -> None:
        """Make what was accepted durable."""
        write_atomic(self.path, json.dumps(self.heads.to_json(), allow_nan=False).encode())


@dataclass
class Admission:
    """The check of one round's answers. ``accepted`` holds the attestations that were let in, as JSON values.

    ``witness``: the root over the heads that the sites are shown; ``attempt``: the one under way.
    """

    plan: RunPlan
    query: Query
    roster: Roster
    book: HeadsBook
    witness: bytes
    attempt: int = 0
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
            "delta": self.plan.config.privacy.delta,
            "roster": self.roster.digest.hex(),
            "witness": self.witness.hex(),
        }
        for what, wanted in asked.items():
            if getattr(said, what) != wanted:
                raise VerificationError(f"{site} attests another {what} than was asked")
        self.book.heads.accept(signed, self.roster.party(site).public_key)
        self.accepted[site] = signed.to_json()

    def note_charge(self, site: str, parts: dict[str, Any]) -> None:
        """Take in what a site attests with an error: it failed, or is late, after it was charged."""
        if parts.get("attestation"):
            with suppress(FedcartError):  # a false one changes nothing: the site is out of the round anyway
                self.admit(site, parts)

    def close(self) -> None:
        """All answers are in: remember them before anything else is asked."""
        if self.accepted:
            self.book.save()
