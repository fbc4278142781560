"""What there is to audit at a path, and what lies beside it: ledgers, the roster that pins keys, limits, aggregation.

    a run folder           metrics, ledgers, roster, evidence            fedcart audit show runs/latest
    a site's kit           state/ledger.jsonl, roster.json, policy.toml  fedcart audit show KIT
    a ledger               the same, where it lies in a kit or a run     fedcart audit show KIT/state/ledger.jsonl
    a folder of ledgers    SITE.jsonl of several sites                   fedcart audit show collected/
    a coordinator's kit    its newest run

An anchor (SITE.head.json) lies beside its ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.config import read_toml
from common.errors import BadInputError, FedcartError
from common.privacy.entries import replay_lines, split_lines
from common.run.files import LEDGERS, ROSTER_FILE, RunFolder
from common.run.records import RoundRecord
from common.trust.identity import Roster

OWN_LEDGER, POLICY_FILE, STATE = "ledger.jsonl", "policy.toml", "state"
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
        places = {self.run.path} if self.run is not None else {_above(file) for file in self.ledgers}
        there = [place / ROSTER_FILE for place in sorted(places) if (place / ROSTER_FILE).is_file()]
        return Roster.load(there[0]) if len(there) == len(places) == 1 else None

    def limit(self, ledger: Path) -> float | None:
        """The epsilon limit of the policy in force where a ledger lies, None where no policy lies there."""
        limit = _policy(ledger).get("epsilon_max")
        return float(limit) if isinstance(limit, int | float) else None

    @property
    def secure(self) -> bool | None:
        """Whether all releases were summed under masks; None where nothing here says so.

        A run's rounds say it themselves. A ledger does not; the policy of its site does if it forbids anything else.
        """
        run = self.run or next((RunFolder(_above(f)) for f in self.ledgers if RunFolder.is_one(_above(f))), None)
        if run is not None:
            modes = {record.aggregation for record in _rounds(run)}
            return modes == {"secure"} if modes else None
        rules = [_policy(file) for file in self.ledgers]
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
    simulated = RunFolder(path.resolve().parents[1]).ledger(path.resolve().name)
    own = [file for file in (path / STATE / OWN_LEDGER, path / OWN_LEDGER) if file.is_file()]
    if not own and (path / "site.toml").is_file() and simulated.is_file():
        own = [simulated]
    if own:
        return Records(path, None, (own[0],))
    if runs := RunFolder.all_in(path / "runs"):
        return find_records(runs[-1].path)
    files = tuple(file for file in sorted(path.glob("*.jsonl")) if _is_ledger(file))
    if not files:
        what = "its site has not taken part yet" if (path / "site.toml").is_file() else "there is no ledger in it"
        raise BadInputError(f"nothing to audit in {path}: {what}", hint=_HINT)
    return Records(path, None, files)


def _above(ledger: Path) -> Path:
    """Where roster and policy of a ledger lie: the folder above ``state`` and ``ledgers``, else its own."""
    folder = ledger.resolve().parent
    return folder.parent if folder.name in (STATE, LEDGERS) else folder


def _policy(ledger: Path) -> dict[str, Any]:
    """The rules of the site of a ledger: in its kit, or in the kit of a simulated site; empty if none lie there."""
    above = _above(ledger)
    for path in (above / POLICY_FILE, above / "sites" / ledger.stem / POLICY_FILE):
        if path.is_file():
            return read_toml(path)
    return {}


def _rounds(run: RunFolder) -> list[RoundRecord]:
    try:
        return run.metrics()
    except FedcartError:
        return []  # named by the verification


def _is_ledger(path: Path) -> bool:
    """Whether the first line is a ledger's; a damaged file that is called like one is none of the other logs."""
    try:
        lines, _ = split_lines(path.read_bytes())
        next(iter(replay_lines(lines[:1])))
    except Exception:  # a folder of ledgers may hold a broken one: it must be named by the check, not skipped
        return path.name not in ("journal.jsonl", "diagnostics.jsonl", "feedback.jsonl")
    return True
