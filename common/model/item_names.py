"""Item rows that begin with what is public about an item: the words of its name.

Items whose names share rare words begin as neighbours, so the tied output layer prefers, from the first round
on, what is like the last event. No consumer is involved: it costs no epsilon, and it helps most where noise
leaves little to learn from (docs/quality.md). Each word has a random direction that follows from the word
alone (random indexing: Kanerva, Kristofersson, Holst 2000), weighted by its rarity in the catalogue.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import ConfigError
from common.model.network import SequenceModel

_WORD = re.compile(r"[^\W_]+")


def name_rows(names: Sequence[str], dim: int) -> NDArray[np.float32]:
    """A unit vector for each name, zero for one without words. Shapes: ``float32[len(names), dim]``.

    Guarantee: follows from the names and ``dim`` only.
    """
    words = [sorted(set(_WORD.findall(name.casefold()))) for name in names]
    used = Counter(word for words_of_row in words for word in words_of_row)
    total = len(names)
    direction = {word: np.log((1 + total) / (1 + count)) * _direction(word, dim) for word, count in used.items()}
    rows = np.zeros((total, dim))
    for i, words_of_row in enumerate(words):
        for word in words_of_row:
            rows[i] += direction[word]
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1.0)).astype(np.float32)


def begin_with_names(model: SequenceModel, names: Sequence[str]) -> None:
    """Give each named item its row, ``model.settings.name_scale`` long; the others keep theirs.

    Shapes: ``names[i]`` belongs to item row ``i + 1``.
    Raises: ConfigError if there are more names than item rows.
    """
    scale = model.settings.name_scale
    if not names or not scale:
        return
    if len(names) >= len(model.item.weight):
        raise ConfigError(f"{len(names)} item names for a model of {len(model.item.weight) - 1} items")
    rows = torch.from_numpy(name_rows(names, model.settings.dim))
    named = rows.abs().sum(1) > 0
    with torch.no_grad():
        model.item.weight[1 : len(names) + 1][named] = scale * rows[named]


def _direction(word: str, dim: int) -> NDArray[np.float64]:
    seed = hashlib.sha256(b"fedcart/word/1\0" + word.encode()).digest()
    return np.random.default_rng(int.from_bytes(seed[:16], "big")).standard_normal(dim)
