"""``verify``: is the record of a run, a site or a collection of ledgers complete and unchanged?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import common.audit.verify as audit
from common.audit.verdict import VerifyReport
from fedcart.places import Place, path_of

if TYPE_CHECKING:
    from common.trust import Roster


def verify(path: Place, *, every_round: bool = False, roster: Place | None = None) -> VerifyReport:
    """Verify a run, a run folder, a kit, a ledger or a folder of ledgers, offline.

    The report lists every finding; ``report.ok`` is whether there is none, ``report.raise_if_broken()`` raises.
    ``roster``: the sites' keys from a source you trust, in place of those beside the record.
    Raises: BadInputError if there is nothing to verify.

    Example:
        >>> verify("runs/latest").raise_if_broken()  # doctest: +SKIP
    """
    from common.trust import Roster

    pinned = None if roster is None else Roster.load(path_of(roster))
    return verify_path(path, every_round=every_round, roster=pinned)


def verify_path(
    path: Place, *, every_round: bool = False, roster: Roster | None = None, ledgers: Sequence[Place] = ()
) -> VerifyReport:
    """As ``verify``, with a roster in hand, and the sites' own ledgers beside a run's.

    Raises: BadInputError if there is nothing to verify.
    """
    own = [path_of(ledger) for ledger in ledgers]
    return audit.verify_path(path_of(path), every_round=every_round, roster=roster, ledgers=own)
