"""Which answers are let into a round: only those whose signed ledger statement holds.

A site whose attestation is missing or wrong is out of the round before anything of it is summed, so no sum
is ever larger than the epsilon shown for it. What was attested is on disk before the next exchange, so that
a server that dies cannot forget it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.atomic import write_atomic
from common.contribution import Query
from common.errors import BadInputError, VerificationError
from common.plan import RunPlan
from common.privacy.attestation import AttestedHeads, SignedAttestation
from common.trust.identity import Roster


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
    """The check of one round's answers. ``accepted`` holds the attestations that were let in, as JSON values."""

    plan: RunPlan
    query: Query
    roster: Roster
    book: HeadsBook
    accepted: dict[str, Any] = field(default_factory=dict)

    def admit(self, site: str, parts: dict[str, Any]) -> None:
        """Return if the answer may go on. Raises: VerificationError, BadInputError if it may not."""
        if not self.plan.config.privacy.enabled:
            return
        try:
            signed = SignedAttestation.from_json(json.loads(parts.get("attestation", "")))
        except (ValueError, TypeError) as error:
            raise VerificationError(f"{site} sent no attestation of its ledger") from error
        said = signed.attestation
        if (said.site, said.query) != (site, self.query.digest().hex()):
            raise VerificationError(f"{site} attests another site or query")
        if said.events != self.plan.events(self.query.kind):
            raise VerificationError(f"{site} attests other events than were asked")
        self.book.heads.accept(signed, self.roster.party(site).public_key)
        self.accepted[site] = signed.to_json()

    def close(self) -> None:
        """All answers are in: remember them before anything else is asked."""
        if self.accepted:
            self.book.save()
