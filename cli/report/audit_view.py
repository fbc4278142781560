"""What an auditor asks of a run folder, a ledger, or a folder of ledgers, gathered for table, page, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.audit.budgets import SiteBudget, budget_of_attestation, budget_of_ledger
from common.audit.records import Records, asked_since, attestations_in, find_records, rounds_of
from common.audit.statement import LedgerRow, Statement, ledger_rows, make_statement
from common.audit.verdict import VerifyReport
from common.audit.verify import verify_path
from common.errors import BadInputError, FedcartError, VerificationError
from common.plain_text import cell
from common.privacy import (
    HOLDOUT_SIDE,
    TRAIN_SIDE,
    VALIDATION_SIDE,
    Losses,
    PrivacyEvent,
    Quorum,
    Replay,
    ScopeAccountant,
    SignedAttestation,
    epsilon_of,
    round_up,
    rounds_left,
)
from common.run import RoundRecord, RunFolder, never_attested, unattested

ATTESTED = "attested"
NOT_ATTESTED = "not attested"
POST_PROCESSING = "post-processing of the release"
CSV_COLUMNS = (
    "site", "scope", "run", "round", "attempt", "state", "time", "events",
    "epsilon_this_round", "epsilon_so_far", "limit", "left", "delta",
)  # fmt: skip


@dataclass(frozen=True)
class SiteAudit:
    """One site: what its scope has spent, and the history behind it. ``source``: ledger, or attestations."""

    budget: SiteBudget
    rows: tuple[LedgerRow, ...]
    source: str

    @property
    def charged(self) -> list[LedgerRow]:
        """The rows that count: committed, open, or attested."""
        return [row for row in self.rows if row.state != "void"]

    @property
    def rounds_left(self) -> int | None:
        """How many more rounds like the last training round fit under the limit; None if unknown."""
        events = next((row.events for row in reversed(self.charged) if _trains(row)), None)
        if self.budget.limit is None or events is None:
            return None
        return _rounds_left(self.budget, events)


@dataclass(frozen=True)
class NotAttested:
    """A site that was invited to a round and of which nobody knows whether it was charged: it is, at worst."""

    site: str
    round: int
    what: str


@dataclass(frozen=True)
class Audit:
    """All of it. ``records`` is empty unless the path is a run folder; ``name`` is then that of the run."""

    path: Path
    name: str
    sites: tuple[SiteAudit, ...]
    statement: Statement
    verdict: VerifyReport
    records: tuple[RoundRecord, ...]
    not_attested: tuple[NotAttested, ...] = ()


def read_audit(path: Path) -> Audit:
    """Verify and read everything that can be audited at a path.

    Raises: BadInputError if there is nothing, or what is no file; VerificationError if no ledger of it can be read at all.
    """
    verdict = verify_path(path)
    where = find_records(path)
    run = where.run
    if run is not None:
        run.open(run.path)  # nothing in it is read that would keep us, or take all memory
    records = tuple(rounds_of(run))
    attested = attestations_in(records)
    ledgers = {state.header.site: state for state in where.replays.values() if state.header is not None}
    limits = {state.header.site: where.limit(file) for file, state in where.replays.items() if state.header}
    sites = [_from_ledger(ledgers[name], attested.get(name, []), limits[name]) for name in sorted(ledgers)]
    asked = asked_since(run, records)
    sites += [
        _from_attestations(attested[name], asked.get(name, [])) for name in sorted(set(attested) - set(ledgers))
    ]
    sites = [_with_population(site, where) for site in sites]
    settings = _Settings.of(run)
    if not sites and settings.private:
        verdict.raise_if_broken()
        raise VerificationError(f"nothing in {path} says what was spent", hint="name a run folder or a ledger")
    statement = make_statement(
        [s.budget for s in sites],
        secure=where.secure,
        private=settings.private,
        hardened=settings.hardened,
        quorum=_quorum_of(run),
        one_run=_is_one_run(sites),
    )
    name = settings.name or path.resolve().stem
    missing = tuple(_not_attested(records, set(ledgers)))
    unknown = tuple(
        f"{site} was asked and never attested: what it spent is not known, and in no figure here."
        for site in never_attested(records)
        if site not in ledgers
    )
    statement = replace(statement, warnings=(*statement.warnings, *unknown))
    return Audit(path, name, tuple(sites), statement, verdict, records, missing)


def _is_one_run(sites: Sequence[SiteAudit]) -> bool:
    """Whether all that was ever charged stands in the rows of one run: nothing carried over, nothing of another threshold."""
    runs = {row.run for site in sites for row in site.rows}
    return len(runs) == 1 and all(
        Losses.of(event for row in site.charged for event in row.events) == Losses.of(site.budget.events)
        for site in sites
    )


def _quorum_of(run: RunFolder | None) -> Quorum | None:
    try:
        return run.plan().quorum if run else None
    except FedcartError:
        return None  # a plan that cannot be read is a finding of the verification


def _with_population(site: SiteAudit, where: Records) -> SiteAudit:
    return replace(site, budget=replace(site.budget, population=where.population(site.budget.site)))


def _not_attested(records: Iterable[RoundRecord], known: Collection[str]) -> Iterable[NotAttested]:
    """Invited sites without an attestation and without a ledger here. One that refused was not charged."""
    for record in records:
        for number, name in unattested([record]):
            if name not in known:
                did = record.sites[name]
                yield NotAttested(name, number, f"{did.status} {did.reason}".strip())


_SIDE_WORDS = {TRAIN_SIDE: "", VALIDATION_SIDE: "validation ", HOLDOUT_SIDE: "hold-out "}


def event_words(events: Collection[PrivacyEvent]) -> str:
    """Events for people: what was read, how often, at which rate, under which noise."""
    if not events:
        return POST_PROCESSING
    return "; ".join(
        f"{_SIDE_WORDS[e.sub_scope]}{e.steps} × σ {e.noise_in_sum:.4g}"
        + (f" in the sum of {e.honest} honest, {e.noise_multiplier:.4g} own," if e.in_quorum else "")
        + (f" at q {e.sampling_rate:g}" if e.sampling_rate < 1 else "")
        for e in events
    )


def left_after(site: SiteAudit, row: LedgerRow) -> float | None:
    """Limit minus spent after a row, at least 0; None without a limit."""
    return None if site.budget.limit is None else max(0.0, site.budget.limit - row.epsilon_so_far)


def as_csv(audit: Audit) -> str:
    """One line per site and reservation, void ones included."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for site in audit.sites:
        budget = site.budget
        for row in site.rows:
            left = left_after(site, row)
            writer.writerow(
                [
                    cell(budget.site), cell(budget.scope), cell(row.run), row.round, row.attempt, row.state,
                    cell(row.time), event_words(row.events), row.epsilon_this_round, row.epsilon_so_far,
                    "" if budget.limit is None else budget.limit, "" if left is None else round(left, 6), budget.delta,
                ]
            )  # fmt: skip
    return out.getvalue()


def as_json(audit: Audit) -> dict[str, Any]:
    """Everything, as plain values."""
    statement = asdict(audit.statement)
    del statement["sites"]
    return {
        "path": str(audit.path),
        "intact": audit.verdict.ok,
        "problems": [str(finding) for finding in audit.verdict.findings],
        "sites": [
            asdict(site.budget)
            | {"epsilon": site.budget.epsilon, "alone": site.budget.alone, "colluders": site.budget.colluders}
            | {"left": site.budget.left, "rounds_left": site.rounds_left}
            | {"source": site.source, "rows": [asdict(r) | {"left": left_after(site, r)} for r in site.rows]}
            for site in audit.sites
        ],
        "not_attested": [asdict(one) for one in audit.not_attested],
        "statement": statement,
    }


def _from_ledger(state: Replay, attested: list[SignedAttestation], limit: float | None) -> SiteAudit:
    """``limit``: of the policy beside the ledger; what the site attested last counts before it."""
    limit = attested[-1].attestation.limit if attested else limit
    return SiteAudit(budget_of_ledger(state, limit), tuple(ledger_rows(state)), "ledger")


def _from_attestations(
    attested: list[SignedAttestation], asked: list[tuple[RoundRecord, tuple[PrivacyEvent, ...]]]
) -> SiteAudit:
    """A site as it has attested; what it was asked since counts as charged."""
    rows = []
    for signed in attested:
        said = signed.attestation
        alone = round_up(epsilon_of(said.events, said.delta))
        so_far = round_up(max(said.epsilon_after, said.recomputed))
        rows.append(
            LedgerRow(said.sequence, "", said.run, said.round, said.attempt, ATTESTED, said.events, alone, so_far)
        )
    budget, run = budget_of_attestation(attested[-1]), attested[-1].attestation.run
    for record, events in asked:
        budget = replace(budget, events=(Losses.of(budget.events) + Losses.of(events)).events)
        alone, so_far = round_up(epsilon_of(events, budget.delta)), budget.epsilon
        last = (rows[-1].sequence, "", run, record.round, record.attempt)
        rows.append(LedgerRow(*last, NOT_ATTESTED, events, alone, so_far))
    return SiteAudit(budget, tuple(rows), "attestations")


@dataclass(frozen=True)
class _Settings:
    """What the settings of a run say about its claim; a ledger alone is of private releases."""

    private: bool = True
    hardened: bool = False
    name: str = ""

    @staticmethod
    def of(run: RunFolder | None) -> _Settings:
        if run is None:
            return _Settings()
        tree = run.settings_as_written()
        privacy = tree.get("privacy", {})
        if not isinstance(privacy, dict):
            raise BadInputError(f"{run.path}: privacy is not a table of its settings", hint="restore the file")
        return _Settings(
            bool(privacy.get("enabled", True)), privacy.get("noise") == "hardened", str(tree.get("name", ""))
        )


def _trains(row: LedgerRow) -> bool:
    return any(event.sub_scope == TRAIN_SIDE for event in row.events)


@lru_cache(maxsize=64)
def _rounds_left(budget: SiteBudget, events: tuple[PrivacyEvent, ...]) -> int:
    assert budget.limit is not None
    return rounds_left(ScopeAccountant(budget.events, budget.order), events, budget.delta, budget.limit)
