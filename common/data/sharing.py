"""Which item rows a site shares: its own stock, as far as enough sites of the run stock the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.data.catalogue import Catalogue
from common.data.features import FeatureSpec, item_mask
from common.errors import ConfigError


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


def require_shared_items(masks: Mapping[str, NDArray[np.bool_]], min_stockists: int) -> None:
    """Return if every site shares at least one item, as a model of behaviour needs. Before anything is computed.

    Raises: ConfigError naming the sites that share none.
    """
    without = [site for site, mask in masks.items() if not mask.any()]
    if not without:
        return
    needed = min(min_stockists, len(masks))
    few = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
    raise ConfigError(
        f"no item of {few} is sold at {needed} sites or more (aggregation.min_stockists), so there is nothing to learn "
        "together there",
        hint="split the events another way, set a smaller aggregation.min_stockists, or hash items with "
        "features.item_buckets=1000",
    )
