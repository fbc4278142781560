"""``fedcart server deliver``: a server app that only hands out the model of a run that is over, waited for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cli.show as show
from common.errors import BadInputError, WorkFailedError

if TYPE_CHECKING:
    from common.deployment import CoordinatorKit
    from common.run import RunFolder

POLL_S = 0.3
BEGIN_S = 180.0
ENDED = ("finished", "failed", "stopped")


@dataclass(frozen=True)
class Delivered:
    """Which sites of a run keep its newest model now, and which do not."""

    run: str
    have: tuple[str, ...]
    missing: tuple[str, ...]


def deliver_now(kit: CoordinatorKit, name: str) -> Delivered:
    """Submit it, show what it says, return when it has ended. Raises: BadInputError, WorkFailedError."""
    from server.delivery import DELIVER
    from server.runtime.control import must_be_up, open_control, submit

    folder = _over(kit, name)
    must_be_up(kit)
    notes, end = len(folder.notes()), time.monotonic() + BEGIN_S
    with open_control(kit) as control:
        number = submit(kit, control, folder.path.name, DELIVER)
        while (word := control.run_status(number)[0].split(":")[0]) not in ENDED:
            if word not in ("running", "starting", "pending") and time.monotonic() > end:
                raise WorkFailedError("the server does not begin", hint=f"see {kit.log}")
            time.sleep(POLL_S)
    for note in folder.notes()[notes:]:
        show.note(note)
    there, keeps = folder.plan().sites, folder.delivered()
    wanted = newest_digests(folder)
    have = tuple(site for site in there if wanted <= set(keeps.get(site, [])))
    return Delivered(folder.path.name, have, tuple(site for site in there if site not in have))


def newest_digests(folder: RunFolder) -> set[str]:
    """SHA-256 of each model.json that the run's sites are to have."""
    from common.run import METADATA_FILE, digest_of

    files = [model / METADATA_FILE for model in (folder.path, folder.best_model)]
    return {digest_of(file.read_bytes()) for file in files if file.is_file()}


def _over(kit: CoordinatorKit, name: str) -> RunFolder:
    from common.run import METADATA_FILE, RunFolder, run_is_held
    from server.planning import open_run

    folders = [open_run(kit, name)] if name else RunFolder.all_in(kit.runs)[::-1]
    for folder in folders:
        if (folder.path / METADATA_FILE).is_file() and folder.manifest() and not run_is_held(folder):
            return folder
    what = (
        f"run {name} is not over, or has no model"
        if name
        else "no run of this coordinator is over and has a model"
    )
    raise BadInputError(what, hint=f"fedcart server status {kit.path}")
