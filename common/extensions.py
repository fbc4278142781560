"""Encoders and heads that a program, or a package installed at the site, brings beside our own.

A run's settings name them; where the code comes from is each party's own affair: registered in this process, or declared
by an installed package (entry points ``fedcart.encoders`` and ``fedcart.heads``). Nothing that comes over the network can
name a module.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError
from common.tasks import STEP_HEADS, TASKS

ENCODERS_GROUP, HEADS_GROUP = "fedcart.encoders", "fedcart.heads"
OWN_ENCODERS = ("lstm", "gru")
FEATURES = ("event", "item", "category", "price", "gap", "hour", "weekday", "month")
"""Integer features of an event, in the order in which they are encoded."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

BuildEncoder = Callable[[int, int, int], Any]
"""``(dim, hidden, layers) -> nn.Module``"""


@dataclass(frozen=True)
class Registered:
    """What another process must know to bring the same extensions: names of importable things, no code."""

    encoders: tuple[tuple[str, str], ...] = ()  # (name, "module:attribute")
    heads: tuple[tuple[str, str], ...] = ()  # (name, feature of the next event)


_encoders: dict[str, str] = {}
_heads: dict[str, str] = {}


def register_encoder(name: str, build: BuildEncoder) -> str:
    """Make ``model.encoder = NAME`` mean ``build(dim, hidden, layers)``; returns the name.

    Raises: ConfigError for a name that is taken or no word, or a ``build`` that worker processes cannot import.
    """
    _check_name(name, taken=OWN_ENCODERS)
    _encoders[name] = _place_of(build)
    return name


def register_head(name: str, feature: str) -> str:
    """Make a head known that predicts ``feature`` of the next event by a softmax; returns the name.

    Its metric is ``NAME_accuracy``, with hyphens as underscores. Raises: ConfigError.
    """
    if feature not in FEATURES:
        raise ConfigError(f"no feature named {feature!r} is in an event", hint=f"one of: {', '.join(FEATURES)}")
    own = {*STEP_HEADS, *(head for task in TASKS.values() for head in task.heads)}
    _check_name(name, taken=[known for known in own if known not in _heads])
    if _heads.setdefault(name, feature) != feature:
        raise ConfigError(f"head {name!r} predicts {_heads[name]} already", hint="choose another name")
    STEP_HEADS[name] = feature
    return name


def require_encoder(name: str) -> None:
    """Return if an encoder is known here. Raises: ConfigError."""
    if name not in (*OWN_ENCODERS, *_encoders) and not _installed(ENCODERS_GROUP, name):
        known = ", ".join([*OWN_ENCODERS, *sorted(_encoders)])
        raise ConfigError(
            f"no encoder named {name!r}",
            hint=f"known here: {known}; fedcart.register_encoder, or install the package that brings it",
        )


def require_head(name: str) -> None:
    """Return if a head is known here, after a look at the installed packages. Raises: ConfigError."""
    if name in STEP_HEADS or any(name in task.heads for task in TASKS.values()):
        return
    for point in _installed(HEADS_GROUP, name):
        register_head(name, str(point.load()))
        return
    known = ", ".join(sorted({*STEP_HEADS, *(head for task in TASKS.values() for head in task.heads)}))
    raise ConfigError(f"no head named {name!r}", hint=f"model.heads may name: {known}")


def custom_encoder(name: str) -> BuildEncoder:
    """How a registered or installed encoder is built. Raises: ConfigError."""
    require_encoder(name)
    known = name in _encoders
    build: BuildEncoder = _load(_encoders[name]) if known else _installed(ENCODERS_GROUP, name)[0].load()
    return build


def registered() -> Registered:
    """What this process has registered."""
    return Registered(tuple(_encoders.items()), tuple(_heads.items()))


def take_over(other: Registered) -> None:
    """Know what the process that started this one knows."""
    _encoders.update(other.encoders)
    for name, feature in other.heads:
        register_head(name, feature)


def _installed(group: str, name: str) -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=group, name=name))


def _check_name(name: Any, taken: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a name for an extension", hint="small letters, digits and hyphens only"
        )
    if name in taken:
        raise ConfigError(f"{name!r} is a name of fedcart's own", hint="choose another one")


def _place_of(build: Any) -> str:
    if not callable(build):
        raise ConfigError(
            f"{build!r:.60} builds nothing",
            hint="give a class, or a function of (dim, hidden, layers), not its name",
        )
    place = f"{getattr(build, '__module__', '')}:{getattr(build, '__qualname__', '')}"
    if place.startswith("__main__:") or "<" in place:
        raise ConfigError(
            f"{place.replace(':', '.')} cannot be imported by the processes that train",
            hint="put it into a module of its own beside the script or notebook, and import it from there",
        )
    try:
        same = _load(place) is build
    except (ImportError, AttributeError, ValueError):
        same = False
    if not same:
        raise ConfigError(f"{place} is not what was registered", hint="register a function or class of a module")
    return place


def _load(place: str) -> Any:
    module, _, path = place.partition(":")
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value
