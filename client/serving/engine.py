"""The model as plain arrays: one event at a time without torch, which takes ten times as long for so little.

state, read = engine.step(features, state)        a recurrent step and the residual stream behind it
chances = engine.chances("next-item", read, seen)   what comes next, and which part of it comes from where
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_LEAST = np.float32(1e-30)  # as in the personal mixture: what gives a class nothing
MODEL = "model"


@dataclass(frozen=True)
class Seen:
    """What heads are told of a consumer beside the residual stream. Shapes: ``items: int64[K]``, repeats allowed;
    ``latest``: the last three known items, the newest first, 0 where there is none."""

    items: NDArray[np.int64]
    latest: tuple[int, int, int]
    category: int
    event: int


class Counts(Protocol):
    """Own counts, as ``client.personal.counts.OwnCounts`` answers."""

    def after(self, last: NDArray[np.int64]) -> Floats:
        """Shapes: ``int64[P] -> float32[P, C]``."""

    def alike(self, recent: NDArray[np.int64]) -> Floats:
        """Shapes: ``int64[P, A] -> float32[P, C]``."""

    def once_more(self, seen: tuple[NDArray[np.int64], NDArray[np.int64]], rows: int) -> Floats:
        """Shapes: ``float32[rows, C]``."""


@dataclass(frozen=True)
class Own:
    """The mixture of a personal model: weights of the network and of each kind of counts, which sum to 1."""

    counts: Counts
    shares: Mapping[str, float]  # model, transitions, likeness, again
    barred: NDArray[np.bool_] | None


@dataclass(frozen=True)
class StepHead:
    """A softmax over one feature. Shapes: ``weight: [C, dim]``, ``bias: [C]``. ``copies``: "item", "category" or ""."""

    weight: Floats
    bias: Floats | None
    copies: str
    bonus: float
    own: Own | None = None


@dataclass(frozen=True)
class RowAnswer:
    """A logit of the whole row. Shapes: ``weight: [dim]``, ``history: [K]`` or None."""

    weight: Floats
    bias: float
    history: Floats | None


@dataclass(frozen=True)
class Chances:
    """Probability of each class, ``shares: float32[C]`` summing to 1, and its parts by origin (one: the model alone)."""

    shares: Floats
    parts: Mapping[str, Floats]


@dataclass(frozen=True)
class Layer:
    """One recurrent layer. Shapes: ``inner: [G * H, I]``, ``outer: [G * H, H]``, biases ``[G * H]``; G 4 (LSTM) or 3 (GRU)."""

    inner: Floats
    outer: Floats
    inner_bias: Floats
    outer_bias: Floats


@dataclass(frozen=True)
class Recurrence:
    """Embeddings and encoder. ``kind``: lstm or gru. ``attention``: weight and bias of the score of a step."""

    items: Floats
    context: Mapping[str, Floats]
    scale: float
    kind: str
    layers: tuple[Layer, ...]
    projection: Floats | None
    attention: tuple[Floats, float] | None


class Engine:
    """Answers from arrays. A consumer's state is one row: ``float32[state_size]``.

    It holds the recurrent state and, with attention pooling, the running sum that the softmax over steps needs.
    """

    def __init__(self, net: Recurrence, heads: Mapping[str, StepHead], intent: RowAnswer | None) -> None:
        self.net, self.heads, self.intent = net, heads, intent
        self.width = net.layers[0].outer.shape[1]
        self._kept = 2 if net.kind == "lstm" else 1
        self._recurrent = self._kept * len(net.layers) * self.width
        self.dim = net.items.shape[1]
        self.state_size = self._recurrent + (self.dim + 2 if net.attention is not None else 0)

    def first(self) -> Floats:
        """The state before the first event."""
        state = np.zeros(self.state_size, dtype=np.float32)
        if self.net.attention is not None:
            state[-1] = -1e30
        return state

    def _embedded(self, features: Mapping[str, int]) -> Floats:
        net, item = self.net, features["item"]
        x = net.items[item].copy() if item else np.zeros(self.dim, dtype=np.float32)
        if net.context:
            total: Floats = sum(table[features[name]] for name, table in net.context.items())
            x += np.float32(net.scale) * total
        return x

    def step(self, features: Mapping[str, int], state: Floats) -> tuple[Floats, Floats]:
        """The state behind an event, and the residual stream there: ``[state_size]``, ``[dim]``."""
        x = self._embedded(features)
        layers, width = len(self.net.layers), self.width
        before = state[: self._recurrent].reshape(self._kept, layers, width)
        after = np.empty_like(state)
        behind = after[: self._recurrent].reshape(self._kept, layers, width)
        inner = x
        for number, layer in enumerate(self.net.layers):
            if self.net.kind == "lstm":
                behind[0, number], behind[1, number] = _lstm(layer, inner, before[0, number], before[1, number])
            else:
                behind[0, number] = _gru(layer, inner, before[0, number])
            inner = behind[0, number]
        read = x + (inner if self.net.projection is None else self.net.projection @ inner)
        if self.net.attention is not None:
            self._attend(read, state[self._recurrent :], after[self._recurrent :])
        return after, read

    def read(self, features: Mapping[str, int], state: Floats) -> Floats:
        """The residual stream behind the event that led to a state: it need not be kept."""
        top = state[: self._recurrent].reshape(self._kept, -1, self.width)[0, -1]
        behind: Floats = self._embedded(features)
        behind += top if self.net.projection is None else self.net.projection @ top
        return behind

    def _attend(self, read: Floats, before: Floats, after: Floats) -> None:
        """A softmax over steps as a running sum: weighted residual streams, total weight, largest score."""
        weight, bias = self.net.attention or (read, 0.0)
        score = np.float32(weight @ read + bias)
        top = max(before[-1], score)
        old, new = np.exp(before[-1] - top), np.exp(score - top)
        after[:-2] = old * before[:-2] + new * read
        after[-2], after[-1] = old * before[-2] + new, top

    def intent_logit(self, read: Floats, state: Floats, history: Floats) -> float:
        """Logit of a purchase. Shapes: ``history: float32[K]``."""
        assert self.intent is not None
        pooled = read if self.net.attention is None else state[self._recurrent : -2] / state[-2]
        value = float(self.intent.weight @ pooled) + self.intent.bias
        return value + (float(self.intent.history @ history) if self.intent.history is not None else 0.0)

    def logits(self, name: str, read: Floats, seen: Seen) -> Floats:
        """The network's logits, copy bonus included, class 0 barred: ``float32[C]``."""
        head = self.heads[name]
        found = head.weight @ read
        if head.bias is not None:
            found += head.bias
        if head.copies == "item" and len(seen.items):
            found[seen.items] += np.float32(head.bonus)  # an item that is named twice is assigned twice, not added
        elif head.copies == "category":
            found[seen.category] += np.float32(head.bonus)
        found[0] = -np.inf
        return found

    def nats(self, name: str, read: Floats, seen: Seen, target: int) -> float:
        """How surprising a value of a head's feature is; NaN for 0, which is none."""
        if not target:
            return float("nan")
        if self.heads[name].own is None:
            logits = self.logits(name, read, seen)
            top = logits.max()
            return float(np.log(np.exp(logits - top).sum()) - (logits[target] - top))
        return -float(np.log(self.chances(name, read, seen).shares[target]))

    def chances(self, name: str, read: Floats, seen: Seen) -> Chances:
        """Probability of every class of a head, with its parts."""
        head, logits = self.heads[name], self.logits(name, read, seen)
        own = head.own
        if own is not None and own.barred is not None:
            logits[own.barred] = -np.inf
        logits -= logits.max()
        shares = np.exp(logits, out=logits)
        shares /= shares.sum()
        if own is None or own.shares[MODEL] == 1.0:
            return Chances(shares, {MODEL: shares})
        parts = {MODEL: shares * np.float32(own.shares[MODEL])}
        parts |= {kind: np.float32(own.shares[kind]) * table for kind, table in _counted(own, head, seen).items()}
        total = np.maximum(sum(parts.values()), _LEAST)
        total[0] = 0.0
        whole = total.sum()
        return Chances(total / whole, {kind: part / whole for kind, part in parts.items()})


def _counted(own: Own, head: StepHead, seen: Seen) -> dict[str, Floats]:
    latest = np.array([seen.latest if head.copies == "item" else _context(head, seen)], dtype=np.int64)
    found: dict[str, Floats] = {}
    if own.shares["transitions"]:
        found["transitions"] = own.counts.after(latest[:, 0])[0]
    if own.shares["likeness"]:
        found["likeness"] = own.counts.alike(latest)[0]
    if own.shares["again"]:
        items = np.unique(seen.items)
        found["again"] = own.counts.once_more((np.zeros(len(items), dtype=np.int64), items), 1)[0]
    return found


def _context(head: StepHead, seen: Seen) -> tuple[int]:
    return (seen.category if head.copies == "category" else seen.event,)


def _sigmoid(x: Floats) -> Floats:
    half: Floats = np.tanh(x * np.float32(0.5))  # does not overflow
    half += 1
    half *= np.float32(0.5)
    return half


def _lstm(layer: Layer, x: Floats, hidden: Floats, cell: Floats) -> tuple[Floats, Floats]:
    width = len(hidden)
    z = layer.inner @ x + layer.inner_bias + layer.outer @ hidden + layer.outer_bias
    gates = _sigmoid(z)
    cell = gates[width : 2 * width] * cell + gates[:width] * np.tanh(z[2 * width : 3 * width])
    return gates[3 * width :] * np.tanh(cell), cell


def _gru(layer: Layer, x: Floats, hidden: Floats) -> Floats:
    width = len(hidden)
    inner, outer = layer.inner @ x + layer.inner_bias, layer.outer @ hidden + layer.outer_bias
    gates = _sigmoid(inner[: 2 * width] + outer[: 2 * width])
    new = np.tanh(inner[2 * width :] + gates[:width] * outer[2 * width :])
    kept: Any = gates[width:] * hidden
    return np.asarray((1 - gates[width:]) * new + kept, dtype=np.float32)
