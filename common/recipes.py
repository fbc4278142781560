"""Recipes: named sets of defaults for the schedule of a run, resolved to numbers when a run is planned.

A recipe fills in only what the settings leave out: a scenario's keys come first, and ``--set`` before these. What is
signed are the numbers; no party looks at the name while the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from common.errors import ConfigError

Recipe = Literal["quick", "quality"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)

_DEFAULTS: Mapping[Recipe, Mapping[str, Mapping[str, Any]]] = {
    "quick": {"training": {"rounds": 10, "local_steps": 10}, "privacy": {"sampling_rate": 0.1}},
    "quality": {  # one private step a round: no site's noise is trained on before the others' cancel it
        "training": {"rounds": 200, "local_steps": 1},
        "privacy": {"sampling_rate": 0.25},
        "strategy": {"name": "fedavgm", "learning_rate": 0.1},  # with momentum .9: the mean of the last ten steps
        "model": {"item_bias": False},
    },
}

_IN_A_QUORUM: Mapping[str, Mapping[str, Any]] = {
    # one linear step of each site, and the optimizer behind the noise, at the server
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0},
    "strategy": {"name": "scalar-adam", "learning_rate": 0.03},
    "model": {"item_bias": False},
}
_QUORUM: Mapping[Recipe, Mapping[str, Mapping[str, Any]]] = {
    "quick": {
        **_IN_A_QUORUM,
        "training": {**_IN_A_QUORUM["training"], "rounds": 40},
        "privacy": {"sampling_rate": 0.2},
    },
    "quality": {
        **_IN_A_QUORUM,
        "training": {**_IN_A_QUORUM["training"], "rounds": 100},
        "privacy": {"sampling_rate": 0.2},
    },
}


def _defaults_of(tree: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What the recipe of these settings fills in: another schedule where sites share the noise of a sum."""
    privacy = tree.get("privacy", {})
    shared = isinstance(privacy, Mapping) and privacy.get("trust") == "quorum"
    return (_QUORUM if shared else _DEFAULTS)[tree.get("recipe", "quick")]


def with_recipe(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of their ``recipe`` where they say nothing; what is no table is left for validation.

    Raises: ConfigError for a recipe that does not exist.
    """
    name = tree.get("recipe", "quick")
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}", hint=f"there are: {', '.join(RECIPES)}")
    filled = dict(tree)
    for section, defaults in _defaults_of(tree).items():
        given = filled.get(section, {})
        if isinstance(given, Mapping):
            filled[section] = {**defaults, **given}
    return filled


def named_before(tree: Mapping[str, Any]) -> list[str]:
    """The keys that settings name themselves although their recipe has a value for them, as ``section.key``."""
    given = with_recipe(tree)
    defaults = _defaults_of(tree).items()
    return [
        f"{part}.{key}" for part, keys in defaults for key, usual in keys.items() if given[part].get(key) != usual
    ]


def without_schedule(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what their recipe has a value for."""
    defaults = _defaults_of(tree)
    return {
        part: {key: value for key, value in known.items() if key not in defaults[part]}
        if part in defaults
        else known
        for part, known in tree.items()
    }
