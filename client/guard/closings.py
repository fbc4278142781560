"""What a site was told at the close of its runs: kept beside its ledger, and durable before the site signs it too."""

from __future__ import annotations

from pathlib import Path

from common.run import CLOSINGS_FILE, Closing, line_of, worth_noting


def keep_closing(state: Path, closing: Closing, signature: bytes) -> None:
    """Append a closing that the coordinator has signed to the state folder's file, once. Raises: WorkFailedError (disk)."""
    from client.guard.appendfile import hold

    with hold(state / CLOSINGS_FILE) as file:
        if worth_noting(state, closing):
            file.append(line_of(closing, signature), durable=True)
