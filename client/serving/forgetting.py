"""One consumer forgotten at a site: in the live state, in what was prepared from its events, in what has not left yet.

What was made from many consumers together cannot lose one of them: it is removed as a whole, and made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import client.serving.snapshot as snapshots
from client.serving.hold import hold, served_by
from client.serving.names import candidates
from client.serving.opening import serving_folder
from common.atomic import disk_errors, read_small
from common.deployment import SiteKit
from common.errors import BadInputError
from common.privacy import show_epsilon, show_exact

MADE_AGAIN = ("consumers-*.rows", "purchases-*.npz", "events")  # of a kit's state, from the event log


@dataclass(frozen=True)
class Done:
    """What became of one place. ``count``: entries or files removed."""

    place: str
    count: int
    words: str


@dataclass(frozen=True)
class Home:
    """Where a site keeps what it knows. ``key``: of the pseudonyms; ``kit`` None: a state folder alone."""

    state: Path
    key: bytes
    kit: SiteKit | None = None


def home_of(kit: Path | None, state: Path | None) -> Home:
    """Raises: BadInputError for a folder that is no kit, a state without a key (nobody was ever known there), or both at
    once: each has its own pseudonyms.
    """
    from client.scoring.consumers import KEY_BYTES, state_folder
    from common.trust import CONSUMERS_KEY

    if kit is not None:
        from client.site import load_site
        from common.deployment import open_site_kit

        if state is not None:
            raise BadInputError(
                "a kit and a state folder at once", hint="one after the other: a state has pseudonyms of its own"
            )
        site = load_site(open_site_kit(kit).path)
        return Home(site.kit.state, site.secret(), site.kit)
    folder = state_folder(state)
    try:
        key = read_small(folder / CONSUMERS_KEY)
    except OSError:
        raise BadInputError(
            f"{folder} knows no consumer: it has no key", hint="name the kit, or --state DIR"
        ) from None
    if len(key) != KEY_BYTES:
        raise BadInputError(f"the key in {folder} is damaged", hint="restore it from a copy")
    return Home(folder, key)


def refuse_held(home: Home, ask: Callable[[str], object] | None) -> str:
    """The address of a running service that can be asked, empty if there is none.

    Raises: BadInputError while a process holds the kit, or a service runs that cannot be asked (``ask`` None).
    """
    from common.supervisor import running_pid

    if home.kit is not None and (pid := running_pid(home.kit)):
        raise BadInputError(
            f"the site is running as process {pid}, which works with these files",
            hint="stop it first (SIGTERM), forget, and start it again",
        )
    pid, address = served_by(serving_folder(home.state))
    if pid and (ask is None or not address):
        raise BadInputError(
            f"process {pid} serves this state{f' on {address}' if address else ''}",
            hint=f"stop it first (SIGTERM), or: curl -X DELETE {address or 'ADDRESS'}/consumers/CONSUMER, and the token",
        )
    return address


@contextmanager
def alone(home: Home, *, live: bool = True) -> Iterator[None]:
    """Keep the kit and, with ``live``, the live state to this process. Raises: BadInputError while another works with them."""
    from common.supervisor import only_one

    with ExitStack() as held:
        if home.kit is not None:
            held.enter_context(only_one(home.kit, "site"))
        if live and serving_folder(home.state).is_dir():
            held.enter_context(hold(serving_folder(home.state)))
        yield


def forget(home: Home, consumer: str, *, live: bool = True) -> list[Done]:
    """Remove a consumer; ``live`` False where a running service has done its part.

    Raises: BadInputError (a damaged file), VerificationError (ledger), WorkFailedError (disk). What was removed stays removed.
    """
    from client.serving.verdicts import forget_alarms, forget_verdict

    meant, done = candidates(consumer, home.key), list[Done]()
    if live:
        path = serving_folder(home.state) / snapshots.SNAPSHOT_FILE
        if path.exists():
            done += [Done(str(path), snapshots.remove_from(path, meant), "row and answers kept")]
        other = snapshots.set_aside_at(path)
        if other.exists():
            done += [Done(str(other), snapshots.remove_from_aside(path, meant), "what --fresh put aside")]
        verdicts = sum(forget_verdict(home.state, who) for who in meant)
        alarms = sum(forget_alarms(home.state, who) for who in meant)
        done += [
            Done("verdicts", verdicts, "what a person had said"),
            Done("alarms", alarms, "what watch had reported"),
        ]
    done += _models(home.state)
    if home.kit is not None:
        done += _of_kit(home.kit)
    return done


def _models(state: Path) -> list[Done]:
    """Personal models are made of every consumer's events: own counts, a tuned network, what is usual."""
    folder = state / "personal"
    count = sum(1 for _ in folder.rglob("personal.safetensors")) if folder.is_dir() else 0
    if count:
        with disk_errors(folder):
            shutil.rmtree(folder)
    return [Done("personal models", count, "made from all consumers: make them again with fedcart personalize")]


def _of_kit(kit: SiteKit) -> list[Done]:
    from client.site import load_site

    count = 0
    for pattern in MADE_AGAIN:
        for path in kit.state.glob(pattern):
            with disk_errors(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            count += 1
    outbox = kit.state / "outbox"
    waiting = sum(1 for _ in outbox.iterdir()) if outbox.is_dir() else 0
    if waiting:
        load_site(kit.path).guard().restart()
    return [
        Done("prepared files", count, "made again from the event log"),
        Done(
            "outbox",
            waiting,
            "contributions that had not left; what was charged for them is settled as after a restart",
        ),
    ]


def what_stays(home: Home) -> list[str]:
    """What cannot be undone, in sentences."""
    said = [
        "your own event log is not touched: remove the consumer's lines there, or the next start reads them again"
    ]
    if home.kit is None:
        return said
    from client.site import load_site

    status = load_site(home.kit.path).guard().status()
    if not status.committed:
        return [*said, "no contribution of this site has left: nothing outside it was made from this consumer"]
    return [
        *said,
        f"{status.committed:,} contributions are in sums that others have: they cannot be taken back. What they say of this "
        f"consumer is bounded by epsilon {show_epsilon(status.epsilon)} at delta {show_exact(status.delta)} (public, from this site's ledger)",
        "models that were trained with them stay as they are, here and at the other sites",
    ]
