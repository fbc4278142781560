"""Hand-made sequences for the model's tests: small, ragged, with repeats, gaps and empty rows."""

from __future__ import annotations

import numpy as np

from common.data.sequences import ConsumerSequences
from common.model.network import ModelShape, SequenceModel, build_model
from common.run import ModelSettings

NAMES = ("event", "item", "category", "price", "gap", "hour", "weekday", "month")
SIZES = dict(zip(NAMES, (5, 13, 4, 6, 7, 25, 8, 13), strict=True))
SHAPE = ModelShape(SIZES)


def sequences_of(rows: list[list[int]], **columns: list[list[int]]) -> ConsumerSequences:
    """Rows of item ids (and other named columns); the other features follow from the item."""
    lengths = [len(r) for r in rows]
    items = np.array([i for r in rows for i in r], dtype=np.int32)
    table = np.zeros((len(items), len(NAMES)), dtype=np.int32)
    for f, name in enumerate(NAMES):
        flat = [v for r in columns[name] for v in r] if name in columns else None
        table[:, f] = (
            np.array(flat) if flat is not None else items if name == "item" else items % (SIZES[name] - 1) + 1
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    numeric = np.zeros((len(items), 3), dtype=np.float32)
    stamps = np.arange(len(items), dtype=np.int64)
    consumers = np.arange(len(rows), dtype=np.uint64)
    return ConsumerSequences(consumers, offsets, table, numeric, stamps, NAMES)


def random_sequences(consumers: int, longest: int = 9, seed: int = 0) -> ConsumerSequences:
    """Random rows of 0 to ``longest`` events; a fifth of the events has no item."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, consumers)
    total = int(lengths.sum())
    table = np.stack([rng.integers(1, SIZES[n], total) for n in NAMES], axis=1).astype(np.int32)
    table[rng.random(total) < 0.2, 1] = 0
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    numeric = np.zeros((total, 3), dtype=np.float32)
    ids = np.arange(consumers, dtype=np.uint64)
    return ConsumerSequences(ids, offsets, table, numeric, np.arange(total, dtype=np.int64), NAMES)


def small_model(seed: int = 1, **settings: object) -> SequenceModel:
    """A model of width 8 over the tiny feature sizes."""
    return build_model(ModelSettings.model_validate({"dim": 8, "hidden": 8, **settings}), SHAPE, seed)
