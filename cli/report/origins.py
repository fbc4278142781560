"""Where each figure of an audit comes from: the entry of a ledger, the record of a round, or the plan of the run."""

from __future__ import annotations

from dataclasses import dataclass

from cli.report.audit_view import ATTESTED, Audit, SiteAudit
from common.audit.papers import LEDGER, RECORD, Item, Reference, RunFacts
from common.audit.records import Records, find_records
from common.audit.statement import LedgerRow
from common.privacy import SignedAttestation
from common.run import METRICS_FILE, RoundRecord, sums_in
from common.tasks import metric_named


@dataclass(frozen=True)
class Origins:
    """Finds references in one record. ``name``: of the run by its plan, or of the ledger."""

    name: str
    records: Records
    rounds: tuple[RoundRecord, ...]

    @staticmethod
    def of(audit: Audit) -> Origins:
        """Of an intact record."""
        records = find_records(audit.path)
        name = audit.name if records.run is None else records.run.plan().run  # run.toml is signed by nobody
        return Origins(name, records, audit.records)

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site that is named."""
        owners = [state.header.site for state in self.records.replays.values() if state.header is not None]
        return tuple({*owners, *(site for record in self.rounds for site in record.sites)})

    def has_attested(self, site: str) -> bool:
        """Whether some round holds a word of this site."""
        return any(site in record.attestations for record in self.rounds)

    def of_site(self, site: SiteAudit) -> tuple[Reference, ...]:
        """Where a site's totals are from: the last entry of its ledger, and the last round in which it attested or was asked."""
        name = site.budget.site
        ends = tuple(
            self._entry(file.name, state.sequence - 1, state.head, name)
            for file, state in self.records.replays.items()
            if state.header is not None and state.header.site == name
        )
        attested = [record for record in self.rounds if name in record.attestations]
        later = [
            self._record(record)
            for record in self._asked(site)
            if not attested or record.round > attested[-1].round
        ]
        return (*ends, *(self._attested(attested[-1], name) if attested else ()), *later)  # fmt: skip

    def of_row(self, site: SiteAudit, row: LedgerRow) -> tuple[Reference, ...]:
        """Where one reservation is from."""
        name = site.budget.site
        for file, state in self.records.replays.items():
            if state.header is not None and state.header.site == name and row.sequence in state.reservations:
                return (self._entry(file.name, row.sequence, state.reservations[row.sequence].hash, name),)
        there = [r for r in self.rounds if (r.round, r.attempt) == (row.round, row.attempt)]
        if row.state == ATTESTED:
            there = [r for r in there if name in r.attestations]
            return self._attested(there[0], name) if there else ()
        return tuple(self._record(record) for record in there)

    def at(self, sequence: int, head: str) -> tuple[Reference, ...]:
        """Where the entry of this number and hash is, in a ledger here or as a site has attested it."""
        for file, state in self.records.replays.items():
            if state.header is not None and state.hash_at(sequence) == head:
                return (self._entry(file.name, sequence, head, state.header.site),)
        for record in self.rounds:
            for site, plain in record.attestations.items():
                said = SignedAttestation.from_json(plain).attestation
                if (said.sequence, said.head) == (sequence, head):
                    return self._attested(record, site)
        return ()

    def run_facts(self) -> RunFacts | None:
        """What plan and records say of the run; None where only ledgers are given."""
        run = self.records.run
        if run is None:
            return None
        from common.audit.papers.planned import planned

        plan = run.plan()
        return RunFacts(plan.run, (*planned(plan, self.name), *self._done()))

    def _done(self) -> tuple[Item, ...]:
        if not self.rounds:
            return ()
        last, (rounds, sums) = self.rounds[-1], sums_in(self.rounds)
        came = (self._record(last),)
        done = Item("Done", f"{rounds} rounds, {sums} of them gave a sum", came, "public")
        shown = (f"{metric_named(name).words}: {value:.4g}" for name, value in sorted(last.released.items()))
        return (
            done,
            *(
                Item(
                    "Quality, as the sites reported it, noised"
                    if last.private
                    else "Quality, as the sites reported it",
                    words,
                    came,
                    "released",
                )
                for words in shown
            ),
        )

    def _asked(self, site: SiteAudit) -> list[RoundRecord]:
        """Rounds that count at a site although it has not attested them."""
        numbers = {
            row.round for row in site.rows if row.state not in (ATTESTED, "void") and site.source != "ledger"
        }
        return [record for record in self.rounds if record.round in numbers]

    def _attested(self, record: RoundRecord, site: str) -> tuple[Reference, ...]:
        said = SignedAttestation.from_json(record.attestations[site]).attestation
        return (self._record(record), self._entry(METRICS_FILE, said.sequence, said.head, site))

    def _entry(self, file: str, sequence: int, digest: str, site: str) -> Reference:
        return Reference(LEDGER, self.name, file, sequence, digest, site)

    def _record(self, record: RoundRecord) -> Reference:
        return Reference(RECORD, self.name, METRICS_FILE, record.round, record.digest)
