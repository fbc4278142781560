"""A ledger outside the kits: one account for the consumers of a scope, whatever federation asks for them.

ledger.jsonl, ledger.head.json   entries and signed end
ledger.key                       signs them; it belongs to the folder, not to a kit
consumers.key                    chooses who is held out: the same for every kit, so nobody changes sides
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.guard.ledger import Ledger
from common.atomic import create_atomic, private_folder, write_atomic
from common.deployment import LEDGER_FILE, USER_LEDGER, user_ledgers
from common.errors import BadInputError, VerificationError
from common.privacy import Charge, Losses, Replay, replay_lines, split_lines
from common.trust import CONSUMERS_KEY, Identity, check_name

KEY_FILE = "ledger.key"
PLACE_FILE = "account.txt"  # in a kit: the folder of the shared ledger that it uses


@dataclass(frozen=True)
class SharedLedger:
    """The folder of a shared ledger."""

    folder: Path
    scope: str

    @property
    def file(self) -> Path:
        """The ledger."""
        return self.folder / LEDGER_FILE

    @property
    def consumers_key(self) -> Path:
        """The key of the hold-out and of the pseudonyms."""
        return self.folder / CONSUMERS_KEY

    def identity(self) -> Identity:
        """The key that signs the ledger, made at first use. Raises: BadInputError, WorkFailedError (disk)."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / KEY_FILE
        if not path.exists():
            fresh = path.with_name(f".ledger.key.{os.getpid()}.{os.urandom(4).hex()}")
            Identity.generate(self.scope).save(fresh)
            try:
                create_atomic(path, fresh.read_bytes(), mode=0o600)  # of two kits at once, the first one's
            finally:
                fresh.unlink()
        return Identity.load(self.scope, path)

    def refuse_copy(self, state: Path) -> None:
        """Return if the account of a kit with this state folder lies here, or nowhere else any more. Raises: BadInputError."""
        noted = state / PLACE_FILE
        before = Path(noted.read_text("utf-8")) if noted.is_file() else self.folder
        if before != self.folder and (before / KEY_FILE).is_file():
            raise BadInputError(
                f"the account of this kit lies in {before}, site.toml now names {self.folder}",
                hint="a copy, or another account, does not know what is spent there: set ledger and scope as they were; to move "
                "the account, move its folder as a whole",
            )

    def remember(self, state: Path) -> None:
        """Note in a kit where its account lies. Raises: WorkFailedError (disk)."""
        noted = private_folder(state) / PLACE_FILE
        if not noted.is_file() or noted.read_text("utf-8") != str(self.folder):
            write_atomic(noted, str(self.folder).encode(), mode=0o600)

    def ledger(self, delta: float) -> Ledger:
        """The ledger, opened. Raises: as ``Ledger.open``."""
        ledger = Ledger(self.file, self.identity())
        ledger.open(scope=self.scope, delta=delta, simulated=False, shared=True)
        return ledger


def shared_ledger(named: str, scope: str, site: str, kit: Path) -> SharedLedger | None:
    """What ``ledger`` in site.toml means: nothing, a folder, or ``user`` for the user's state directory.

    Raises: BadInputError if the scope has no name of its own: two kits agree on consumers by it.
    """
    if not named:
        return None
    if scope == site:
        raise BadInputError(
            f"scope is still {scope!r}, the site's own name",
            hint='name the consumers, for example scope = "shoppers-of-north": every kit about them says the same',
        )
    if named == USER_LEDGER:
        return SharedLedger(user_ledgers() / check_name(scope), scope)
    return SharedLedger((kit / named).resolve(), scope)


def absorb(place: SharedLedger, delta: float, old: Path, key: bytes, consumers_key: Path) -> bool:
    """Charge a shared ledger with everything that a kit's own ledger holds; False if all of it is charged there already.

    The first kit brings its key of the hold-out along, so its consumers stay on their sides. Of a later kit with another
    key it is not known who was held out by the other one, so everything counts on both sides. A ledger is known by its key
    and its entries, never by the name of a site: two federations may call their sites alike.
    ``key``: with which the old ledger is signed. Raises: VerificationError for a damaged ledger; BadInputError if one with
    open reservations is to be moved.
    """
    state = _replayed(old, key)
    if state.open_reservations():
        raise BadInputError(f"{old} has open reservations", hint="end the run, and restart the site once")
    brought = consumers_key.read_bytes() if consumers_key.is_file() else b""
    place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if brought and not place.consumers_key.exists():
        create_atomic(place.consumers_key, brought, mode=0o600)
    same_key = place.consumers_key.is_file() and place.consumers_key.read_bytes() == brought
    ledger = place.ledger(delta)
    with ledger.transaction() as now:
        charge = _charge_of(state, now, key.hex(), same_key=same_key)
        if charge is None:
            return False
        ledger.append(charge)
        ledger.renew_anchor()
    return True


def _charge_of(state: Replay, now: Replay, key: str, *, same_key: bool) -> Charge | None:
    """What the ledger ``now`` has to be charged for another one; None: nothing. Of one that went on behind an earlier charge, the rest."""
    header, last = state.header, state.sequence - 1
    assert header is not None
    same_sides = same_key and now.split in (None, state.split)
    losses = state.spent if same_sides else state.spent.on_every_side()
    for known in now.former(key):
        if (known.until, known.head) == (last, state.head):
            return None
        if state.hash_at(known.until) == known.head:  # and not a copy that went on in another way
            losses = losses.beyond(Losses.of(known.events))
    split = state.split if same_sides else None
    return Charge(
        events=losses.events,
        reason=f"moved from {header.site}"[:200],
        order=state.order if now.order is None else None,
        site=header.site,
        until=last,
        holdout=split[0] if split else None,
        split_key=split[1] if split else "",
        validation=split[2] if split else 0.0,
        adaptive=state.adaptive_order is not None or not same_sides,
        planned=tuple(sorted(state.planned)),
        key=key,
        head=state.head,
    )


def _replayed(path: Path, key: bytes) -> Replay:
    lines: Sequence[bytes] = split_lines(path.read_bytes())[0] if path.is_file() else ()
    if not lines:
        raise BadInputError(f"there is no ledger at {path}", hint="a kit that never took part needs no move")
    try:
        return [state for _, _, state in replay_lines(lines, key)][-1]
    except VerificationError as error:
        raise VerificationError(f"{path}: {error.message}", hint="`fedcart site recover` first") from None
