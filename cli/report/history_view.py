"""Several runs and ledgers as one account, gathered for tables and JSON: what each run cost, and what all of it adds up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.report.audit_view import Audit, SiteAudit, as_csv, read_audit
from common.audit.history import Account, History, accounts_in, make_history
from common.audit.records import find_records
from common.audit.statement import LedgerRow
from common.errors import VerificationError
from common.privacy import epsilon_of, round_up


@dataclass(frozen=True)
class RunCost:
    """What one run cost. ``alone``: as if nothing else had been; ``so_far``: after it; both at the worst site."""

    run: str
    sites: int
    charged: int
    alone: float
    so_far: float


@dataclass(frozen=True)
class LongAudit:
    """All that was given, verified one by one, and the account over all of it."""

    audits: tuple[Audit, ...]
    runs: tuple[RunCost, ...]
    history: History

    @property
    def ok(self) -> bool:
        """Whether every record is intact."""
        return all(audit.verdict.ok for audit in self.audits)

    @property
    def problems(self) -> list[str]:
        """What is not, with the path that it is in."""
        return [f"{audit.path}: {finding}" for audit in self.audits for finding in audit.verdict.findings]

    @property
    def warnings(self) -> list[str]:
        """Of all parts, each once, and of the whole."""
        own = [sentence for audit in self.audits for sentence in audit.statement.warnings]
        return list(dict.fromkeys([*own, *self.history.warnings]))


def read_long_audit(paths: Sequence[Path]) -> LongAudit:
    """Verify and read everything at these paths. Raises: BadInputError, VerificationError."""
    audits = tuple(_read(path) for path in paths)
    accounts = [account for path in paths for account in accounts_in(find_records(path))]
    return LongAudit(audits, tuple(_runs(audits)), make_history(accounts))


def _read(path: Path) -> Audit:
    try:
        return read_audit(path)
    except VerificationError as error:
        raise VerificationError(f"{path}: {error.message}", hint=error.hint) from None


def _runs(audits: Sequence[Audit]) -> list[RunCost]:
    """Every run once, in the order in which they are met; what a ledger says of a round counts before an attestation."""
    rows: dict[str, dict[tuple[str, int, int], tuple[SiteAudit, LedgerRow]]] = {}
    for audit in audits:
        for site in audit.sites:
            for row in site.rows:
                known = rows.setdefault(row.run, {})
                key = (site.budget.site, row.round, row.attempt)
                if key not in known or site.source == "ledger":
                    known[key] = (site, row)
    return [_cost(run, list(found.values())) for run, found in rows.items()]


def _cost(run: str, found: Sequence[tuple[SiteAudit, LedgerRow]]) -> RunCost:
    charged = [(site.budget, row) for site, row in found if row.state != "void"]
    names = sorted({budget.site for budget, _ in charged})
    alone = []
    for name in names:
        events = [event for budget, row in charged if budget.site == name for event in row.events]
        delta = next(budget.delta for budget, _ in charged if budget.site == name)
        alone.append(round_up(epsilon_of(events, delta)))
    so_far = max((row.epsilon_so_far for _, row in charged), default=0.0)
    return RunCost(run, len(names), len(charged), max(alone, default=0.0), so_far)


def long_csv(found: LongAudit) -> str:
    """One line per site and reservation, each once."""
    lines = [line for audit in found.audits for line in as_csv(audit).splitlines()]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def long_json(found: LongAudit) -> dict[str, Any]:
    """Everything, as plain values."""
    history = found.history
    return {
        "paths": [str(audit.path) for audit in found.audits],
        "intact": found.ok,
        "problems": found.problems,
        "warnings": found.warnings,
        "runs": [asdict(run) for run in found.runs],
        "epsilon": history.epsilon,
        "scopes": [
            {"scope": total.scope, "sites": total.sites, "epsilon": total.epsilon, "delta": total.delta}
            | {"limit": total.limit, "left": total.left}
            | {"accounts": [_plain_account(account) for account in total.accounts]}
            for total in history.scopes
        ],
        "returning": [asdict(one) for one in history.returning],
    }


def _plain_account(account: Account) -> dict[str, Any]:
    return {
        "sites": sorted(account.sites),
        "key": account.key,
        "epsilon": account.epsilon,
        "entries": account.sequence + 1,
        "order": account.order,
        "adaptive": account.adaptive,
        "events": [asdict(event) for event in account.events],
    }
