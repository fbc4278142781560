"""What is wrong at a coordinator just now, quick enough to be asked every minute."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from common.deployment import CoordinatorKit
from common.deployment.trouble import Trouble
from common.errors import FedcartError
from common.privacy import show_exact
from common.run import ENDED, HEADS_FILE, INTERRUPTED, RUNNING, RunFolder, run_is_held, run_is_submitted
from server.runtime.status import DAMAGED, ServerStatus

SOON_DAYS = 30.0
LITTLE_LEFT = 0.1  # of the limit
FREE_BYTES = 2_000_000_000


def server_troubles(kit: CoordinatorKit, status: ServerStatus | None) -> list[Trouble]:
    """All that is wrong; ``status`` None: it could not be read, and the caller says why. Never raises for a bad kit."""
    found = [*_files(kit), *_certificates(kit)]
    if status is None:
        return found
    if not status.up:
        found.append(Trouble("server", f"{status.address} is down", f"fedcart server start {kit.path}"))
    else:
        away = "ask its operator: fedcart site status KIT --check"
        found += [Trouble("site", f"{site} is not connected", away) for site, on in status.sites.items() if not on]
    return [*found, *_budgets(kit), *_runs(kit, status)]


def _files(kit: CoordinatorKit) -> Iterator[Trouble]:
    from common.trust import is_private

    for path in (*kit.secrets, kit.roster, kit.authority, kit.certificate):
        if not path.is_file():
            yield Trouble("files", f"{path.name} is missing", "take it from your backup of the kit")
    loose = [path.name for path in kit.secrets if path.is_file() and not is_private(path)]
    if loose:
        yield Trouble("permissions", f"readable by others: {', '.join(loose)}", f"chmod 600 {' '.join(loose)}")
    free = shutil.disk_usage(kit.path).free
    if free < FREE_BYTES:
        yield Trouble("disk", f"{free / 1e9:.1f} GB free", "free some space: a full disk stops the run")


def _certificates(kit: CoordinatorKit) -> Iterator[Trouble]:
    from common.trust.certificates import certificate_facts

    now = datetime.now(UTC)
    for name, path in (("certificate", kit.certificate), ("authority", kit.authority)):
        try:
            facts = certificate_facts(path.read_bytes())
        except (FedcartError, ValueError, OSError):
            if path.is_file():
                yield Trouble(name, f"{path.name} is no certificate", "take it from your backup of the kit")
            continue
        left, until = facts.days_left(now), facts.not_after.date()
        todo = "fedcart provision again, with the same folder of kits, renews it"
        if now < facts.not_before:
            yield Trouble(name, f"not valid before {facts.not_before.date()}", "set this machine's clock")
        elif left < SOON_DAYS:
            yield Trouble(name, f"{'expired' if left <= 0 else 'expires'} on {until}", todo)


def _budgets(kit: CoordinatorKit) -> Iterator[Trouble]:
    from server.admission import HeadsBook

    book = HeadsBook.open(kit.state / HEADS_FILE)
    for site, spent in sorted(book.epsilon().items()):
        latest = book.heads.latest(site)
        limit = latest.attestation.limit if latest is not None else None
        if limit is not None and limit - spent < LITTLE_LEFT * limit:
            found = f"{site} has spent {spent} of {show_exact(limit)} (public)"
            yield Trouble("budget", found, "fedcart server plan shows which runs still fit")


def _runs(kit: CoordinatorKit, status: ServerStatus) -> Iterator[Trouble]:
    for one in status.runs:
        if one.status == DAMAGED:
            yield Trouble(
                "run", f"{one.name} is damaged", f"fedcart audit verify {kit.runs / one.name} names the file"
            )
    sound = [one for one in status.runs if one.status != DAMAGED]
    if not sound:
        return
    newest = sound[-1]
    folder = RunFolder(kit.runs / newest.name)
    alone = newest.status == RUNNING and not (run_is_held(folder) or run_is_submitted(folder))
    if newest.status == INTERRUPTED or alone:
        found = f"{newest.name} was interrupted after round {newest.rounds} of {newest.planned}"
        yield Trouble("run", found, f"fedcart server resume {kit.path} {newest.name}")
    yield from _answers(folder.path, folder)


def _answers(path: Path, folder: RunFolder) -> Iterator[Trouble]:
    """Sites that take no part any more in the newest run, or were lost in its last round."""
    try:
        records = folder.metrics()
    except FedcartError:
        return
    for site, did in (records[-1].sites if records else {}).items():
        if did.status in (*ENDED, "lost"):
            words = f"{site} was {did.status} in round {records[-1].round} of {path.name}"
            yield Trouble("site", f"{words}{f' ({did.reason})' if did.reason else ''}", "ask its operator")
