"""The operator's yes to a run: with ``approve = "ask"`` no round starts before a person has seen its settings.

A run is known by the digest of its plan, so a coordinator that changes a setting asks anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.atomic import write_atomic
from common.deployment import SiteKit
from common.errors import BadInputError, RefusedError

WAITING = "waiting"
APPROVED = "approved"
REJECTED = "rejected"
MOST_WAITING = 50
ASK = "ask"


class ApprovalPendingError(RefusedError):
    """The operator has not said yes to this run."""

    code = "approval"


class RunRejectedError(RefusedError):
    """The operator has said no to this run."""

    code = "rejected"


@dataclass(frozen=True)
class Request:
    """One run that was asked for. ``plan`` is the coordinator's signed text, ``digest`` its SHA-256 (hex)."""

    run: str
    digest: str
    status: str
    plan: str


def require_approval(kit: SiteKit, mode: str, run: str, digest: str, plan: str) -> None:
    """Return if the operator approved this plan, or approves all; else keep the request for ``site approve``.

    **Raises**: ApprovalPendingError; RunRejectedError if the operator said no.
    """
    if mode != ASK:
        return
    known = {request.digest: request for request in requests(kit)}
    found = known.get(digest)
    if found is None and sum(r.status == WAITING for r in known.values()) < MOST_WAITING:
        _write(kit, Request(run, digest, WAITING, plan))
    if found is not None and found.status == REJECTED:
        raise RunRejectedError(
            f"run {run} is rejected", hint=f"to say yes after all: fedcart site approve {kit.path}"
        )
    if found is None or found.status != APPROVED:
        raise ApprovalPendingError(f"run {run} is {WAITING}", hint=f"fedcart site approve {kit.path}")


def requests(kit: SiteKit) -> list[Request]:
    """All runs that were asked for, oldest first. **Raises**: BadInputError."""
    found = []
    for path in sorted(_folder(kit).glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        try:
            found.append(Request(**json.loads(path.read_text("utf-8"))))
        except (ValueError, TypeError) as error:
            raise BadInputError(f"{path} is damaged", hint="remove it: the coordinator will ask again") from error
    return found


def decide(kit: SiteKit, run: str, *, approve: bool) -> Request:
    """Record the operator's word on the newest request of a run, return it. **Raises**: BadInputError."""
    mine = [request for request in requests(kit) if request.run == run]
    if not mine:
        waiting = ", ".join(r.run for r in requests(kit) if r.status == WAITING) or "none"
        raise BadInputError(f"no request for run {run!r}", hint=f"waiting for an answer: {waiting}")
    waiting_first = [request for request in mine if request.status == WAITING] or mine
    said = Request(run, waiting_first[-1].digest, APPROVED if approve else REJECTED, waiting_first[-1].plan)
    _write(kit, said)
    return said


def _folder(kit: SiteKit) -> Path:
    return kit.state / "approvals"


def _write(kit: SiteKit, request: Request) -> None:
    _folder(kit).mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(
        _folder(kit) / f"{request.digest}.json", json.dumps(asdict(request), allow_nan=False).encode(), mode=0o600
    )
