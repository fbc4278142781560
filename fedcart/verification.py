"""``verify``: is the record of a run, a site or a collection of ledgers complete and unchanged?"""

from __future__ import annotations

from pathlib import Path

from common.audit.verdict import VerifyReport
from common.audit.verify import verify_path
from fedcart.places import Place, path_of


def verify(path: Place, *, every_round: bool = False, roster: str | Path | None = None) -> VerifyReport:
    """Verify a run, a run folder, a kit, a ledger or a folder of ledgers, offline.

    The report lists every finding; ``report.ok`` is whether there is none, ``report.raise_if_broken()`` raises.
    ``roster``: the sites' keys from a source you trust, in place of those beside the record.
    Raises: BadInputError if there is nothing to verify.

    Example:
        >>> verify("runs/latest").raise_if_broken()  # doctest: +SKIP
    """
    from common.trust import Roster

    pinned = None if roster is None else Roster.load(Path(roster))
    return verify_path(path_of(path), every_round=every_round, roster=pinned)
