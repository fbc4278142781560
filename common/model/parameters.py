"""Named tensors <-> one flat float32 vector, and model files (safetensors + JSON, never pickle)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors, save as save_tensors
from torch import Tensor, nn

from common.atomic import write_atomic
from common.errors import BadInputError, VerificationError
from common.model_files import (
    METADATA_FILE,
    WEIGHTS_FILE,
    read_document,
    refuse_personal_file,
    signed_document,
    verify_document,
)
from common.trust import ROSTER_FILE, Identity, Roster

if TYPE_CHECKING:
    from common.model.network import SequenceModel

Vector = NDArray[np.float32]
Reals = TypeVar("Reals", NDArray[np.float32], NDArray[np.float64])


@dataclass(frozen=True)
class Layout:
    """Where each named tensor lies in the flat vector: ``entries[name] = (offset, shape)``, without gaps."""

    entries: Mapping[str, tuple[int, tuple[int, ...]]]

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return sum(math.prod(shape) for _, shape in self.entries.values())

    def digest(self) -> bytes:
        """SHA-256 of names, order and shapes: ``bytes[32]``."""
        text = json.dumps(
            [[n, o, list(s)] for n, (o, s) in self.entries.items()], separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(b"fedcart/layout/1\0" + text.encode()).digest()

    def split(self, vector: Vector) -> dict[str, Vector]:
        """Views of the named tensors in ``vector: float32[d]``. Raises: BadInputError for a wrong length."""
        if vector.shape != (self.size,):
            raise BadInputError(
                f"parameter vector has shape {tuple(vector.shape)}, the model needs ({self.size},)",
                hint="the vector belongs to a model with other settings or another catalogue",
            )
        return {n: vector[o : o + math.prod(s)].reshape(s) for n, (o, s) in self.entries.items()}


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model, in the order of ``named_parameters`` (a tied parameter occurs once)."""
    entries: dict[str, tuple[int, tuple[int, ...]]] = {}
    offset = 0
    for name, parameter in model.named_parameters():
        entries[name] = (offset, tuple(parameter.shape))
        offset += parameter.numel()
    return Layout(entries)


def item_index(model: SequenceModel) -> NDArray[np.int32]:
    """Catalogue row of each coordinate of the flat vector, -1 where it belongs to no item: ``int32[d]``."""
    layout = layout_of(model)
    index = np.full(layout.size, -1, dtype=np.int32)
    for name in model.item_tensors():
        offset, shape = layout.entries[name]
        width = math.prod(shape[1:])
        index[offset : offset + shape[0] * width] = np.repeat(np.arange(shape[0], dtype=np.int32), width)
    return index


class FlatParameters:
    """Ties a model to one flat vector and one flat gradient: its tensors become views of them.

    Afterwards ``vector += step`` moves the model, and ``backward`` fills ``gradient``; optimizer, noise
    and update are operations on flat vectors.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layout = layout_of(model)
        self.vector = torch.empty(self.layout.size)
        self.gradient = torch.zeros(self.layout.size)
        for parameter, (offset, shape) in zip(model.parameters(), self.layout.entries.values(), strict=True):
            place = slice(offset, offset + math.prod(shape))
            self.vector[place] = parameter.detach().reshape(-1)
            parameter.data = self.vector[place].view(shape)
            parameter.grad = self.gradient[place].view(shape)

    def load(self, values: Vector | Tensor) -> None:
        """Overwrite all parameters with ``values: float32[d]``. Raises: BadInputError for a wrong length."""
        if values.shape != tuple(self.vector.shape):
            self.layout.split(np.empty(tuple(values.shape), dtype=np.float32))
        self.vector.numpy()[...] = values

    def numpy(self) -> Vector:
        """A copy of all parameters: ``float32[d]``."""
        return self.vector.numpy().copy()


@dataclass(frozen=True)
class StockedModel:
    """A site's public catalogue as a smaller model that has only its item rows.

    Training the smaller model makes the rules for foreign rows true by construction: they are in no
    softmax, get no noise, stay out of every norm, and are exact zeros in the expanded update. Row 0
    ("no item") is in every smaller model and in no update.

    Shapes: ``rows: int64[V']`` sorted global item ids with 0 first; ``index: int64[d']`` place of each
    local parameter in the global vector of ``size`` parameters; ``lookup: int64[V]`` global id -> local
    id, 0 if not stocked; ``unread: int64[...]`` global places of row 0.
    """

    rows: NDArray[np.int64]
    index: NDArray[np.int64]
    lookup: NDArray[np.int64]
    unread: NDArray[np.int64]
    size: int

    def restrict(self, vector: Vector) -> Vector:
        """Global parameters -> the site's: ``float32[d] -> float32[d']``."""
        return vector[self.index]

    def expand(self, update: Reals) -> Reals:
        """The site's update -> global, zeros elsewhere: ``float[d'] -> float[d]``, in its precision."""
        out: Reals = np.zeros(self.size, dtype=update.dtype)
        out[self.index] = update
        out[self.unread] = 0.0
        return out

    def translate(self, items: NDArray[np.integer]) -> NDArray[np.int32]:
        """Global item ids -> local ones, 0 for an item outside the catalogue."""
        local: NDArray[np.int32] = self.lookup[items].astype(np.int32)
        return local


def item_rows(layout: Layout, item_tensors: tuple[str, ...], mask: NDArray[np.bool_]) -> StockedModel:
    """Build the smaller model's index for a public item mask ``bool[V]`` (row 0 is always kept).

    Raises: BadInputError if the mask has not one entry per item row.
    """
    rows_in_model = layout.entries[item_tensors[0]][1][0]
    if mask.shape != (rows_in_model,):
        raise BadInputError(
            f"item mask has {mask.size} entries, the model has {rows_in_model} item rows",
            hint="use the catalogue that the run was started with",
        )
    keep = np.asarray(mask, dtype=bool).copy()
    keep[0] = True
    rows = np.flatnonzero(keep).astype(np.int64)
    parts, unread = [], []
    for name, (offset, shape) in layout.entries.items():
        place = np.arange(offset, offset + math.prod(shape)).reshape(shape)
        parts.append((place[rows] if name in item_tensors else place).reshape(-1))
        if name in item_tensors:
            unread.append(place[0].reshape(-1))
    lookup = np.zeros(rows_in_model, dtype=np.int64)
    lookup[rows] = np.arange(len(rows))
    return StockedModel(rows, np.concatenate(parts), lookup, np.concatenate(unread), layout.size)


def save_model(
    folder: Path, vector: Vector, layout: Layout, metadata: Mapping[str, Any], coordinator: Identity
) -> None:
    """Write ``model.safetensors`` and ``model.json``, each atomically, the weights first, signed by the coordinator.

    ``metadata`` is public JSON (settings, sizes, round, ...). Raises: BadInputError for a wrong vector.
    """
    tensors = {n: np.ascontiguousarray(t, dtype=np.float32) for n, t in layout.split(vector).items()}
    weights = save_tensors(tensors)
    named = [[n, list(shape)] for n, (_, shape) in layout.entries.items()]
    document = signed_document(weights, named, layout.digest().hex(), metadata, coordinator)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS_FILE, weights)
    write_atomic(folder / METADATA_FILE, document)


def load_model(folder: Path) -> tuple[Vector, Layout, dict[str, Any]]:
    """Read and verify a model folder: parameters ``float32[d]``, their layout, the metadata.

    The signature shows that both files are as the coordinator named in them left them; where a roster lies beside them,
    that it is the roster's coordinator.
    Raises: BadInputError for a missing, damaged or foreign file, a signature that does not hold, or weights that do not
    match the JSON.
    """
    hint = "use a model folder written by fedcart, with both files from the same run"
    for path in (folder, folder / WEIGHTS_FILE):
        refuse_personal_file(path)
    try:
        raw, weights = (folder / METADATA_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read a model in {folder}: {error}", hint=hint) from None
    document = read_document(raw, str(folder / METADATA_FILE))
    _check_signature(folder, document, weights)
    try:
        tensors = load_tensors(weights)
        layout, vector = _join(document["layout"], tensors)
        metadata = dict(document["metadata"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"the model in {folder} is damaged: {error}", hint=hint) from None
    if layout.digest().hex() != document.get("layout_digest"):
        raise BadInputError(f"the model in {folder} has another layout than its digest says", hint=hint)
    return vector, layout, metadata


def check_layout(found: Layout, needed: Layout) -> None:
    """Compare a file's layout with a model's. Raises: BadInputError naming the first difference."""
    if found.digest() == needed.digest():
        return
    for name in sorted({*found.entries, *needed.entries}):
        a, b = found.entries.get(name), needed.entries.get(name)
        if a is None or b is None or a[1] != b[1]:
            raise BadInputError(
                f"parameter {name}: the file has {a and a[1]}, the model needs {b and b[1]}",
                hint="the file was trained with other model settings or another catalogue",
            )
    raise BadInputError("parameters come in another order", hint="the file was written by another version")


def _join(named: list[Any], tensors: Mapping[str, NDArray[Any]]) -> tuple[Layout, Vector]:
    entries: dict[str, tuple[int, tuple[int, ...]]] = {}
    offset = 0
    for name, shape in named:
        if tuple(tensors[name].shape) != tuple(shape) or tensors[name].dtype != np.float32:
            raise ValueError(f"tensor {name} is {tensors[name].dtype}{tensors[name].shape}, not float32{shape}")
        entries[name] = (offset, tuple(shape))
        offset += tensors[name].size
    if len(entries) != len(tensors):
        raise ValueError(f"{len(tensors)} tensors, {len(entries)} named")
    parts = [tensors[n].reshape(-1) for n in entries]
    return Layout(entries), np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _check_signature(folder: Path, document: Mapping[str, Any], weights: bytes) -> None:
    try:
        key = verify_document(document, weights, str(folder / METADATA_FILE))
    except VerificationError as error:
        raise BadInputError(error.message, hint=error.hint) from None
    roster = folder / ROSTER_FILE
    if roster.is_file() and Roster.load(roster).coordinator.public_key != key:
        raise BadInputError(
            f"the model in {folder} is signed by another coordinator than that of the roster beside it"
        )
