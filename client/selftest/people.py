"""Made-up consumers, the awkward ones among them, the models of all tasks, and a scratch site that holds them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import nn

import common.data.sequences as rows_of
from client.models import make_batcher
from client.site import Site
from common.data import DECLARED, EVENT_TYPES, Catalogue, ConsumerSequences, EventLog, FeatureSpec, feature_spec
from common.model import ModelShape, SequenceModel, build_model, on_rows
from common.run import RunConfig, RunPlan, build_config
from common.trust import Identity

__all__ = [
    "ALONE", "CLIP", "ITEMS", "MODELS", "ConsumerSequences", "EventLog", "Market", "RunConfig", "RunPlan", "Scratch", "Site",
    "batches", "batches_of", "catalogue", "config_of", "encoded", "hostile_model", "model_of", "one_buyer", "one_of_a_kind", "people",
    "sales_plan", "sales_spec", "scratch_site", "spec", "with_norm", "without",
]  # fmt: skip

CLIP = 0.05
ITEMS = 40
SHELVES = ("a", "b", "c")
ALONE = 4  # the consumer whom a hostile model is made for
LONGEST = 120
SMALL = {"dim": 8, "hidden": 8}
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"model": {"heads": {"next-item": 1.0, "next-event": 0.3, "next-category": 0.2}}},
    "gru, two layers": {"model": {"encoder": "gru", "layers": 2, "hidden": 6}},
    "untied, projected": {"model": {"tied": False, "hidden": 5}},
    "sampled softmax": {"model": {"sampled_negatives": 7}},
    "last step": {"model": {"targets": "last"}},
    "no item bias, whole context": {"model": {"item_bias": False, "context_scale": 1.0}},
    "intent": {"task": "purchase-intent"},
    "intent, attention": {"task": "purchase-intent", "model": {"pooling": "attention"}},
    "both": {"task": "multi-task"},
}
"""Settings of the models that the sensitivity is tested on: every kind of layer and of head."""


def config_of(settings: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    """Small settings with the self-test's clip."""
    tree = {**(settings or {}), **sections}
    tree["model"] = {**SMALL, **tree.get("model", {})}
    tree["privacy"] = {"clip": CLIP, **tree.get("privacy", {})}
    return build_config(tree)


def catalogue() -> Catalogue:
    """Forty items on three shelves."""
    shelves = np.append(0, 1 + np.arange(ITEMS) % len(SHELVES)).astype(np.int32)
    return Catalogue(tuple(f"item-{i}" for i in range(ITEMS)), SHELVES, shelves, DECLARED)


def people(consumers: int = 24, seed: int = 0) -> EventLog:
    """Made-up consumers: one with one event, one with hundreds, one with one item only."""
    import polars as pl

    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 30, consumers)
    counts[:3] = 1, 500, 60
    who = np.repeat(np.arange(consumers), counts)
    items = rng.integers(0, ITEMS, len(who))
    items[who == 2] = 7
    kinds = pl.Series([EVENT_TYPES[i % len(EVENT_TYPES)] for i in range(len(who))], dtype=pl.Enum(EVENT_TYPES))
    frame = pl.DataFrame(
        {
            "consumer": (who + 1).astype(np.uint64),
            "timestamp": pl.Series(np.arange(len(who)) * 3_600_000_000).cast(pl.Datetime("us")),
            "event": kinds,
            "item": [f"item-{i}" for i in items],
            "category": [SHELVES[i % len(SHELVES)] for i in items],
            "price": (10.0 ** rng.integers(-3, 6, len(who))).astype(np.float32),
            "quantity": rng.integers(1, 40, len(who)).astype(np.float32),
        }
    )
    return EventLog.from_frame(frame)


def without(log: EventLog, consumer: int) -> EventLog:
    """The log as it is without one consumer and all their events."""
    import polars as pl

    return EventLog(log.frame.filter(pl.col("consumer") != consumer))


def spec() -> FeatureSpec:
    """The public encoding."""
    return feature_spec(catalogue())


def encoded(log: EventLog) -> rows_of.ConsumerSequences:
    """The consumers as the model sees them."""
    return rows_of.build_sequences(log, spec(), catalogue(), max_events=LONGEST)


def model_of(config: RunConfig) -> SequenceModel:
    """The model of these settings, its parameters moved away from their small beginning."""
    model = build_model(config.model, ModelShape(spec().sizes), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


class Normed(nn.Module):
    """A GRU with a norm behind it: a registered encoder may have one, our own do not."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gru, self.norm = nn.GRU(dim, hidden, batch_first=True), nn.LayerNorm(hidden)

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """As ``nn.GRU``."""
        out, behind = self.gru(x, state)
        return on_rows(self.norm, out), behind


def with_norm(model: SequenceModel) -> SequenceModel:
    """The model with such an encoder, the same every time, its norm's scale large enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.encoder = Normed(model.settings.dim, model.settings.hidden)
    with torch.no_grad():
        model.encoder.norm.weight.fill_(20.0)
    return model


def batches(log: EventLog, config: RunConfig) -> Any:
    """The consumers in batches, with every target that the task asks for."""
    return batches_of(encoded(log), config)


def batches_of(sequences: ConsumerSequences, config: RunConfig) -> Any:
    """As ``batches``, of encoded consumers."""
    return make_batcher(sequences, config)


def one_of_a_kind(log: EventLog) -> EventLog:
    """The log with an item that only the consumer ``ALONE`` ever touched, who touched nothing else."""
    import polars as pl

    mine, last = pl.col("consumer") == ALONE, pl.lit(f"item-{ITEMS - 1}")
    other = pl.when(pl.col("item") == last).then(pl.lit("item-0")).otherwise(pl.col("item"))
    return EventLog(log.frame.with_columns(pl.when(mine).then(last).otherwise(other).alias("item")))


def one_buyer(log: EventLog) -> EventLog:
    """The log of a shop where everybody looks at things, and only the consumer ``ALONE`` ever bought."""
    import polars as pl

    kind = pl.when(pl.col("consumer") == ALONE).then(pl.lit("purchase")).otherwise(pl.lit("view"))
    return EventLog(log.frame.with_columns(kind.cast(pl.Enum(EVENT_TYPES)).alias("event")))


def hostile_model(config: RunConfig, value: float) -> SequenceModel:
    """A model in which the input of that one item is ``value`` everywhere."""
    model = model_of(config)
    with torch.no_grad():
        model.item.weight[ITEMS].fill_(value)
    return model


def sales_plan(clip: float, categories: list[str], noise: float) -> RunPlan:
    """A plan of the task sales over the made-up days."""
    sales = {"start": "1970-01-01", "periods": 120, "categories": categories}
    config = build_config({"task": "sales", "sales": sales, "privacy": {"clip": clip}})
    return RunPlan("self-test", config.public_json(), (("self", 512),), "{}", 10, noise, 0.0)


def sales_spec(plan: RunPlan) -> Any:
    """The shape of its series."""
    from common.tasks.sales_series import SalesSpec

    return SalesSpec.of(plan.config)


@dataclass(frozen=True)
class Market:
    """What is around a scratch site: declared consumers of the others, and how many of the items it stocks itself."""

    others: tuple[int, ...] = (512, 512)
    stocked: int = ITEMS


@dataclass(frozen=True)
class Scratch:
    """A site that exists for a moment: a kit in a temporary folder, some sites in its roster, a plan.

    ``others``: the keys of the other sites, and ``coordinator``: that of who signs what it is asked.
    """

    site: Site
    plan: RunPlan
    coordinator: Identity
    others: tuple[Identity, ...]


@contextmanager
def scratch_site(
    log: EventLog | None,
    settings: dict[str, Any],
    noise: tuple[float, float],
    secret: bytes = b"",
    market: Market = Market(),
) -> Iterator[Scratch]:
    """A site with these consumers (None: with nobody), and a private plan with this noise, ready to be asked.

    ``secret``: the site's own key for consumers; left out: a new one.
    """
    from client.prepared import prepared_path, split_of, store_sequences
    from client.site import load_site
    from common.atomic import private_folder, write_atomic

    config = config_of(settings)
    with tempfile.TemporaryDirectory(prefix="fedcart-selftest-") as name:
        folder, coordinator = Path(name), Identity.generate("coordinator")
        others = tuple(Identity.generate(f"other-{i}") for i, _ in enumerate(market.others, start=1))
        _write_kit(folder, coordinator, others)
        size = sum(p.numel() for p in build_model(config.model, ModelShape(spec().sizes), 1).parameters())
        declared = zip((one.name for one in others), market.others, strict=True)
        populations = (("self", 512), *declared)
        plan = RunPlan("self-test", config.public_json(), populations, spec().canonical(), size, *noise)
        site = load_site(folder, simulated=True)
        if secret:
            write_atomic(private_folder(site.kit.state) / site.kit.consumers_key.name, secret, mode=0o600)
        sequences = encoded(log or people())
        if log is None:
            sequences = sequences.take(np.zeros(0, dtype=np.intp))
        mask, split = np.append(False, np.arange(ITEMS) < market.stocked), split_of(config, site.secret())
        store_sequences(prepared_path(site.kit, plan), [sequences], mask, split)
        yield Scratch(site, plan, coordinator, others)


def _write_kit(folder: Path, coordinator: Identity, others: tuple[Identity, ...]) -> None:
    """A kit of the site ``self`` in a roster with others, under a policy that allows all that is tested."""
    from client.guard import SitePolicy
    from common.deployment import SiteKit
    from common.trust import Roster

    own = Identity.generate("self")
    sites = [(one.name, one.public_key) for one in (own, *others)]
    Roster.signed_by(coordinator, sites).save(SiteKit(folder).roster)
    own.save(SiteKit(folder).identity_key)
    facts = {"name": "self", "scope": "self", "population": 512, "events": "(made up)"}
    pins = {"name": "self-test", "coordinator": coordinator.public_key.hex(), "bundle": "0" * 64}
    SiteKit(folder).settings.write_text(
        tomli_w.dumps({"federation": pins, "site": facts, "server": {"address": "localhost:1"}})
    )
    SitePolicy(
        epsilon_max=1e6,
        noise_multiplier_min=1e-6,
        evaluation_noise_min=1e-6,
        sampling_rate_max=1.0,
        plain_aggregation=True,
        quorum_noise=True,
        epsilon_alone_max=1e6,
    ).save(SiteKit(folder).policy)
