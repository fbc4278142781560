"""A synthetic marketplace: events of consumers at unequal merchants, seeded, without any real person.

What is in it for a sequence model: items that follow items, consumers who come back to what they know,
tastes that drift, searches that announce a category, seasons, and a funnel from view to purchase.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

import simulations.anomalies as anomalies
import simulations.synthetic_market as market
from common.data import EVENT_TYPES, Catalogue, EventLog, pseudonym
from common.errors import ConfigError
from simulations.synthetic_market import World

SOURCE = "synthetic (public)"
FIRST_DAY = datetime(2024, 1, 1)
EVENTS_PER_STEP = 1.99
"""Measured mean of events that one step of a consumer's walk emits; turns steps into events."""

_SLOTS = ("login", "review", "search", "view", "favourite", "cart", "purchase", "cancel")
_SESSION_SPACING_S = 2 * 3_600
_DAY_S = 86_400


@dataclass(frozen=True)
class SyntheticSpec:
    """Public constants of a synthetic marketplace; the defaults are the scenario of `make simulate`.

    ``categories`` 0 means one per 25 items, at most 40. ``inequality`` is the exponent of merchant sizes
    (0: equal), ``stock`` the share of the catalogue that a merchant carries, ``overlap`` the share of a
    merchant's consumers drawn from a pool common to all merchants, ``drift`` the share of consumers whose
    taste changes, ``anomalies`` the share of consumers who get one injected anomaly.
    """

    sites: int = 8
    consumers: int = 14_000
    items: int = 1_000
    categories: int = 0
    tastes: int = 16
    events_per_consumer: float = 24.0
    days: int = 180
    inequality: float = 0.7
    stock: float = 0.75
    overlap: float = 0.0
    drift: float = 0.4
    anomalies: float = 0.0

    def __post_init__(self) -> None:
        if self.sites < 1 or self.consumers < self.sites:
            raise ConfigError(
                f"{self.consumers} consumers over {self.sites} sites is not possible",
                hint="at least one site, and one consumer per site",
            )
        if self.items < self.shelves or self.shelves < 2 or self.tastes < 1:
            raise ConfigError(f"{self.items} items in {self.shelves} categories is not possible")
        if not 4 <= self.events_per_consumer <= 1_000:
            raise ConfigError(f"events_per_consumer is {self.events_per_consumer}, possible are 4 to 1000")
        if not 2 <= self.days <= 3_650:
            raise ConfigError(f"days is {self.days}, possible are 2 to 3650")
        for name in ("stock", "overlap", "drift", "anomalies"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be in [0, 1]")

    @property
    def shelves(self) -> int:
        """Number of categories."""
        return self.categories or min(40, max(2, self.items // 25))


@dataclass(frozen=True)
class SyntheticMarket:
    """A generated log with its public catalogue (stock of each merchant included) and anomaly labels.

    ``labels`` has a line per injected anomaly: ``consumer`` (pseudonym), ``site``, ``kind``, ``begin``, ``end``.
    """

    log: EventLog
    labels: pl.DataFrame
    catalogue: Catalogue


def generate(spec: SyntheticSpec, seed: int) -> SyntheticMarket:
    """Generate a marketplace; the same spec and seed give the same events.

    Example:
        >>> market = generate(SyntheticSpec(sites=2, consumers=50, items=60), seed=1)
        >>> market.log.sites
        ('merchant-1', 'merchant-2')
    """
    rng = np.random.default_rng(seed)
    world = market.build_world(spec.sites, spec.items, spec.shelves, spec.tastes, spec.stock, rng)
    people = _draw_people(spec, seed, rng)
    steps = _walk(spec, world, people, rng)
    frame = _to_frame(spec, world, people, steps, rng)
    log = EventLog(frame) if not spec.overlap else EventLog.from_frame(frame)
    labels = anomalies.empty_labels()
    if spec.anomalies:
        log, labels = anomalies.inject(log, spec.anomalies, seed=int(rng.integers(2**62)))
    return SyntheticMarket(log, labels, _catalogue(world))


@dataclass(frozen=True)
class _People:
    """One line per (site, consumer), ascending by pseudonym; arrays of that length."""

    consumer: NDArray[np.uint64]
    site: NDArray[np.int64]
    taste: NDArray[np.int64]
    later_taste: NDArray[np.int64]
    switch: NDArray[np.float64]
    style: NDArray[np.int64]
    conversion: NDArray[np.float64]
    rhythm: NDArray[np.int64]
    steps: NDArray[np.int64]


@dataclass(frozen=True)
class _Steps:
    """One line per step of a walk: the item in focus, whether a session begins, its time."""

    person: NDArray[np.int64]
    item: NDArray[np.int64]
    seen_before: NDArray[np.bool_]
    begins: NDArray[np.bool_]
    session_start_s: NDArray[np.int64]


def original_id(person: int) -> str:
    """The id under which a synthetic consumer appears in a written file."""
    return f"c{person:07d}"


def secret_of(seed: int) -> bytes:
    """The pseudonymisation secret of a simulation: follows from its seed, protects nobody."""
    return hashlib.blake2b(f"fedcart synthetic {seed}".encode(), digest_size=32).digest()


def site_sizes(spec: SyntheticSpec) -> NDArray[np.int64]:
    """Consumers of each merchant, largest first: ``int64[sites]``, in all ``spec.consumers``."""
    weight = np.arange(1, spec.sites + 1, dtype=np.float64) ** -spec.inequality
    sizes: NDArray[np.int64] = 1 + np.floor((spec.consumers - spec.sites) * weight / weight.sum()).astype(np.int64)
    sizes[: spec.consumers - sizes.sum()] += 1
    return sizes


def _draw_people(spec: SyntheticSpec, seed: int, rng: np.random.Generator) -> _People:
    site = np.repeat(np.arange(spec.sites), site_sizes(spec))
    person = _identities(spec, site, rng)
    secret = secret_of(seed)
    distinct = person.max() + 1
    pseudonyms = np.array([pseudonym(original_id(p), secret) for p in range(distinct)], dtype=np.uint64)
    order = np.argsort(pseudonyms[person], kind="stable")
    site, person = site[order], person[order]
    n = len(site)
    # what a person is like does not depend on the merchant: draw per person, then look up
    style, rhythm = rng.integers(2, size=distinct)[person], rng.integers(3, size=distinct)[person]
    conversion = rng.lognormal(0.0, 0.6, size=distinct)[person]
    preference = rng.dirichlet(np.full(spec.tastes, 1.5), size=spec.sites).cumsum(axis=1)
    taste = (rng.random(n)[:, None] > preference[site]).sum(axis=1).clip(max=spec.tastes - 1)
    switch = np.where(rng.random(n) < spec.drift, rng.uniform(0.3, 0.8, size=n), 2.0)
    mean = spec.events_per_consumer / EVENTS_PER_STEP
    steps = np.rint(rng.lognormal(np.log(mean) - 0.18, 0.6, size=n)).astype(np.int64)
    return _People(
        consumer=pseudonyms[person],
        site=site,
        taste=taste,
        later_taste=(taste + rng.integers(1, max(2, spec.tastes), size=n)) % spec.tastes,
        switch=switch,
        style=style,
        conversion=conversion,
        rhythm=rhythm,
        steps=steps.clip(2, int(4 * mean) + 2),
    )


def _identities(spec: SyntheticSpec, site: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of the person behind each line; a person appears at a site at most once."""
    sizes = np.bincount(site, minlength=spec.sites)
    pool = int(sizes.max())
    person = np.arange(len(site)) + (pool if spec.overlap else 0)
    start = 0
    for size in sizes if spec.overlap else ():
        shared = round(spec.overlap * size)
        person[start : start + shared] = rng.choice(pool, size=shared, replace=False)
        start += size
    return np.unique(person, return_inverse=True)[1].astype(np.int64)


def _walk(spec: SyntheticSpec, world: World, people: _People, rng: np.random.Generator) -> _Steps:
    """Let every person walk from item to item. One pass per step number, over all people at once."""
    count = people.steps
    offset = np.concatenate([[0], np.cumsum(count)])
    total = int(offset[-1])
    person = np.repeat(np.arange(len(count)), count)
    number = np.arange(total) - offset[person]
    begins = (rng.random(total) < 0.38) | (number == 0)
    start_s = _session_starts(spec, people, person, begins, rng)
    taste = np.where(
        number / count[person] < people.switch[person], people.taste[person], people.later_taste[person]
    )
    month = (start_s // (30 * _DAY_S)).astype(np.int64)
    item = np.zeros(total, dtype=np.int64)
    seen = np.zeros(total, dtype=np.bool_)
    longest_first = np.argsort(-count, kind="stable")
    active_at = np.searchsorted(-count[longest_first], -np.arange(count.max()), side="left")
    for t in range(int(count.max())):
        who = longest_first[: active_at[t]]
        at = offset[who] + t
        site = people.site[who]
        new = begins[at]
        u = rng.random(len(who))
        fresh = world.draw_items(site, world.draw_categories(taste[at], month[at], rng), rng)
        if t == 0:
            item[at] = fresh
            continue
        follow_below = np.where(new, 0.04, 0.22)
        repeat_below = follow_below + np.where(new, 0.42, 0.18)
        again = item[offset[who] + (rng.random(len(who)) * max(1, t - 1)).astype(np.int64)]
        following = world.draw_followers(site, item[at - 1], people.style[who], rng)
        item[at] = np.where(u < follow_below, following, np.where(u < repeat_below, again, fresh))
        seen[at] = (u >= follow_below) & (u < repeat_below)
    return _Steps(person, item, seen, begins, start_s)


def _session_starts(
    spec: SyntheticSpec,
    people: _People,
    person: NDArray[np.int64],
    begins: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Start of each step's session in seconds since the first day; a person's sessions lie two hours apart."""
    owner = person[begins]
    day = np.searchsorted(market.day_intensity(spec.days), rng.random(len(owner)), side="right")
    hour = market.draw_hours(people.rhythm[owner], rng)
    start = day * _DAY_S + (hour * 3_600).astype(np.int64)
    span = (spec.days + 400) * _DAY_S
    start = np.sort(owner * span + start)  # within a person by time; people stay in order
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    number = np.arange(len(owner)) - np.repeat(first, np.diff(np.append(first, len(owner))))
    spaced = np.maximum.accumulate(start - number * _SESSION_SPACING_S) + number * _SESSION_SPACING_S
    by_step: NDArray[np.int64] = (spaced - owner * span)[np.cumsum(begins) - 1]
    return by_step


def _to_frame(
    spec: SyntheticSpec, world: World, people: _People, steps: _Steps, rng: np.random.Generator
) -> pl.DataFrame:
    """Expand every step into its events, in order: login, review of the last purchase, search, view, ..."""
    emitted = _emitted(people, steps, rng)
    flat = np.flatnonzero(emitted.ravel())  # [steps, 8] row by row = time order
    step, slot = flat >> 3, flat & 7
    person = steps.person[step]
    item = np.where(slot == _SLOTS.index("review"), steps.item[step - 1], steps.item[step])
    category = world.item_category[item]
    has_item = slot != _SLOTS.index("login")
    searched = slot == _SLOTS.index("search")
    seconds = _event_times(steps, step, rng)
    priced = np.isin(slot, [_SLOTS.index(name) for name in ("view", "favourite", "cart", "purchase", "cancel")])
    counted = np.isin(slot, [_SLOTS.index(name) for name in ("cart", "purchase", "cancel")])
    price = np.where(priced, world.price(people.site[person], item, seconds / _DAY_S), np.nan)
    # one draw per step: what is put into the cart is what is bought
    quantity = np.where(counted, world.quantity(steps.item, rng)[step], np.nan)
    codes = np.array([EVENT_TYPES.index(name) for name in _SLOTS], dtype=np.uint32)[slot]
    epoch_us = int((FIRST_DAY - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
    columns = {
        "consumer": pl.Series(people.consumer[person]),
        "timestamp": pl.Series(seconds * 1_000_000 + epoch_us).cast(pl.Datetime("us")),
        "event": pl.Series(EVENT_TYPES, dtype=pl.Enum(EVENT_TYPES)).gather(codes),
        "item": _names(world.items, np.where(has_item & ~searched, item, -1)),
        "category": _names(world.categories, np.where(has_item, category, -1)),
        "price": pl.Series(price.astype(np.float32)).fill_nan(None),
        "quantity": pl.Series(quantity.astype(np.float32)).fill_nan(None),
        "site": _names(site_names(spec.sites), people.site[person]),
    }
    return pl.DataFrame(columns)


def _emitted(people: _People, steps: _Steps, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of the eight slots each step fills: ``bool[steps, 8]``. A purchase needs a cart, a cart no view."""
    n = len(steps.item)
    draw = rng.random((n, 8), dtype=np.float32)
    out = np.zeros((n, 8), dtype=np.bool_)
    likely = people.conversion[steps.person] * np.where(steps.seen_before, 2.0, 1.0)
    out[:, 0] = steps.begins & (draw[:, 0] < 0.35)
    out[:, 2] = draw[:, 2] < np.where(steps.begins, 0.55, 0.22)
    out[:, 3] = ~(steps.seen_before & (draw[:, 3] < 0.25))
    out[:, 4] = draw[:, 4] < 0.05
    out[:, 5] = (draw[:, 5] < 0.15 * likely) | ~out[:, 3]
    out[:, 6] = out[:, 5] & (draw[:, 6] < 0.35 + 0.25 * np.minimum(likely, 2.0))
    out[:, 7] = out[:, 6] & (draw[:, 7] < 0.03)
    out[1:, 1] = steps.begins[1:] & out[:-1, 6] & (draw[1:, 1] < 0.35) & (steps.person[1:] == steps.person[:-1])
    return out


def _event_times(steps: _Steps, step: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Seconds since the first day: the session's start, then log-normal pauses of about half a minute."""
    pause = np.rint(rng.lognormal(3.2, 0.9, size=len(step))).clip(1, 600).astype(np.int64)
    session = np.cumsum(steps.begins)[step]
    first = np.diff(session, prepend=0) > 0
    pause[first] = 0
    elapsed = np.cumsum(pause)
    begin = elapsed[first]
    seconds: NDArray[np.int64] = steps.session_start_s[step] + elapsed - begin[np.cumsum(first) - 1]
    return seconds


def site_names(sites: int) -> tuple[str, ...]:
    """Names of the merchants, in order of size."""
    width = len(str(sites))
    return tuple(f"merchant-{i:0{width}d}" for i in range(1, sites + 1))


def _names(names: tuple[str, ...], positions: NDArray[np.int64]) -> pl.Series:
    """The names at the positions, missing where negative."""
    table = pl.Series([*names, None], dtype=pl.String)
    return table.gather(pl.Series(np.where(positions < 0, len(names), positions).astype(np.uint32)))


def _catalogue(world: World) -> Catalogue:
    category = np.concatenate([[0], world.item_category + 1]).astype(np.int32)
    stock = {
        name: np.concatenate([[False], world.stocked[i]]) for i, name in enumerate(site_names(len(world.stocked)))
    }
    return Catalogue(world.items, world.categories, category, SOURCE, stock)
