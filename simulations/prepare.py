"""From settings to a federation on disk: events -> sites -> kits, the run's plan, the first checkpoint.

A simulated site gets the same kit as a real one, with its encoded consumers already in the state folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

import simulations.fitting as fitting
from client.guard import UNLIMITED, SitePolicy
from common.atomic import write_atomic
from common.deployment import Kits, SiteKit
from common.errors import ConfigError
from common.plain_text import shown
from common.run import DataSettings, RunConfig, RunFolder, RunPlan, SiteFacts
from common.tasks import task_named
from common.trust import Identity, Roster
from simulations.carried import LOG_DIGEST, begin_ledger, carried_from
from simulations.tasks.half import oracle_of

if TYPE_CHECKING:
    from common.data import Catalogue, CleaningReport, ConsumerSequences, EventLog, FeatureSpec
    from simulations.partition import Partition

Step = Callable[[int], None]
COORDINATOR_NAME = "coordinator"
NO_PIN = "0" * 64  # a simulation has no app bundle to pin


@dataclass(frozen=True)
class DealtData:
    """The data of a simulation, dealt to sites. Everything in it but settings, names and populations is private.

    ``config``: the settings with what the log made of those that were left open, see ``fitting``.
    """

    config: RunConfig
    partition: Partition
    catalogue: Catalogue | None
    spec: FeatureSpec
    masks: dict[str, NDArray[np.bool_]]
    data: dict[str, Any]
    sequences: dict[str, ConsumerSequences]


def deal_data(config: RunConfig, step: Step = lambda _lines: None) -> DealtData:
    """Load or generate the events and deal them to sites; ``step`` is called with the lines read so far.

    Raises: BadInputError for an unusable file, too few sites or consumers; ConfigError.
    """
    source = config.data.source
    if not source:
        return _dealt(config, step)
    if config.data.events:
        raise ConfigError("data.events and data.source are both given", hint="give one of them")
    from common.data.store.source_log import spooled

    with spooled(Path(source), step=step) as path:
        world = _dealt(config.model_copy(update={"data": _with(config.data, events=str(path))}), step)
    return replace(world, config=world.config.model_copy(update={"data": _with(world.config.data, events="")}))


def _with(data: DataSettings, events: str) -> DataSettings:
    return data.model_copy(update={"events": events})


def _dealt(config: RunConfig, step: Step) -> DealtData:
    from common.data import feature_spec
    from common.data.sharing import require_shared_items, with_hashed_items
    from simulations.pseudonyms import with_random_pseudonyms

    log, known, data = _events(config, step)
    config, itemless = fitting.without_items(config, log)
    parts, said = fitting.dealt(config, log)
    del log  # the sites have it
    config, dates = fitting.with_dates(config, parts)
    said = (*said, *dates, *fitting.overlap_note(config, parts))
    parts, called = with_plain_names(parts)
    if config.data.events:  # real people: what is stored must not be found again from the public seed
        from client.prepared import split_of

        keys = {name: holdout_key(config.seed, kit_name(name)) for name in parts.names}
        parts = with_random_pseudonyms(parts, {name: split_of(config, key) for name, key in keys.items()})
    catalogue = _renamed(_catalogue(config, known, parts), called)
    spec = feature_spec(catalogue, item_buckets=config.features.item_buckets)
    masks = _masks(config, spec, catalogue, parts)
    hashed = with_hashed_items(config, masks) if task_named(config.task).looks_up_items else None
    if hashed is not None:
        config, catalogue = hashed[0], None
        spec = feature_spec(None, item_buckets=config.features.item_buckets)
        masks = _masks(config, spec, None, parts)
    if task_named(config.task).looks_up_items:
        require_shared_items(masks, config.aggregation.min_stockists)
    rows = oracle_of(config.task).encoded(config, parts, spec, catalogue)
    fitted = [*itemless, *said, *(hashed[1:] if hashed else ()), *map(_called, called.items())]
    told = {"fitted": fitted, "notes": [*fitted, *parts.notes]}
    return DealtData(config, parts, catalogue, spec, masks, data | told, rows)


def _masks(
    config: RunConfig, spec: FeatureSpec, catalogue: Catalogue | None, parts: Partition
) -> dict[str, NDArray[np.bool_]]:
    from common.data.sharing import shared_item_masks

    return shared_item_masks(spec, catalogue, parts.names, config.aggregation.min_stockists)


def _events(config: RunConfig, step: Step) -> tuple[Any, Catalogue | None, dict[str, Any]]:
    settings = config.data
    if settings.events:
        column = "" if settings.split_by in ("consumers", "items", "site") else settings.split_by
        secret = hashlib.sha256(f"fedcart/simulation/{config.seed}".encode()).digest()
        log, report = _read(settings, (column, secret), step)
        told = {"source": Path(settings.events).name, "events": len(log), LOG_DIGEST: _digest(log)}
        return log, None, told | {"cleaning": report.to_json()}
    if settings.synthetic == "rows":
        from simulations.plain_rows import RowsSpec, generate_rows

        rows = RowsSpec(settings.sites, settings.consumers, settings.items, settings.lengths)
        log, catalogue = generate_rows(rows, config.seed)
        return log, catalogue, {"source": "synthetic rows", "events": len(log), **asdict(rows)}
    from simulations.synthetic import SyntheticSpec, generate

    spec = SyntheticSpec(
        sites=settings.sites,
        consumers=settings.consumers,
        items=settings.items,
        events_per_consumer=settings.events_per_consumer,
        days=settings.days,
    )
    market = generate(spec, config.seed)
    return (
        market.log,
        market.catalogue,
        {"source": "synthetic marketplace", "events": len(market.log), **asdict(spec)},
    )


def _digest(log: EventLog) -> str:
    """Of all events, so that a later run knows whether it deals the same ones; never leaves this machine's run folder."""
    return hashlib.sha256(log.frame.hash_rows().to_numpy().tobytes()).hexdigest()


def _read(settings: DataSettings, by: tuple[str, bytes], step: Step) -> tuple[EventLog, CleaningReport]:
    """The log of a file, its lines on disk until they are in order: what is in memory is the log once, not thrice."""
    from common.data import joined, said_of
    from common.data.store.logs import OpenedLog, Tally

    (site_column, secret), tally = by, Tally()
    opened = OpenedLog.of(settings.events, settings.format, site_column=site_column, said=said_of(settings.map))
    return joined(opened.pieces(secret, tally, step)), opened.report(tally)


def _catalogue(config: RunConfig, known: Catalogue | None, dealt: Partition) -> Catalogue | None:
    from common.data import catalogue_from_events, read_catalogue
    from common.data.product_names import product_names

    if config.data.catalogue:
        return read_catalogue(Path(config.data.catalogue))
    if config.features.item_buckets:
        return None
    if known is not None and config.data.split_by == "site":
        return _with_merged_stock(known, dealt)
    names = product_names(config.data.events, config.data.format, config.data.map) if config.data.events else None
    return catalogue_from_events(dealt.stock(), max_items=config.features.max_items, names=names)


def _with_merged_stock(known: Catalogue, dealt: Partition) -> Catalogue:
    """The declared catalogue where merchants were merged: the merged site stocks what its members did."""
    left_over = [mask for site, mask in known.stock.items() if site not in dealt.names]
    union = np.any(left_over, axis=0) if left_over else np.zeros(len(known.items) + 1, dtype=np.bool_)
    return replace(known, stock={name: known.stock.get(name, union) for name in dealt.names})


def with_plain_names(dealt: Partition) -> tuple[Partition, dict[str, str]]:
    """Sites whose names would be one folder, one roster name or none, under names of their own; and which those are.

    Names that differ in case or in marks only, that are of another script, or that are the coordinator's.
    """
    called: dict[str, str] = {}
    taken = {COORDINATOR_NAME}
    for name in sorted(dealt.names):
        plain = kit_name(name)
        if plain.casefold() in taken or not re.search(r"[A-Za-z0-9]", name):
            called[name] = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        taken.add(kit_name(called.get(name, name)).casefold())
    sites = tuple(replace(site, name=called.get(site.name, site.name)) for site in dealt.sites)
    return (replace(dealt, sites=sites) if called else dealt), called


def _called(pair: tuple[str, str]) -> str:
    return f"the site {shown(pair[0], 60)!r} is called {pair[1]} in files and messages"


def _renamed(catalogue: Catalogue | None, called: dict[str, str]) -> Catalogue | None:
    """The catalogue with the sites under the names they are called by."""
    if catalogue is None or not called:
        return catalogue
    return replace(catalogue, stock={called.get(site, site): mask for site, mask in catalogue.stock.items()})


def kit_name(site: str) -> str:
    """A site's name as a folder and roster name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", site).strip("-._") or "site"


def holdout_key(seed: int, site: str) -> bytes:
    """The key that chooses a simulated site's hold-out: follows from the seed, so the split is the same every time."""
    return hashlib.sha256(f"fedcart/hold-out/{seed}/{site}".encode()).digest()


def constant_features(world: DealtData) -> tuple[str, ...]:
    """What the format of the log, never a line of it, says is the same in every event; a catalogue may know categories."""
    told = world.data.get("cleaning", {}).get("constant", ())
    known = bool(world.catalogue and len(world.catalogue.categories))
    return tuple(name for name in told if not (name == "category" and known))


def declared(world: DealtData) -> tuple[tuple[str, int], ...]:
    """Name and declared population of every site."""
    return tuple((kit_name(site.name), site.population) for site in world.partition.sites)


@dataclass(frozen=True)
class PreparedFederation:
    """A federation on disk, ready for round 1.

    ``earlier``: epsilon that the consumers of the worst site have lost before it, in the run that this one goes on from;
    ``with_run``: epsilon of both.
    """

    plan: RunPlan
    roster: Roster
    kits: dict[str, Path]
    facts: tuple[SiteFacts, ...]
    earlier: float = 0.0
    with_run: float = 0.0


def make_federation(
    folder: RunFolder, config: RunConfig, world: DealtData, plan: RunPlan, item_of: NDArray[np.int32]
) -> PreparedFederation:
    """Write roster, coordinator key, one kit per site with its encoded consumers, and the public item masks."""
    coordinator = Identity.generate(COORDINATOR_NAME)
    home = Kits(folder.path).coordinator
    home.path.mkdir(exist_ok=True)
    coordinator.save(home.identity_key)
    identities = {site: Identity.generate(site) for site in plan.sites}
    roster = Roster.signed_by(coordinator, [(name, one.public_key) for name, one in identities.items()])
    folder.write_roster(roster)
    kits, facts = {}, []
    carried = carried_from(config, plan, str(world.data.get(LOG_DIGEST, "")))
    for part in world.partition.sites:
        name, mask = kit_name(part.name), world.masks[part.name]
        owed = carried.get(name)
        kit = _make_kit(folder, plan, roster, identities[name], owed.epsilon_with(plan) if owed else 0.0)
        if owed:
            begin_ledger(folder.ledger(name), identities[name], name, config.privacy.delta, owed)
        oracle_of(plan.task.name).store(kit.state, plan, part, world.sequences.get(part.name), mask)
        kits[name] = kit.path
        facts.append(SiteFacts(name, part.population, int(mask.sum()), part.note))
    folder.write_plan(plan)
    folder.write_item_rows({kit_name(name): mask for name, mask in world.masks.items()}, item_of)
    if world.catalogue is not None:
        from common.data import write_catalogue

        write_catalogue(world.catalogue, folder.catalogue_file)
    folder.write_settings(config)
    delta = config.privacy.delta
    earlier = max((owed.epsilon(delta) for owed in carried.values()), default=0.0)
    both = max((owed.epsilon_with(plan) for owed in carried.values()), default=0.0)
    return PreparedFederation(plan, roster, kits, tuple(facts), earlier, both)


def _make_kit(
    folder: RunFolder, plan: RunPlan, roster: Roster, identity: Identity, with_earlier: float
) -> SiteKit:
    """``with_earlier``: epsilon of this run and of what its consumers have lost before it, 0 if nothing."""
    from client.own_state import begin_state

    config = plan.config
    kit = Kits(folder.path).site(identity.name)
    kit.state.mkdir(parents=True)
    identity.save(kit.identity_key)
    roster.save(kit.roster)
    settings = {
        "federation": {"name": config.name, "coordinator": roster.coordinator.public_key.hex(), "bundle": NO_PIN},
        "site": {
            "name": identity.name,
            "scope": identity.name,
            "population": plan.population(identity.name),
            "events": "(simulation)",
        },
        "server": {"address": "localhost:1"},
    }
    write_atomic(kit.settings, tomli_w.dumps(settings).encode())
    policy = simulated_policy(config)
    limit = max(policy.epsilon_max, with_earlier)  # what was asked for, on top of what is spent already
    policy.model_copy(update={"epsilon_max": limit}).save(kit.policy)
    key = holdout_key(config.seed, identity.name)
    write_atomic(kit.consumers_key, key, mode=0o600)  # follows the seed: the same split every time
    begin_state(kit, identity)
    return kit


def simulated_policy(config: RunConfig) -> SitePolicy:
    """A policy that allows what the simulation was asked to do; the epsilon limit is enforced as at a real site."""
    return SitePolicy(
        epsilon_max=config.privacy.epsilon,
        delta=config.privacy.delta,
        noise_multiplier_min=1e-3,
        evaluation_noise_min=1e-3,
        sampling_rate_max=1.0,
        steps_max=1_000_000,
        clip_min=1e-9,
        clip_max=1e9,
        learning_rate_max=1e9,
        weight_ratio_max=1e9,
        min_cohort=1,
        min_consumers=1,
        min_stockists=1,
        min_threshold_fraction=1e-6,
        plain_aggregation=True,
        quorum_noise=True,
        colluders_max=0,
        epsilon_alone_max=UNLIMITED,
    )
