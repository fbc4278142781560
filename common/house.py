"""Are all packages of this program the installed ones? Their names are common words, so others may have them too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from common.errors import BadInputError

PACKAGES = ("common", "client", "server", "simulations", "cli", "fedcart")


def require_own_packages(packages: tuple[str, ...] = PACKAGES) -> None:
    """Return if every package comes from where this file does. Nothing is imported for it.

    Raises: BadInputError naming the package that another folder of the path brings in.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in packages:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        if not places:
            raise BadInputError(
                f"the package `{name}` of fedcart is not installed",
                hint="install fedcart anew, in its own environment",
            )
        place = Path(places[0]).resolve()
        if place.parent != ours:
            raise BadInputError(
                f"the package `{name}` comes from {place}, not from {ours}",
                hint="rename it, unset PYTHONPATH, leave that folder, or give fedcart its own environment",
            )
