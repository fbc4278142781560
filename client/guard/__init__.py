"""What may leave a site, and the durable record of it: policy, ledger, budget, outbox.

Start at ``client.guard.guard``: ``open_guard`` returns the ``Guard`` that everything goes through.
"""

from client.guard.closings import keep_closing
from client.guard.guard import Guard, open_guard
from client.guard.journal import FileJournal
from client.guard.outbox import outbox_digest
from client.guard.policy import UNLIMITED, Proposal, SitePolicy
from client.guard.reservation import ChargedError, Grant, ReservationKey
from client.guard.status import GuardStatus

__all__ = [
    "UNLIMITED",
    "ChargedError",
    "FileJournal",
    "Grant",
    "Guard",
    "GuardStatus",
    "Proposal",
    "ReservationKey",
    "SitePolicy",
    "keep_closing",
    "open_guard",
    "outbox_digest",
]
