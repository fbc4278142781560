"""The file of a personal model: one file of its own, readable by its owner only, marked so that nothing sends it.

The mark stands in the file's header (``common.model_files``): whatever the file is called, the server, an export and the
start of a run refuse it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import client.personal.counts as counting
from client.personal.behaviour import Personal
from client.personal.intent import NETWORK, PersonalIntent
from common.atomic import private_folder, write_atomic
from common.errors import BadInputError
from common.model_files import NEVER_LEAVES, is_personal
from common.run import METADATA_FILE
from common.strict_json import one_line

FORMAT, SALES_FORMAT = "fedcart-personal/1", "fedcart-personal-sales/1"
PERSONAL_FILE, VERDICT_FILE, REPORT_FILE = "personal.safetensors", "verdict.json", "verdict.html"
_HINT = "make it again: fedcart personalize"


@dataclass(frozen=True)
class Reference:
    """What is usual at a site: profiles of its own stretches of behaviour, and everybody's habits there.

    Shapes: ``profile: float64[M, K]`` with ``names``; ``habits[feature]: float64[C]``.
    """

    names: tuple[str, ...]
    profile: NDArray[np.float64]
    habits: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class PersonalFile:
    """All that is kept. ``model``: SHA-256 of the ``model.json`` of the shared model that it belongs to."""

    model: str
    personal: Personal
    intent: PersonalIntent | None = None
    reference: Reference | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def personal_folder(home: Path, model: Path) -> Path:
    """Where the personal model on top of a shared one is kept. Raises: BadInputError if there is no such model."""
    return home / "personal" / shared_digest(model)[:16]


def shared_digest(model: Path) -> str:
    """SHA-256 of a shared model's ``model.json``. Raises: BadInputError."""
    folder = model if model.is_dir() else model.parent
    try:
        return hashlib.sha256((folder / METADATA_FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise BadInputError(f"no model in {folder}: {error.strerror}", hint="name a run folder or a kit") from None


def save_personal(kept: PersonalFile, folder: Path) -> Path:
    """Write it, whole or not at all. Raises: WorkFailedError."""
    personal, arrays = kept.personal, dict[str, NDArray[Any]]()
    arrays["network"] = personal.network
    arrays["mask"], arrays["trained"] = personal.mask.astype(np.uint8), personal.trained.astype(np.uint8)
    for head, counts in personal.counts.items():
        arrays |= counting.to_tensors(counts, f"counts.{head}")
    if kept.intent is not None and kept.intent.trees is not None:
        arrays |= kept.intent.trees.to_tensors()
    if kept.reference is not None:
        arrays["reference.profile"] = kept.reference.profile
        arrays |= {f"reference.habits.{name}": values for name, values in kept.reference.habits.items()}
    facts = {
        "format": FORMAT,
        "model": kept.model,
        "base": personal.base,
        "shares": {head: [s.network, s.transitions, s.likeness, s.again] for head, s in personal.shares.items()},
        "intent": kept.intent.kind if kept.intent else "",
        "profile": list(kept.reference.names) if kept.reference else [],
        "facts": dict(kept.facts),
    }
    return _write(arrays, facts, folder)


def save_method(method: str, model: str, facts: Mapping[str, Any], folder: Path) -> Path:
    """Write which forecast a site does best with. Raises: WorkFailedError."""
    return _write({}, {"format": SALES_FORMAT, "model": model, "method": method, "facts": dict(facts)}, folder)


def load_method(path: Path) -> str:
    """Read it. Raises: BadInputError for a file that is damaged, or none."""
    try:
        with safe_open(path, "np") as file:
            facts = json.loads(file.metadata()["facts"])
        if facts["format"] != SALES_FORMAT:
            raise ValueError(f"format {facts['format']!r}")
        return str(facts["method"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} is not a usable personal model: {str(error)[:120]}", hint=_HINT) from None


def _write(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], folder: Path) -> Path:
    tensors = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    content = save(tensors, {"never": NEVER_LEAVES, "facts": one_line(facts)})
    if not is_personal(content):  # the header is longer than the part of it that is looked at
        raise BadInputError("the personal model cannot be marked as one that never leaves", hint="fewer heads")
    private_folder(folder.parent)
    write_atomic(private_folder(folder) / PERSONAL_FILE, content, mode=0o600)
    return folder / PERSONAL_FILE


def load_personal(path: Path) -> PersonalFile:
    """Read it. Raises: BadInputError for a file that is damaged, or none."""
    try:
        with safe_open(path, "np") as file:
            facts = json.loads(file.metadata()["facts"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r}")
        return _opened(facts, arrays)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInputError(f"{path} is not a usable personal model: {str(error)[:120]}", hint=_HINT) from None


def _opened(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> PersonalFile:
    from client.personal.mixture import Shares
    from client.personal.trees import Trees

    shares = {head: Shares(*map(float, parts)) for head, parts in facts["shares"].items()}
    counts = {
        head: counting.from_tensors(arrays, f"counts.{head}")
        for head in shares
        if f"counts.{head}.popularity" in arrays
    }
    mask, trained = (arrays[name].astype(np.bool_) for name in ("mask", "trained"))
    network = np.asarray(arrays["network"], dtype=np.float32)
    intent = reference = None
    if facts["intent"]:
        intent = PersonalIntent(
            facts["intent"], None if facts["intent"] == NETWORK else Trees.from_tensors(arrays)
        )
    if facts["profile"]:
        lead = "reference.habits."
        habits = {name.removeprefix(lead): values for name, values in arrays.items() if name.startswith(lead)}
        reference = Reference(tuple(facts["profile"]), arrays["reference.profile"], habits)
    personal = Personal(str(facts["base"]), network, mask, trained, shares, counts)
    return PersonalFile(str(facts["model"]), personal, intent, reference, dict(facts["facts"]))
