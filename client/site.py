"""A site: its kit, its keys, its consumers as the model sees them, and what it is asked of them.

In a deployment every message is a new process, so the encoded consumers are kept in the state folder; see ``prepared``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.guard import Guard, SitePolicy, open_guard
from client.guard.shared_ledger import SharedLedger, shared_ledger
from client.own_state import require_own_state
from client.prepared import PreparedConsumers, load_prepared, prepared_path, split_of, store_sequences
from common import VERSION
from common.atomic import CLOSE_ON_EXEC, create_atomic, private_folder, read_small, write_atomic
from common.contribution import Query
from common.deployment import SiteFile, SiteKit, open_site_kit
from common.errors import BadInputError, ConfigError, VerificationError
from common.local_log import local_log
from common.run import PerformanceSettings, RunPlan
from common.strict_json import one_line
from common.trust import CONSUMERS_KEY, Identity, Roster, require_private

if TYPE_CHECKING:
    from common.data import Catalogue, ConsumerSequences, EventLog, Mapping
    from common.data.store.logs import Tally
    from common.data.store.source_log import SourceLog
    from common.source_settings import SourceSettings

SECRET_BYTES = 32
# Guards of simulated sites, for the next message in this process. Nothing in one is state: the ledger's file is.
_guards: dict[tuple[object, ...], Guard] = {}


@dataclass(frozen=True)
class Site:
    """An opened site kit. ``simulated`` is said by whoever starts the client, never by the server."""

    kit: SiteKit
    file: SiteFile
    identity: Identity
    roster: Roster
    simulated: bool
    ledger_path: Path | None = None

    def shared_ledger(self) -> SharedLedger | None:
        """The ledger outside the kit that site.toml names, if it does. Raises: BadInputError."""
        facts = self.file.site
        return shared_ledger(facts.ledger, facts.scope, facts.name, self.kit.path)

    def guard(self) -> Guard:
        """The door through which everything leaves. Raises: BadInputError, VerificationError (ledger)."""
        policy, shared = _policy_in(self.kit.policy, _stamp(self.kit.policy)), self.shared_ledger()
        key = (self.kit.path, self.ledger_path, self.file.site.scope, self.identity.public_key, policy)
        if self.simulated and key in _guards:  # it reads what was appended since, and not the whole ledger again
            _guards[key].reopen(self.file.site.scope, simulated=True)
            return _guards[key]
        if shared:
            shared.refuse_copy(self.kit.state)
        guard = open_guard(
            self.kit.state,
            self.identity,
            policy,
            self.file.site.scope,
            ledger_path=shared.file if shared else self.ledger_path,
            ledger_key=shared.identity() if shared else None,
            simulated=self.simulated,
            code=VERSION,
        )
        if shared:
            shared.remember(self.kit.state)
        elif self.simulated:
            _guards[key] = guard
        return guard

    @property
    def name(self) -> str:
        """Name in the roster."""
        return self.file.site.name

    def secret(self) -> bytes:
        """The site's own 32-byte key for pseudonyms and for the choice of the hold-out; made once.

        Raises: BadInputError if it is damaged or others can read it, WorkFailedError (disk).
        """
        shared = self.shared_ledger()
        path = private_folder(shared.folder if shared else self.kit.state) / CONSUMERS_KEY
        if not path.exists():
            create_atomic(path, os.urandom(SECRET_BYTES), mode=0o600)
        require_private([path])
        try:
            key = read_small(path)
        except OSError as error:
            raise BadInputError(f"cannot read {path}: {error.strerror}", hint="restore it from a copy") from None
        if len(key) != SECRET_BYTES:
            raise BadInputError(f"{path} has {len(key)} bytes, not {SECRET_BYTES}", hint="restore it from a copy")
        return key

    def split_key(self) -> str:
        """What a ledger records about the key that chooses the hold-out: hex, tells nothing about the key."""
        return hashlib.sha256(b"fedcart/holdout-key/1\0" + self.secret()).hexdigest()

    def prepared(self, plan: RunPlan) -> PreparedConsumers:
        """Encoded consumers for a run, from the state folder or made from the event log.

        Raises: BadInputError for an unusable log, ConfigError if the site's catalogue is not the run's.
        """
        path = prepared_path(self.kit, plan, self.source_stamp())
        if not path.exists():
            pieces, mask = self._encode(plan)
            store_sequences(path, pieces, mask, split_of(plan.config, self.secret()))
        return load_prepared(path)

    def catalogue_of(self, plan: RunPlan) -> Catalogue | None:
        """The public catalogue by which a run reads this site's items; None where it hashes all of them.

        The site's own or none: a run can leave it out, as where sites share no item, and cannot exchange it.
        """
        from common.data import read_catalogue

        name = self.file.site.catalogue
        if not name or (
            plan.config.features.item_buckets and not json.loads(plan.features).get("catalogue_digest")
        ):
            return None
        return read_catalogue(self.kit.resolve(name))

    def event_log(self) -> EventLog:
        """The site's own event log in memory, cleaned, ids pseudonymised; empty if no line of it is usable.

        Raises: BadInputError for a file that cannot be read at all. Nothing about a single consumer decides that.
        """
        from common.data import joined

        return joined(self.pieces())

    def pieces(self, tally: Tally | None = None) -> Iterator[EventLog]:
        """The log of ``events`` in pieces, consumers in ascending order and each whole in one; memory for one piece.

        ``tally`` gathers on the way what cleaning did.
        """
        from common.data import load_mapping
        from common.data.store.logs import FileLog

        facts = self.file.site
        mapping = load_mapping(self.kit.resolve(facts.mapping)) if facts.mapping else None
        scratch = private_folder(self.kit.state)
        if self.file.source is not None:
            return self.source_log(self.file.source, mapping).pieces(tally)
        events = self.kit.resolve(facts.events)
        return FileLog(events, facts.format, mapping, self.secret(), scratch).pieces(tally)

    def _pieces_told(self) -> Iterator[EventLog]:
        """As ``pieces``; the site's own log says what was left out and why, since no answer ever does."""
        from common.data.store.logs import Tally

        tally = Tally()
        yield from self.pieces(tally)
        report = tally.report(self.name, self.file.site.format)
        lost = "; ".join(f"{r.dropped:,} {r.rule} ({r.reason})" for r in report.rules if r.dropped)
        if not self.simulated:
            text = f"events: {report.kept:,} of {report.lines:,} lines usable"
            local_log(self.kit.log).info(f"{text}; left out: {lost}" if lost else text)

    def source_log(self, settings: SourceSettings, mapping: Mapping | None) -> SourceLog:
        """The events of ``[source]``; what was read is kept in the state folder. Raises: BadInputError (its password)."""
        from common.data.sources.opening import open_source
        from common.data.store.source_log import SourceLog

        folder = private_folder(self.kit.state / "events")
        source = open_source(settings, self.kit.path, folder)
        return SourceLog(
            source,
            self.file.site.format,
            mapping,
            self.secret(),
            folder,
            settings.identity(self.kit.path),
            settings.watermark,
            settings.late,
        )

    def source_stamp(self) -> str:
        """Changes with the event log, and with the key of the pseudonyms; empty where there is no log (a simulation).

        Rows kept under an older key would be split by the new one: their consumers could change sides. A ``[source]`` is read
        once for a plan: its stamp is what it asks for.
        """
        if self.file.source is not None:
            return f"{self.file.source.identity(self.kit.path)}/{self.split_key()}"
        try:
            status = self.kit.resolve(self.file.site.events).stat()
        except OSError:
            return ""
        return f"{status.st_size}/{status.st_mtime_ns}/{self.split_key()}"

    def note_locally(self, facts: dict[str, Any]) -> None:
        """Append one line to the site's private diagnostics, which never leave it."""
        line = one_line(facts) + "\n"
        path = private_folder(self.kit.state) / "diagnostics.jsonl"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | CLOSE_ON_EXEC, 0o600)
        with os.fdopen(fd, "a", encoding="utf-8") as file:
            os.fchmod(fd, 0o600)  # an older version made it readable by others
            file.write(line)

    def _encode(self, plan: RunPlan) -> tuple[Iterator[ConsumerSequences], NDArray[np.bool_]]:
        from common.data import FeatureSpec, build_sequences
        from common.data.sharing import shared_item_masks

        config = plan.config
        spec = FeatureSpec.from_json(json.loads(plan.features))
        catalogue = self.catalogue_of(plan)
        if spec.catalogue_digest != (catalogue.digest().hex() if catalogue else ""):
            raise ConfigError(
                "the catalogue of this site is not the one of the run",
                hint="ask the coordinator for the run's file",
            )
        masks = shared_item_masks(spec, catalogue, plan.sites, config.aggregation.min_stockists)
        most, cut = config.features.max_events, config.cut_us
        encoded = (build_sequences(log, spec, catalogue, max_events=most, cut=cut) for log in self._pieces_told())
        return encoded, masks[self.name]


@dataclass(frozen=True)
class Question:
    """A verified Query with everything a site needs to answer it.

    Shapes: ``model: float32[d]``, the parameters that the Query is about. ``speed`` is the site's own choice.
    """

    query: Query
    plan: RunPlan
    model: NDArray[np.float32]
    speed: PerformanceSettings = field(default_factory=PerformanceSettings)


def load_site(folder: Path, *, simulated: bool = False, ledger_path: Path | None = None) -> Site:
    """Open a site kit; ``ledger_path`` is elsewhere in a simulation only.

    A process that asks again gets the same object until a file of the kit changes.
    Raises: BadInputError, ConfigError if a file is missing, damaged or disagrees.
    """
    kit = open_site_kit(folder)
    stamps = tuple(_stamp(path) for path in (kit.settings, kit.roster, kit.identity_key))
    return _load_site(kit, simulated, ledger_path, stamps)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes with content, mode or identity of a file; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=1_024)
def _policy_in(path: Path, _stamp: tuple[int, ...]) -> SitePolicy:
    return SitePolicy.load(path)


def _accept_roster(kit: SiteKit, roster: Roster) -> None:
    """Remember the newest roster that this site has seen; an older one, or another of the same number, is refused.

    Raises: VerificationError.
    """
    path = private_folder(kit.state) / "roster.accepted.json"
    known = Roster.load(path) if path.exists() else None
    if known is not None and known.digest == roster.digest:
        return
    if known is not None:
        what = ""
        if roster.federation != known.federation:
            what = "roster.json is of another federation than the one that this kit has taken part in"
        elif roster.version < known.version:
            what = f"roster.json is version {roster.version}, this site has seen version {known.version} already"
        elif roster.version == known.version:
            what = f"this is a second roster of version {roster.version}: somebody was given other keys"
        if what:
            raise VerificationError(
                what, hint="ask the coordinator, and compare the fingerprint with another site"
            )
    write_atomic(path, roster.to_json().encode(), mode=0o600)


@lru_cache(maxsize=1_024)  # a worker of a large simulation serves a thousand kits, in turn
def _load_site(
    kit: SiteKit, simulated: bool, ledger_path: Path | None, _stamps: tuple[tuple[int, ...], ...]
) -> Site:
    file = kit.read()
    roster = Roster.load(kit.roster)
    identity = Identity.load(file.site.name, kit.identity_key)
    if roster.party(identity.name).public_key != identity.public_key:
        raise BadInputError(
            f"the key of site {identity.name} is not the one in its roster",
            hint="restore identity.key or ask for a new roster",
        )
    if roster.coordinator.public_key.hex() != file.federation.coordinator:
        raise BadInputError(
            "roster and site.toml name different coordinators", hint="ask the coordinator for a new kit"
        )
    if not simulated:
        require_own_state(kit, identity)
        _accept_roster(kit, roster)  # last: what another check refuses must not be remembered
    return Site(kit, file, identity, roster, simulated, ledger_path)
