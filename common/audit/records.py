"""What there is to audit at a path, and what lies beside it: ledgers, the roster that pins keys, limits, aggregation.

    a run folder           metrics, ledgers, roster, evidence            fedcart audit show runs/latest
    a site's kit           state/ledger.jsonl, roster.json, policy.toml  fedcart audit show KIT
    a ledger               the same, where it lies in a kit or a run     fedcart audit show KIT/state/ledger.jsonl
    a folder of ledgers    SITE.jsonl of several sites                   fedcart audit show collected/
    a coordinator's kit    its newest run

An anchor (SITE.head.json) lies beside its ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.deployment import LEDGER_FILE, USER_LEDGER, Kits, SiteKit, user_ledgers
from common.errors import BadInputError, FedcartError
from common.privacy import PrivacyEvent, Replay, SignedAttestation, replay_lines, split_lines
from common.run import LEDGERS, RoundRecord, RunFolder, read_toml, unattested
from common.trust import ROSTER_FILE, Roster

_HINT = "name a run folder, a ledger, a folder of ledgers, or a kit"


@dataclass(frozen=True)
class Records:
    """Everything at a path that an audit reads. ``run`` is None where only ledgers are there."""

    path: Path
    run: RunFolder | None
    ledgers: tuple[Path, ...]

    @cached_property
    def roster(self) -> Roster | None:
        """The roster beside the ledgers, None if there is none. Raises: BadInputError if it is damaged."""
        places = {self.run.path} if self.run is not None else {self._beside(file) for file in self.ledgers}
        there = [place / ROSTER_FILE for place in sorted(places) if (place / ROSTER_FILE).is_file()]
        return Roster.load(there[0]) if len(there) == len(places) == 1 else None

    @cached_property
    def replays(self) -> dict[Path, Replay]:
        """Every ledger that can be replayed; what cannot is in the report of the verification."""
        replayed = {}
        for file in self.ledgers:
            try:
                states = [state for _, _, state in replay_lines(split_lines(file.read_bytes())[0])]
            except (FedcartError, OSError):
                continue
            if states:
                replayed[file] = states[-1]
        return replayed

    def limit(self, ledger: Path) -> float | None:
        """The epsilon limit of the policy in force where a ledger lies, None where no policy lies there."""
        limit = self._rules(ledger).get("epsilon_max")
        return float(limit) if isinstance(limit, int | float) else None

    def _beside(self, ledger: Path) -> Path:
        """Where roster and policy are: the kit that names a ledger outside, else where the ledger lies."""
        return self.path if SiteKit(self.path).settings.is_file() else _above(ledger)

    def _rules(self, ledger: Path) -> dict[str, Any]:
        policy = SiteKit(self._beside(ledger)).policy
        return read_toml(policy) if policy.is_file() else _policy(ledger)

    def population(self, site: str) -> int | None:
        """Declared consumers of a site, from the plan of the run or from the kit that the ledger lies in."""
        try:
            if self.run is not None:
                return dict(self.run.plan().populations).get(site)
            kits = {self._beside(file) for file in self.ledgers}
            facts = [read_toml(SiteKit(kit).settings)["site"] for kit in kits if SiteKit(kit).settings.is_file()]
            return next((int(one["population"]) for one in facts if one.get("name") == site), None)
        except (FedcartError, KeyError, TypeError, ValueError, AttributeError):
            return None  # what is broken here is named by the verification

    @property
    def secure(self) -> bool | None:
        """Whether all releases were summed under masks; None where nothing here says so.

        A run's rounds say it themselves. A ledger does not; the policy of its site does if it forbids anything else.
        """
        run = self.run or next((RunFolder(_above(f)) for f in self.ledgers if RunFolder.is_one(_above(f))), None)
        if run is not None:
            modes = {record.aggregation for record in rounds_of(run)}
            return modes == {"secure"} if modes else None
        rules = [self._rules(file) for file in self.ledgers]
        forbidden = [rule and rule.get("plain_aggregation", False) is False for rule in rules]
        return True if all(forbidden) else None


def find_records(path: Path) -> Records:
    """What there is to audit at a path. Raises: BadInputError if there is nothing."""
    if not path.exists():
        raise BadInputError(f"no such file or folder: {path}", hint=_HINT)
    if path.is_file():
        return Records(path, None, (path,))
    if RunFolder.is_one(path):
        run = RunFolder(path)
        return Records(path, run, tuple(sorted(run.ledgers.glob("*.jsonl"))))
    above = path.resolve().parent.parent  # of a simulated site's kit: its run
    simulated = RunFolder(above).ledger(path.resolve().name)
    if (shared := _named_ledger(path)) is not None:
        return Records(path, None, (shared,))
    own = [file for file in (SiteKit(path).ledger, path / LEDGER_FILE) if file.is_file()]
    if not own and SiteKit(path).settings.is_file() and simulated.is_file():
        own = [simulated]
    if own:
        return Records(path, None, (own[0],))
    if runs := RunFolder.all_in(path / "runs"):
        return find_records(runs[-1].path)
    files = tuple(file for file in sorted(path.glob("*.jsonl")) if _is_ledger(file))
    if not files:
        what = (
            "its site has not taken part yet" if SiteKit(path).settings.is_file() else "there is no ledger in it"
        )
        raise BadInputError(f"nothing to audit in {path}: {what}", hint=_HINT)
    return Records(path, None, files)


def _named_ledger(kit: Path) -> Path | None:
    """The ledger outside a kit that its site.toml names, if it does and is there. ``user``: see the site's own code."""
    try:
        facts = read_toml(SiteKit(kit).settings)["site"]
        named, scope = str(facts.get("ledger", "")), str(facts["scope"])
    except (FedcartError, KeyError, TypeError, AttributeError):
        return None
    if not named:
        return None
    folder = user_ledgers() / scope if named == USER_LEDGER else (kit / named).resolve()
    return folder / LEDGER_FILE if (folder / LEDGER_FILE).is_file() else None


def _above(ledger: Path) -> Path:
    """Where roster and policy of a ledger lie: the folder above ``state`` and ``ledgers``, else its own."""
    folder = ledger.resolve().parent
    return folder.parent if folder.name in ("state", LEDGERS) else folder


def _policy(ledger: Path) -> dict[str, Any]:
    """The rules of the site of a ledger: in its kit, or in the kit of a simulated site; empty if none lie there."""
    above = _above(ledger)
    for path in (SiteKit(above).policy, Kits(above).site(ledger.stem).policy):
        if path.is_file():
            return read_toml(path)
    return {}


def attestations_in(rounds: Iterable[RoundRecord]) -> dict[str, list[SignedAttestation]]:
    """What each site attested in the rounds of a run, in order; what cannot be read is named by the verification."""
    attestations: dict[str, list[SignedAttestation]] = {}
    for record in rounds:
        for site, plain in record.attestations.items():
            try:
                attestations.setdefault(site, []).append(SignedAttestation.from_json(plain))
            except (FedcartError, TypeError):
                continue
    return attestations


def asked_since(
    run: RunFolder | None, records: Sequence[RoundRecord]
) -> dict[str, list[tuple[RoundRecord, tuple[PrivacyEvent, ...]]]]:
    """What each site was asked after its last attestation, and did not attest: nobody knows better, so it counts as charged.

    Nothing where the run has no readable plan, which the verification names.
    """
    asked: dict[str, list[tuple[RoundRecord, tuple[PrivacyEvent, ...]]]] = {}
    try:
        plan = run.plan() if run is not None and unattested(records) else None
    except FedcartError:
        plan = None
    if plan is None:
        return asked
    for record in records:
        for site in record.attestations:
            asked.pop(site, None)
        for _, site in unattested([record]):
            asked.setdefault(site, []).append((record, plan.events(record.kind)))
    return asked


def rounds_of(run: RunFolder | None) -> list[RoundRecord]:
    """The rounds of a run; none where there is no run, or where it is damaged, which the verification names."""
    if run is None:
        return []
    try:
        return run.metrics()
    except FedcartError:
        return []


OTHER_LOGS = {
    "journal.jsonl",
    "diagnostics.jsonl",
    "closings.jsonl",
    "feedback.jsonl",
    "verdicts.jsonl",
    "alarms.jsonl",
}


def _is_ledger(path: Path) -> bool:
    """Whether the first line is a ledger's; a damaged file that is called like one is none of the other logs."""
    try:
        lines, _ = split_lines(path.read_bytes())
        next(iter(replay_lines(lines[:1])))
    except Exception:  # a folder of ledgers may hold a broken one: it must be named by the check, not skipped
        return path.name not in OTHER_LOGS
    return True
