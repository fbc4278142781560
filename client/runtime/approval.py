"""The operator's yes to a run: with ``approve = "ask"`` no round starts before a person has seen its settings.

A run is known by the digest of its plan, so a coordinator that changes a setting asks anew, and a yes is said to a
digest: under one name two plans may wait. What was said is signed with the site's key, so that no file which was
delivered says it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from common.atomic import write_atomic
from common.deployment import SiteKit
from common.errors import BadInputError, FedcartError, RefusedError, VerificationError
from common.privacy import delta_remark
from common.run import RunPlan
from common.trust import Identity, verify_signature

WAITING = "waiting"
APPROVED = "approved"
REJECTED = "rejected"
MOST_OF_A_NAME, MOST_WAITING = 50, 200  # newest kept, of one run name and of all
LEAST_PREFIX = 16  # hex digits: 64 bits, which nobody finds a second plan for
STATEMENT = b"fedcart/approval/1\0"
ASK = "ask"


class ApprovalPendingError(RefusedError):
    """The operator has not said yes to this run."""

    code = "approval"


class RunRejectedError(RefusedError):
    """The operator has said no to this run."""

    code = "rejected"


@dataclass(frozen=True)
class Request:
    """One run that was asked for. ``plan`` is the coordinator's signed text, ``digest`` its digest (hex).

    ``signature`` (hex): the site's own, over digest and status, once its operator has said something.
    """

    run: str
    digest: str
    status: str
    plan: str
    signature: str = ""

    def read(self) -> RunPlan:
        """The plan behind the digest. Raises: BadInputError if the file says one thing and means another."""
        try:
            plan = RunPlan.from_json(self.plan)
            if (plan.digest().hex(), plan.run) == (self.digest, self.run):
                return plan
        except FedcartError:
            pass
        raise BadInputError(
            f"the request {self.digest[:LEAST_PREFIX]!a} is damaged: it shows another plan",
            hint="remove its file from state/approvals: the coordinator will ask again",
        )


def require_approval(kit: SiteKit, mode: str, run: str, digest: str, plan: str) -> None:
    """Return if the operator approved this plan, or approves all; else keep the request for ``site approve``.

    Raises: ApprovalPendingError; RunRejectedError if the operator said no.
    """
    if mode != ASK:
        return
    if was_asked(kit, digest):
        said = _read(kit, _folder(kit) / f"{digest}.json").status
    else:
        said = WAITING
        _write(kit, Request(run, digest, WAITING, plan))
        _forget_old(kit)
    hint = f"fedcart site approve {kit.path} {digest[:LEAST_PREFIX]}"
    if said == REJECTED:
        raise RunRejectedError(f"run {run} is rejected", hint=f"to say yes after all: {hint}")
    if said != APPROVED:
        raise ApprovalPendingError(f"run {run} is {WAITING}", hint=hint)


def was_asked(kit: SiteKit, digest: str) -> bool:
    """Whether a plan is known here: it waits, or the operator has answered."""
    return (_folder(kit) / f"{digest}.json").exists()


def requests(kit: SiteKit) -> list[Request]:
    """All runs that were asked for, oldest first; what no operator signed counts as waiting. Raises: BadInputError."""
    found = sorted(_folder(kit).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return [_read(kit, path) for path in found]


def decide(kit: SiteKit, which: str, *, approve: bool) -> Request:
    """Record the operator's word on one plan, return it.

    ``which``: the digest, as much of it as `site approve` shows, or the run's name if only one plan has it.
    Raises: BadInputError if it is not the name of exactly one plan; ConfigError for a yes to a delta above 1 / n.
    """
    request = _named(kit, which)
    plan = request.read()
    if approve and plan.config.privacy.enabled:  # a promise that says nothing is none to say yes to
        delta_remark(plan.config.privacy.delta, dict(plan.populations))
    said = replace(request, status=APPROVED if approve else REJECTED)
    identity = Identity.load(kit.read().site.name, kit.identity_key)
    said = replace(said, signature=identity.sign(_statement(said)).hex())
    _write(kit, said)
    return said


def _read(kit: SiteKit, path: Path) -> Request:
    try:
        request = Request(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{path} is damaged", hint="remove it: the coordinator will ask again") from error
    if path.name != f"{request.digest}.json":
        raise BadInputError(f"{path} is of another plan", hint="remove it: the coordinator will ask again")
    return replace(request, status=_said(kit, request))


def _named(kit: SiteKit, which: str) -> Request:
    known = requests(kit)
    long_enough = len(which) >= LEAST_PREFIX
    found = [r for r in known if r.run == which or (long_enough and r.digest.startswith(which.lower()))]
    if len(found) == 1:
        return found[0]
    shown = f"fedcart site approve {kit.path} shows what is asked, and the digest of each plan"
    if found:
        raise BadInputError(
            f"{len(found)} plans were asked for under {which!a}: name one by its digest", hint=shown
        )
    waiting = ", ".join(f"{r.run} ({r.digest[:LEAST_PREFIX]})" for r in known if r.status == WAITING) or "none"
    raise BadInputError(f"no request {which!a}", hint=f"waiting for an answer: {waiting}; {shown}")


def _statement(request: Request) -> bytes:
    return STATEMENT + f"{request.digest}/{request.status}".encode()


def _said(kit: SiteKit, request: Request) -> str:
    """The operator's word, if this site's key signed it."""
    if request.status not in (APPROVED, REJECTED) or not request.signature:
        return WAITING
    identity = Identity.load(kit.read().site.name, kit.identity_key)
    try:
        verify_signature(identity.public_key, _statement(request), bytes.fromhex(request.signature))
    except (VerificationError, ValueError):
        return WAITING
    return request.status


def _forget_old(kit: SiteKit) -> None:
    """Keep the newest that wait, of every run name and of all: what an operator has answered is kept."""
    for request in _too_many([r for r in requests(kit) if r.status == WAITING]):
        (_folder(kit) / f"{request.digest}.json").unlink(missing_ok=True)


def _too_many(waiting: list[Request]) -> Iterator[Request]:
    by_name = sorted(waiting, key=lambda request: request.run)  # stable: oldest first within a name
    gone = {r for _, same in groupby(by_name, key=lambda r: r.run) for r in list(same)[:-MOST_OF_A_NAME]}
    kept = [request for request in waiting if request not in gone]
    yield from (*gone, *kept[:-MOST_WAITING])


def _folder(kit: SiteKit) -> Path:
    return kit.state / "approvals"


def _write(kit: SiteKit, request: Request) -> None:
    _folder(kit).mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(
        _folder(kit) / f"{request.digest}.json", json.dumps(asdict(request), allow_nan=False).encode(), mode=0o600
    )
