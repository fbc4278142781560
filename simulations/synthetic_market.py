"""The rules of the synthetic marketplace: which items exist, who stocks them, what follows what, when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]

FOLLOWERS = 3
_CANDIDATES = 8
_FOLLOW_SHARES = np.array([[0.60, 0.25, 0.15], [0.15, 0.25, 0.60]])  # [style, follower]
_SEASONAL = 0.08
_ZIPF = 1.1


@dataclass(frozen=True)
class World:
    """Constants of one marketplace.

    Shapes: ``item_category: int64[items]``; ``stocked: bool[sites, items]``; ``followers: int64[sites,
    items, 3]``; ``taste_cdf: float64[tastes, categories]``; ``shelf_item``, ``shelf_cdf``: items of each
    (site, category) with the cumulative share of each, all sites and categories one after another.
    """

    items: tuple[str, ...]
    categories: tuple[str, ...]
    item_category: Ints
    stocked: NDArray[np.bool_]
    followers: Ints
    taste_cdf: Floats
    shelf_item: Ints
    shelf_cdf: Floats
    item_price: Floats
    item_quantity: Floats
    site_price: Floats

    def draw_categories(self, taste: Ints, month: Ints, rng: np.random.Generator) -> Ints:
        """A category by taste, or with a small share the one in season: ``int64[n]``."""
        count = len(self.categories)
        keys = (self.taste_cdf + np.arange(len(self.taste_cdf))[:, None]).ravel()
        drawn = np.searchsorted(keys, taste + rng.random(len(taste)), side="right") - taste * count
        seasonal = rng.random(len(taste)) < _SEASONAL
        return np.where(seasonal, (5 * month) % count, drawn.clip(0, count - 1))

    def draw_items(self, site: Ints, category: Ints, rng: np.random.Generator) -> Ints:
        """An item of the category that the site stocks, by popularity: ``int64[n]``."""
        shelf = site * len(self.categories) + category
        position = np.searchsorted(self.shelf_cdf, shelf + rng.random(len(shelf)), side="right")
        item: Ints = self.shelf_item[position.clip(max=len(self.shelf_item) - 1)]
        return item

    def draw_followers(self, site: Ints, item: Ints, style: Ints, rng: np.random.Generator) -> Ints:
        """An item that follows ``item`` at the site, ranked as the person's style has it: ``int64[n]``."""
        rank = (rng.random(len(item))[:, None] > _FOLLOW_SHARES.cumsum(axis=1)[style]).sum(axis=1)
        follower: Ints = self.followers[site, item, rank.clip(max=FOLLOWERS - 1)]
        return follower

    def price(self, site: Ints, item: Ints, day: Floats) -> Floats:
        """Price in cents' precision: the item's, the site's level, and a slow rise over the year."""
        return np.round(self.item_price[item] * self.site_price[site] * (1 + 0.05 * day / 365), 2)

    def quantity(self, item: Ints, rng: np.random.Generator) -> Floats:
        """How many are taken: ``float64[n]``, at least 1."""
        taken: Floats = 1.0 + rng.poisson(self.item_quantity[item])
        return taken


def build_world(
    sites: int, items: int, categories: int, tastes: int, stock: float, rng: np.random.Generator
) -> World:
    """Draw the constants of a marketplace."""
    size = np.arange(1, categories + 1, dtype=np.float64) ** -0.3
    item_category = rng.choice(categories, size=items, p=size / size.sum())
    item_category[:categories] = np.arange(categories)  # no category is empty
    weight = _zipf_within(item_category, rng)
    stocked = rng.random((sites, items)) < stock
    stocked[:, np.unique(_best_of(item_category, weight, categories))] = True  # no shelf is empty
    shelf_item, shelf_cdf = _shelves(item_category, weight, stocked)
    level = rng.lognormal(2.8, 0.6, size=categories)
    return World(
        items=tuple(f"item-{i:0{len(str(items))}d}" for i in range(1, items + 1)),
        categories=tuple(f"category-{i:02d}" for i in range(1, categories + 1)),
        item_category=item_category,
        stocked=stocked,
        followers=_followers(item_category, weight, stocked, rng),
        taste_cdf=_taste_cdf(size / size.sum(), tastes, rng),
        shelf_item=shelf_item,
        shelf_cdf=shelf_cdf,
        item_price=level[item_category] * rng.lognormal(0.0, 0.4, size=items),
        item_quantity=rng.uniform(0.0, 1.2, size=categories)[item_category],
        site_price=rng.uniform(0.9, 1.1, size=sites),
    )


def day_intensity(days: int) -> Floats:
    """Cumulative share of sessions by day: weekends, a yearly wave, growth: ``float64[days]``, last is 1."""
    day = np.arange(days)
    weekly = np.array([0.9, 0.9, 0.95, 1.0, 1.1, 1.3, 1.2])[day % 7]
    intensity = weekly * (1 + 0.25 * np.sin(2 * np.pi * day / 365)) * (1 + 0.4 * day / 365)
    cdf: Floats = np.cumsum(intensity) / intensity.sum()
    cdf[-1] = 1.0
    return cdf


def draw_hours(rhythm: Ints, rng: np.random.Generator) -> Floats:
    """Hour of the day around a person's own: morning, afternoon or evening: ``float64[n]`` in [0, 24)."""
    centre = np.array([9.5, 14.0, 20.0])[rhythm]
    return np.mod(centre + rng.normal(0.0, 1.8, size=len(rhythm)), 24.0)


def _zipf_within(item_category: Ints, rng: np.random.Generator) -> Floats:
    """Popularity of each item: a power of its rank within its category, ranks in random order."""
    order = np.lexsort((rng.random(len(item_category)), item_category))
    sorted_category = item_category[order]
    first = np.searchsorted(sorted_category, sorted_category, side="left")
    weight = np.empty(len(item_category))
    weight[order] = (1.0 + np.arange(len(order)) - first) ** -_ZIPF
    return weight


def _best_of(item_category: Ints, weight: Floats, categories: int) -> Ints:
    """The most popular item of each category: ``int64[categories]``."""
    order = np.lexsort((-weight, item_category))
    best: Ints = order[np.searchsorted(item_category[order], np.arange(categories))]
    return best


def _shelves(item_category: Ints, weight: Floats, stocked: NDArray[np.bool_]) -> tuple[Ints, Floats]:
    """Stocked items of every (site, category) and, added to the shelf's number, their cumulative share."""
    categories = int(item_category.max()) + 1
    site, item = np.nonzero(stocked)
    shelf = site * categories + item_category[item]
    order = np.argsort(shelf, kind="stable")
    shelf, item = shelf[order], item[order]
    total = np.bincount(shelf, weights=weight[item])
    share = weight[item] / total[shelf]
    running = np.cumsum(share)
    first = np.searchsorted(shelf, np.arange(len(total)))
    before = np.concatenate([[0.0], running])[first][shelf]
    cdf = shelf + np.minimum(running - before, 1.0)
    cdf[np.append(first[1:], len(shelf)) - 1] = np.arange(len(total)) + 1.0  # exact ends, whatever the rounding
    return item, cdf


def _followers(item_category: Ints, weight: Floats, stocked: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """For every site the first three candidates it stocks, else the category's best: ``int64[sites, items, 3]``."""
    sites, items = stocked.shape
    categories = int(item_category.max()) + 1
    partner = rng.permutation(categories)
    wanted = np.where(
        rng.random((items, _CANDIDATES)) < 0.6, item_category[:, None], partner[item_category][:, None]
    )
    _, cdf = _shelves(item_category, np.sqrt(weight), np.ones((1, items), dtype=np.bool_))
    by_category = np.argsort(item_category, kind="stable")
    position = np.searchsorted(cdf, wanted + rng.random(wanted.shape), side="right")
    candidate = by_category[position.clip(max=items - 1)]  # [items, 8]
    best = _best_of(item_category, weight, categories)[item_category]
    followers = np.empty((sites, items, FOLLOWERS), dtype=np.int64)
    for s in range(sites):
        unusable = ~stocked[s][candidate] | (candidate == np.arange(items)[:, None])
        order = np.argsort(unusable, axis=1, kind="stable")[:, :FOLLOWERS]
        chosen = np.take_along_axis(candidate, order, axis=1)
        followers[s] = np.where(stocked[s][chosen], chosen, best[:, None])
    return followers


def _taste_cdf(general: Floats, tastes: int, rng: np.random.Generator) -> Floats:
    """Cumulative category shares of each taste: three categories of its own and a little of everything."""
    categories = len(general)
    share = np.tile(0.15 * general, (tastes, 1))
    own = min(3, categories)
    # dealt out in turn: no category is everybody's favourite, so popularity alone predicts little
    dealt = np.concatenate([rng.permutation(categories) for _ in range(-(-tastes * own // categories))])
    for taste in range(tastes):
        favourites = dealt[taste * own : (taste + 1) * own]
        share[taste, favourites] += 0.85 * np.array([0.5, 0.3, 0.2])[:own] / np.array([0.5, 0.3, 0.2])[:own].sum()
    cdf: Floats = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)
    cdf[:, -1] = 1.0
    return cdf
