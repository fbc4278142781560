"""Which item rows a site shares: its own stock, as far as enough sites of the run stock the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.catalogue import Catalogue
from common.data.features import FeatureSpec, item_mask
from common.errors import ConfigError

BUCKETS = 1_000
"""Hashed buckets where sites share no items: a public constant, no count of a log."""


def shared_item_masks(
    spec: FeatureSpec, catalogue: Catalogue | None, sites: Sequence[str], min_stockists: int
) -> dict[str, NDArray[np.bool_]]:
    """Item rows each site trains. Public: made from the catalogue alone, the same at every party.

    Rows stocked by fewer than ``min_stockists`` of the run's sites stay local.
    Shapes: ``bool[sizes["item"]]`` per site.
    Raises: ConfigError if the catalogue declares stock, but not for every site.
    """
    if catalogue is not None and catalogue.stock:
        unknown = [site for site in sites if site not in catalogue.stock]
        if unknown:
            raise ConfigError(
                f"the catalogue says nothing about the stock of site {unknown[0]}",
                hint="list every site of the run in the catalogue's stock, or no site at all",
            )
    masks = {site: item_mask(spec, catalogue, site) for site in sites}
    stockists = np.sum(list(masks.values()), axis=0)
    shared = stockists >= min(min_stockists, len(masks))
    return {site: mask & shared for site, mask in masks.items()}


def sharing_nothing(masks: Mapping[str, NDArray[np.bool_]], min_stockists: int) -> str:
    """Which sites share no item, in words; empty if every site shares some."""
    without = [site for site, mask in masks.items() if not mask.any()]
    if not without:
        return ""
    few = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
    return f"no item of {few} is sold at {min(min_stockists, len(masks))} sites or more"


def with_hashed_items(config: Any, masks: Mapping[str, NDArray[np.bool_]]) -> tuple[Any, str] | None:
    """Settings under which sites that share no item can learn together, and a word about it, before anything is computed.

    None where every site shares some, or where a user has chosen: a catalogue, ``min_stockists`` or ``item_buckets``.
    """
    found = sharing_nothing(masks, config.aggregation.min_stockists)
    chosen = config.data.catalogue or "min_stockists" in config.aggregation.model_fields_set
    if not found or chosen or "item_buckets" in config.features.model_fields_set:
        return None
    features = config.features.model_copy(update={"item_buckets": BUCKETS})
    return config.model_copy(update={"features": features}), (
        f"{found}: items are hashed into {BUCKETS:,} buckets that all sites share; expect little gain on items from federating "
        "(or --set aggregation.min_stockists=1: each site trains its own)"
    )


def require_shared_items(masks: Mapping[str, NDArray[np.bool_]], min_stockists: int) -> None:
    """Return if every site shares at least one item, as a model of behaviour needs. Before anything is computed.

    Raises: ConfigError naming the sites that share none.
    """
    found = sharing_nothing(masks, min_stockists)
    if not found:
        return
    raise ConfigError(
        f"{found} (aggregation.min_stockists), so there is nothing to learn together there",
        hint="split the events another way, set a smaller aggregation.min_stockists, or hash items with "
        "features.item_buckets=1000",
    )
