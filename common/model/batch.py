"""``Batch``: some consumers as tensors, in one of two layouts of the same numbers.

PACKED is the fast default: one row per existing step in the order of torch's ``PackedSequence``
(time-major, consumers sorted by descending length), so nothing is spent on padding. PADDED is
``[B, T]`` with zeros behind each row's end, for libraries that hook into batch-first modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.model.rows import RECENT as RECENT, first_occurrence, following, last_known, recent_items
from common.model.targets import STEP_HEADS, RowTargets

Index = NDArray[np.int64]

SCORES_AT_ONCE = 1 << 24  # steps times classes: 64 MB in float32
MOST_AT_ONCE = 256  # consumers


class Sequences(Protocol):
    """What a batch needs of ``ConsumerSequences``: ragged rows of integer features in time order."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First event of each consumer: ``int64[N+1]``."""

    @property
    def integers(self) -> NDArray[np.int32]:
        """Integer features: ``int32[R, F]``, 0 = padding or unknown."""

    @property
    def integer_names(self) -> tuple[str, ...]:
        """Names of the F features."""


@dataclass(frozen=True)
class Asked:
    """M moments at which each of B consumers is asked about a purchase; the last is the one that is judged.

    Shapes: ``rows: int64[B, M]`` row of the last step that may be read (the consumer's own last row where it is
    not asked), ``steps: int64[B, M]`` number of that step, ``targets``, ``weights: float32[B, M]``,
    ``history: float32[B, M, K]``.
    Guarantee: the weights of one consumer sum to 1, or are all 0.
    """

    rows: Tensor
    steps: Tensor
    targets: Tensor
    weights: Tensor
    history: Tensor


@dataclass(frozen=True)
class Batch:
    """B consumers; P = rows of the layout (packed: existing steps; padded: B * T).

    Shapes: ``consumers: int64[B]`` row numbers in the site's sequences, in the order of this batch
    (descending length, zero-length last); ``inputs[feature]``, ``targets[step head]`` and
    ``weights[step head]``: ``[P]`` packed, ``[B, T]`` padded; ``targets[row head]: float32[B]`` with
    ``weights[row head]: float32[B]``; ``valid: bool``, like inputs; ``consumer_of_row``, ``step_of_row``:
    ``int64[P]``; ``batch_sizes: int64[T]`` for packed, else None; ``last_row: int64[B]`` row of each
    consumer's last step (0 where there is none); ``seen_rows``, ``seen_items``: ``int64[K]``, each pair
    says that the item is in the consumer's row up to and including that step, and occurs once. ``category: int64``, like
    inputs: the last known category up to and including each step, 0 if there was none.
    ``target_rows[step head]: int64[B]``: where each consumer is asked once, the row of its only target (its own
    last row, with weight 0, where it has none); empty where every step is asked.
    Guarantee: the weights of one consumer for one step head sum to 1, or are all 0.
    """

    consumers: Tensor
    lengths: Tensor
    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    valid: Tensor
    consumer_of_row: Tensor
    step_of_row: Tensor
    batch_sizes: Tensor | None
    last_row: Tensor
    seen_rows: Tensor
    seen_items: Tensor
    category: Tensor
    asked: Asked | None = None
    target_rows: Mapping[str, Tensor] = field(default_factory=dict)
    recent: Tensor | None = None
    last_event: Tensor | None = None

    @property
    def packed(self) -> bool:
        """True for the packed layout."""
        return self.batch_sizes is not None

    @property
    def size(self) -> int:
        """Number of consumers B, zero-length ones included."""
        return int(self.consumers.shape[0])

    @property
    def steps(self) -> int:
        """Number of existing steps of all consumers."""
        return int(self.lengths.sum())

    def target_steps(self, head: str, hidden: Tensor) -> TargetSteps:
        """What a step head is asked: every step, or the one of each consumer. Shapes: ``hidden`` like inputs."""
        rows, target, weight = self.target_rows.get(head), self.targets[head], self.weights[head]
        if rows is None:
            return TargetSteps(hidden, target, weight, self, one_each=False)
        flat = hidden.reshape(-1, hidden.shape[-1])
        return TargetSteps(
            flat.index_select(0, rows),
            target.reshape(-1)[rows],
            weight.reshape(-1)[rows],
            self._at(rows),
            one_each=True,
        )

    def _at(self, rows: Tensor) -> Batch:
        """What was seen at one row of each consumer, these rows numbered like the consumers."""
        place = torch.full((self.valid.numel(),), -1)
        there = torch.nonzero(self.lengths > 0).flatten()  # a consumer without steps owns no row
        place[rows[there]] = there
        row = place[self.seen_rows]
        last = self.category.reshape(-1)[rows]
        return replace(
            self,
            seen_rows=row[row >= 0],
            seen_items=self.seen_items[row >= 0],
            category=last,
            recent=None if self.recent is None else self.recent[rows],
            last_event=None if self.last_event is None else self.last_event[rows],
        )


@dataclass(frozen=True)
class TargetSteps:
    """Hidden states, targets and weights of the steps at which a head is asked, and the batch as it sees it.

    Shapes: those of the batch, or ``one_each``: ``hidden: [B, dim]``, ``target, weight: [B]``.
    """

    hidden: Tensor
    target: Tensor
    weight: Tensor
    batch: Batch
    one_each: bool


class Batcher:
    """Makes batches of one site's consumers; what can be done once is done in the constructor.

    The input of step t is event t, its target is event t + 1, so a row of L events has L - 1 steps.
    ``row_targets`` shortens rows (``lengths``) and adds targets that hold for a whole row. ``targets`` "last" asks
    step heads at the last step of each row whose target is known, and nowhere else. ``askable: bool[R]``: events that may be
    a target; None: all.
    """

    def __init__(
        self,
        sequences: Sequences,
        heads: Sequence[str] = ("next-item", "next-event"),
        row_targets: RowTargets | None = None,
        targets: Literal["every", "last"] = "every",
        askable: NDArray[np.bool_] | None = None,
    ) -> None:
        self.names = tuple(sequences.integer_names)
        self.table = np.ascontiguousarray(
            sequences.integers, dtype=np.int32
        )  # a batch of it is widened, not all of it
        self.starts = np.asarray(sequences.offsets[:-1], dtype=np.int64)
        events = np.diff(np.asarray(sequences.offsets, dtype=np.int64))
        self.steps: Index = np.maximum(events - 1, 0) if row_targets is None else row_targets.lengths
        self.heads = tuple(h for h in heads if h in STEP_HEADS)
        self.row_targets, self.only_last = row_targets, targets == "last"
        self._next = {head: self._following(STEP_HEADS[head], sequences, askable) for head in self.heads}
        items = self._column("item")
        self._first = first_occurrence(items, sequences.offsets)
        self._category = last_known(self._column("category"), sequences.offsets)
        self._events = self._column("event")
        self._recent = recent_items(items, np.asarray(sequences.offsets))

    def __len__(self) -> int:
        return len(self.steps)

    def _column(self, name: str) -> NDArray[np.int32]:
        """One feature of all events; zeros where there is no such feature."""
        if name not in self.names:
            return np.broadcast_to(np.int32(0), len(self.table))
        return self.table[:, self.names.index(name)]

    def _following(self, name: str, sequences: Sequences, askable: NDArray[np.bool_] | None) -> NDArray[np.int32]:
        column = self._column(name)
        return following(column if askable is None else column * askable, sequences.offsets)

    def _inputs(self, source: Index) -> Iterator[tuple[str, Index]]:
        """Each feature of the events ``source``, as the model takes it."""
        for number, name in enumerate(self.names):
            yield name, self.table[source, number].astype(np.int64)

    def pieces(self, classes: int) -> Iterator[Batch]:
        """All consumers in packed batches, so few at a time that scores of ``classes`` at each step need little memory."""
        wide = max(float(self.steps.mean()), 1.0) * classes if len(self) else 1.0
        size = int(np.clip(SCORES_AT_ONCE / wide, 1, MOST_AT_ONCE))
        for start in range(0, len(self), size):
            yield self.packed(np.arange(start, min(start + size, len(self))))

    def packed(self, rows: Index) -> Batch:
        """Make the fast layout of the consumers ``rows: int64[B]``."""
        consumers, steps = self._sorted(rows)
        longest = int(steps[0]) if len(steps) else 0
        # batch_sizes[t] = consumers with more than t steps; steps is descending
        sizes = len(steps) - np.searchsorted(steps[::-1], np.arange(longest), side="right")
        begin = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        step = np.repeat(np.arange(longest), sizes)
        who = np.arange(begin[-1]) - np.repeat(begin[:-1], sizes)
        last = np.where(steps > 0, begin[np.maximum(steps - 1, 0)] + np.arange(len(steps)), 0)
        rows_of = _Rows(self.starts[consumers][who] + step, who, step, begin)
        last_known = self._last_known(rows_of, len(steps))
        seen_rows, seen_items = self._seen(rows_of, steps, last_known.get("next-item"))
        targets, weights = self._targets(consumers, rows_of, last_known, None)
        return Batch(
            consumers=torch.from_numpy(consumers),
            lengths=torch.from_numpy(steps),
            inputs={name: torch.from_numpy(values) for name, values in self._inputs(rows_of.source)},
            targets=targets,
            weights=weights,
            valid=torch.ones(len(who), dtype=torch.bool),
            consumer_of_row=torch.from_numpy(who),
            step_of_row=torch.from_numpy(step),
            batch_sizes=torch.from_numpy(sizes.astype(np.int64)),
            last_row=torch.from_numpy(last.astype(np.int64)),
            seen_rows=torch.from_numpy(seen_rows),
            seen_items=torch.from_numpy(seen_items),
            category=torch.from_numpy(self._category[rows_of.source].astype(np.int64)),
            asked=self._asked(consumers, lambda step: begin[step] + np.arange(len(steps))[:, None]),
            target_rows=_layout_rows(last_known, np.arange(len(who)), last),
            recent=torch.from_numpy(self._recent[rows_of.source].astype(np.int64)),
            last_event=torch.from_numpy(self._events[rows_of.source].astype(np.int64)),
        )

    def padded(self, rows: Index) -> Batch:
        """Make the batch-first layout of the consumers ``rows: int64[B]``; same order as ``packed``."""
        consumers, steps = self._sorted(rows)
        b, t = len(steps), int(steps[0]) if len(steps) else 0
        valid = np.arange(t) < steps[:, None]  # [B, T]
        who, step = np.nonzero(valid)
        rows_of = _Rows(self.starts[consumers][who] + step, who, step, None)
        place = who * t + step
        inputs = {}
        for name, values in self._inputs(rows_of.source):
            inputs[name] = torch.from_numpy(_scatter(values, (place, b, t)))
        own = np.arange(b) * t + np.maximum(steps - 1, 0)
        last_known = self._last_known(rows_of, b)
        seen_rows, seen_items = self._seen(rows_of, steps, last_known.get("next-item"), width=t)
        targets, weights = self._targets(consumers, rows_of, last_known, (place, b, t))
        return Batch(
            consumers=torch.from_numpy(consumers),
            lengths=torch.from_numpy(steps),
            inputs=inputs,
            targets=targets,
            weights=weights,
            valid=torch.from_numpy(valid),
            consumer_of_row=torch.arange(b).repeat_interleave(t),
            step_of_row=torch.arange(t).repeat(b),
            batch_sizes=None,
            last_row=torch.from_numpy(own),
            seen_rows=torch.from_numpy(seen_rows),
            seen_items=torch.from_numpy(seen_items),
            category=torch.from_numpy(_scatter(self._category[rows_of.source].astype(np.int64), (place, b, t))),
            asked=self._asked(consumers, lambda step: np.arange(b)[:, None] * t + step),
            target_rows=_layout_rows(last_known, place, own),
        )

    def _last_known(self, rows_of: _Rows, consumers: int) -> dict[str, Index]:
        """Where each consumer is asked once: number of the existing step, -1 for none; ``int64[B]`` per step head."""
        last: dict[str, Index] = {}
        for head in self.heads if self.only_last else ():
            known = np.flatnonzero(self._next[head][rows_of.source] > 0)
            last[head] = np.full(consumers, -1)
            last[head][rows_of.who[known]] = known  # a consumer's steps are in time order: the last one stays
        return last

    def _sorted(self, rows: Index) -> tuple[Index, Index]:
        rows = np.asarray(rows, dtype=np.int64)
        order = np.argsort(-self.steps[rows], kind="stable")
        return rows[order], self.steps[rows][order]

    def _targets(
        self,
        consumers: Index,
        rows_of: _Rows,
        asked: Mapping[str, Index],
        padded: tuple[Index, int, int] | None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        targets: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for head in self.heads:
            target = self._next[head][rows_of.source].astype(np.int64)
            if head in asked:
                kept = asked[head][asked[head] >= 0]
                only = np.zeros_like(target)
                only[kept] = target[kept]
                target = only
            count = np.bincount(rows_of.who, weights=target > 0, minlength=len(consumers))
            weight = ((target > 0) / np.maximum(count, 1)[rows_of.who]).astype(np.float32)
            targets[head] = torch.from_numpy(target if padded is None else _scatter(target, padded))
            weights[head] = torch.from_numpy(weight if padded is None else _scatter(weight, padded))
        if self.row_targets is not None:
            for head, values in self.row_targets.values.items():
                targets[head] = torch.from_numpy(values[consumers].astype(np.float32))
                known = np.isfinite(values[consumers]) & (self.steps[consumers] > 0)
                weights[head] = torch.from_numpy(known.astype(np.float32))
                targets[head].nan_to_num_(0.0)
        return targets, weights

    def _asked(self, consumers: Index, rows_of_steps: Callable[[Index], Index]) -> Asked | None:
        """The moments at which these consumers are asked; ``rows_of_steps: int64[B, M] -> int64[B, M]``."""
        asks = None if self.row_targets is None else self.row_targets.asks
        if asks is None:
            return None
        steps = asks.steps[consumers]
        values = asks.values[consumers]
        known = np.isfinite(values) & (steps >= 0)
        weights = known / np.maximum(known.sum(axis=1, keepdims=True), 1)
        # a consumer's own last row: what is not asked must not read another consumer, not even with weight 0
        own = np.maximum(np.where(steps >= 0, steps, self.steps[consumers][:, None] - 1), 0)
        return Asked(
            rows=torch.from_numpy(np.where(self.steps[consumers][:, None] > 0, rows_of_steps(own), 0)),
            steps=torch.from_numpy(own),
            targets=torch.from_numpy(np.nan_to_num(values).astype(np.float32)),
            weights=torch.from_numpy(weights.astype(np.float32)),
            history=torch.from_numpy(asks.history[consumers]),
        )

    def _seen(self, rows_of: _Rows, steps: Index, asked: Index | None, width: int = 0) -> tuple[Index, Index]:
        """List for every first sight of an item all later steps of that consumer that are asked: no pair twice."""
        new = np.flatnonzero(self._first[rows_of.source])
        if asked is not None:  # only the one step of each consumer, if it is not earlier
            new = new[asked[rows_of.who[new]] >= 0]
            new = new[rows_of.step[new] <= rows_of.step[asked[rows_of.who[new]]]]
        who, step = rows_of.who[new], rows_of.step[new]
        item = self._column("item")[rows_of.source[new]].astype(np.int64)
        if asked is not None:
            last = rows_of.step[asked[who]]
            return (who * width + last if rows_of.begin is None else rows_of.begin[last] + who), item
        repeat = steps[who] - step
        later = np.arange(repeat.sum()) - np.repeat(np.cumsum(repeat) - repeat, repeat) + np.repeat(step, repeat)
        who = np.repeat(who, repeat)
        rows = who * width + later if rows_of.begin is None else rows_of.begin[later] + who
        return rows.astype(np.int64), np.repeat(item, repeat)


@dataclass(frozen=True)
class _Rows:
    """Existing steps of a batch: event number, consumer in the batch, step, first row of each step."""

    source: Index
    who: Index
    step: Index
    begin: Index | None


def _layout_rows(asked: Mapping[str, Index], layout: Index, own: Index) -> dict[str, Tensor]:
    """Rows of the layout for numbers of existing steps; a consumer's ``own`` row where there is none."""
    columns = {}
    for head, numbers in asked.items():
        rows = own.copy()
        rows[numbers >= 0] = layout[numbers[numbers >= 0]]
        columns[head] = torch.from_numpy(rows)
    return columns


def _scatter(values: NDArray[np.generic], padded: tuple[Index, int, int]) -> NDArray[np.generic]:
    place, b, t = padded
    flat = np.zeros(b * t, dtype=values.dtype)
    flat[place] = values
    return flat.reshape(b, t)
