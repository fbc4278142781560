"""Settings of what goes in: which events, how they become numbers, and the network that reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator

from common.extensions import require_encoder, require_head
from common.tasks.settings import Count, Positive, Section

CONTEXT = ("event", "category", "price", "gap", "hour", "weekday", "month")
"""Integer features of an event beside its item."""


class DataSettings(Section):
    """Where a simulation's events come from and how they are dealt to sites (public in a simulation)."""

    events: str = Field("", description="event log: file, folder or pattern; empty: the synthetic marketplace")
    source: str = Field("", description="TOML file with a table [source]: a database, or SQL over files")
    format: str = Field("auto", description="preset or mapping of the file, or 'auto', see `fedcart data check`")
    map: tuple[str, ...] = Field((), description="what is known of its columns, as in 'consumer=user_id'")
    catalogue: str = Field("", description="public catalogue file; empty: synthetic or built from the log")
    split_by: Literal["site", "consumers", "items", "country", "store"] | str = Field(
        "site", description="a column of the log (natural sites), or 'consumers' (IID), or 'items' (non-IID)"
    )
    sites: int = Field(8, ge=1, le=100_000, description="number of sites where the split is not a column")
    min_population: int = Field(100, ge=1, description="declared consumers below which a site is small")
    small_sites: Literal["merge", "drop"] = Field("merge", description="small sites: one 'rest' site, or left out")
    consumers: Count = Field(14_000, description="synthetic: consumers over all sites")
    items: int = Field(1_000, ge=20, description="synthetic: items over all sites")
    events_per_consumer: Positive = Field(24.0, description="synthetic: mean events of a consumer")
    days: int = Field(180, ge=2, le=3_650, description="synthetic: length of the log")
    synthetic: Literal["marketplace", "rows"] = Field(
        "marketplace", description="what is generated: unequal merchants, or plain rows of items at equal sites"
    )
    lengths: tuple[Count, Count] = Field(
        (13, 51), description="synthetic rows: fewest and most events of a consumer"
    )


class FeatureSettings(Section):
    """Public, data-independent encoding of events."""

    max_events: int = Field(50, ge=2, le=2_000, description="last events of a consumer that are read")
    item_buckets: int = Field(0, ge=0, le=1_000_000, description="0: public catalogue; else hashed buckets")
    max_items: int = Field(5_000, ge=10, description="largest catalogue; the rest become hashed buckets")
    constant: tuple[str, ...] = Field(
        (), description="features that are declared to be the same in every event: neither read nor predicted"
    )

    @field_validator("constant")
    @classmethod
    def _known_features(cls, constant: tuple[str, ...]) -> tuple[str, ...]:
        return in_one_order(constant)


class ModelSettings(Section):
    """The shared sequence model."""

    encoder: str = Field("lstm", description="`lstm`, `gru`, or one that a program or an installed package brings")
    dim: int = Field(48, ge=2, le=1_024, description="width of item embedding and residual stream")
    hidden: int = Field(
        48, ge=2, le=1_024, description="width of the recurrent state; projected to dim if it differs"
    )
    layers: int = Field(1, ge=1, le=3)
    dropout: float = Field(0.0, ge=0, lt=1, description="between recurrent layers; without privacy only")
    pooling: Literal["last", "attention"] = Field("last", description="for heads that see a whole row")
    history: bool = Field(
        True, description="purchase intent: counts of a consumer's past go straight to the head, past the encoder"
    )
    targets: Literal["every", "last"] = Field(
        "every", description="steps at which the next behaviour is asked: all, or the last known one of each row"
    )
    context: tuple[str, ...] = Field(CONTEXT, description="other features of an event that the model reads")
    context_scale: float = Field(
        0.5, gt=0, le=1, description="public factor on them: at 1 they take half of what a consumer may say"
    )
    tied: bool = Field(True, description="output item embedding = input item embedding")
    item_bias: bool = Field(
        True,
        description="a popularity of each item beside its vector; it takes a tenth of what a consumer may say",
    )
    name_scale: float = Field(
        2.0,
        ge=0,
        le=20,
        description="length of an item's first vector, from the words of its public name; 0: random",
    )
    copy_bonus: float = Field(
        3.0, ge=0, le=20, description="public logit bonus on items already in the row, and on its last category"
    )
    heads: dict[str, float] = Field(
        default_factory=lambda: {"next-item": 1.0, "next-event": 0.1},
        description="head -> weight of its loss",
    )
    sampled_negatives: int = Field(0, ge=0, description="0: full softmax; else size of the fixed public negatives")

    @field_validator("context")
    @classmethod
    def _known_features(cls, context: tuple[str, ...]) -> tuple[str, ...]:
        """In one order, as the heads."""
        return in_one_order(context)

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, name: str) -> str:
        require_encoder(name)
        return name

    @field_validator("heads")
    @classmethod
    def _in_one_order(cls, heads: dict[str, float]) -> dict[str, float]:
        """Sorted: the order of heads is the order of parameters, and must survive JSON."""
        for name in heads:
            require_head(name)
        return dict(sorted(heads.items()))


def in_one_order(features: Iterable[str]) -> tuple[str, ...]:
    """Context features, each once. Raises: ValueError for one that does not exist."""
    wanted = set(features)
    unknown = sorted(wanted - set(CONTEXT))
    if unknown:
        raise ValueError(f"no feature named {unknown[0]}, known are {', '.join(CONTEXT)}")
    return tuple(name for name in CONTEXT if name in wanted)
