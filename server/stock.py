"""The catalogue of a federation: checked when kits are made, its stock in the names of the sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.deployment import Federation
from common.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from common.data import Catalogue

_SHOWN = 8
NOBODY = ""  # for a name of the column that is none of the sites'


def federation_catalogue(federation: Federation, folder: Path) -> Catalogue | None:
    """The catalogue that ``federation.toml`` names (relative to its folder), or None.

    Raises: BadInputError for a file that is none; ConfigError if its stock is not that of the federation's sites.
    """
    from common.data import read_catalogue

    if not federation.catalogue:
        if federation.stock:
            raise ConfigError("federation.toml has a table [stock] and no catalogue", hint='catalogue = "FILE"')
        return None
    own = [site.name for site in federation.sites if site.catalogue]
    if own:
        raise ConfigError(
            f"federation.toml names a catalogue for all, and another for site {own[0]}",
            hint="all sites of a run have one catalogue: keep the line of the federation",
        )
    catalogue = read_catalogue(folder / federation.catalogue)
    return replace(catalogue, stock=_in_names_of_sites(catalogue, federation))


def stock_remark(catalogue: Catalogue | None, sites: tuple[str, ...]) -> str:
    """What a run of these sites does about a stock that they do not share, if its settings leave it open; empty if they share."""
    from common.data import feature_spec
    from common.data.sharing import shared_item_masks, with_hashed_items
    from common.run import RunConfig

    if catalogue is None:
        return ""
    config = RunConfig()
    masks = shared_item_masks(feature_spec(catalogue), catalogue, sites, config.aggregation.min_stockists)
    hashed = with_hashed_items(config, masks)
    return hashed[1] if hashed else ""


def _in_names_of_sites(catalogue: Catalogue, federation: Federation) -> dict[str, NDArray[np.bool_]]:
    sites, named = [site.name for site in federation.sites], federation.stock
    if not catalogue.stock:
        if named:
            raise ConfigError("the catalogue declares no stock, [stock] maps it", hint="take the table out")
        return {}
    absent = sorted(set(named) - set(catalogue.stock))
    if absent:
        raise ConfigError(
            f"[stock] maps {_listed(absent)}: not in the catalogue, which has {_listed(catalogue.stock)}"
        )
    wrong = sorted(set(named.values()) - {*sites, NOBODY})
    if wrong:
        raise ConfigError(f"[stock] maps to {_listed(wrong)}: the sites are {_listed(sites)}")
    meant = {column: named.get(column, column) for column in catalogue.stock}
    unknown = sorted(column for column, site in meant.items() if site not in {*sites, NOBODY})
    if unknown:
        raise ConfigError(
            f"the catalogue's column site has {_listed(unknown)}: no site of the federation is called so",
            hint=f'say which site each is, in a table [stock]: {_quoted(unknown[0])} = "{sites[0]}", or "" for none of them',
        )
    stock: dict[str, NDArray[np.bool_]] = {}
    for column, site in meant.items():
        if site != NOBODY:
            stock[site] = catalogue.stock[column] | stock.get(site, np.zeros_like(catalogue.stock[column]))
    without = [site for site in sites if site not in stock]
    if without:
        raise ConfigError(
            f"the catalogue says nothing about the stock of site {_listed(without)}",
            hint="give every site lines of its own in the catalogue, or leave the column site out: then each has all items",
        )
    return stock


def _listed(names: object) -> str:
    listed = [_quoted(name) for name in names]  # type: ignore[attr-defined]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _quoted(name: str) -> str:
    return '"' + name[:60].encode("unicode_escape").decode() + '"'
