"""Trivial baselines on the same steps, weights and metrics as the model: what a model must beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.model.batch import Batch, Batcher, Sequences
from common.model.metrics import mean_over_steps, rank_metrics
from common.tasks import STEP_HEADS, TOP_K

if TYPE_CHECKING:
    from scipy import sparse

BACKOFF = 2.0  # pseudo-counts of popularity in each Markov row
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Counts:
    """What the baselines learn: all of it counts over training consumers.

    Shapes: ``popularity: float32[V]`` share of each item; ``transitions: csr[V, V]`` item -> next item;
    ``similarity: csr[V, V]`` cosine of the items' consumers; ``classes[head]: int64[C]`` how often each event type or
    category occurs.
    """

    popularity: Floats
    transitions: sparse.csr_matrix
    similarity: sparse.csr_matrix
    classes: Mapping[str, NDArray[np.int64]]


def fit(train: Sequences, items: int) -> Counts:
    """Count popularity, transitions and co-occurrence in the training rows of ``items`` catalogue rows."""
    from scipy import sparse

    table, names = np.asarray(train.integers), list(train.integer_names)
    item = table[:, names.index("item")].astype(np.int64)
    row = np.repeat(np.arange(len(train.offsets) - 1), np.diff(train.offsets))
    known = np.flatnonzero(item > 0)
    popularity = np.bincount(item[known], minlength=items).astype(np.float32)
    pairs = known[:-1][row[known[1:]] == row[known[:-1]]], known[1:][row[known[1:]] == row[known[:-1]]]
    ones = np.ones(len(pairs[0]), dtype=np.float32)
    transitions = sparse.csr_matrix((ones, (item[pairs[0]], item[pairs[1]])), shape=(items, items))
    return Counts(
        popularity / max(float(popularity.sum()), 1.0),
        transitions,
        cosine(row[known], item[known], len(train.offsets) - 1, items),
        {head: np.bincount(table[:, names.index(STEP_HEADS[head])], minlength=2) for head in CLASSES},
    )


class Steps(NamedTuple):
    """The steps of a hold-out whose next item is known. Shapes: ``[P]`` each.

    ``last``: the latest known item, 0 if there was none; ``weight``: of the step in its consumer's mean; ``recent``: the
    target's rank if the items that were seen come first, the latest of them before all, and popular ones behind.
    """

    last: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: NDArray[np.float64]
    recent: NDArray[np.float64]


_NO_STEPS = Steps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


def evaluate_baselines(counts: Counts, holdout: Batcher) -> dict[str, dict[str, float]]:
    """Recall and MRR of each baseline over the hold-out, a consumer's mean over its steps counting once.

    Result: ``{"popularity": {"recall@20": ..., "mrr@20": ...}, ..., "majority": {"event_accuracy": ...}}``; event type
    and category are also guessed to be the same as the last one.
    """
    guessed = {name: {head: 0.0 for head in CLASSES if head in holdout.heads} for name in GUESSES}
    answered, parts = 0.0, [_NO_STEPS]
    for batch in holdout.pieces(len(counts.popularity)):
        if batch.steps == 0:
            continue
        known = mean_over_steps(torch.ones(len(batch.step_of_row), 1), batch, "next-item")[:, 0] > 0
        answered += float(known.sum())
        parts.append(asked_steps(counts, batch))
        for name, guess in GUESSES.items():
            for head in guessed[name]:
                right = (batch.targets[head] == guess(counts, batch, head)).double()[:, None]
                guessed[name][head] += float(mean_over_steps(right, batch, head)[known].sum())
    total, steps = max(answered, 1.0), Steps(*map(np.concatenate, zip(*parts, strict=True)))
    result: dict[str, dict[str, float]] = {}
    for name, ranks_of in RANKS.items():
        means = steps.weight @ rank_metrics(torch.from_numpy(ranks_of(counts, steps))).numpy() / total
        result[name] = dict(zip((f"recall@{TOP_K}", f"mrr@{TOP_K}"), means.tolist(), strict=True))
    for name, rights in guessed.items():
        result[name] = result.get(name, {}) | {CLASSES[head]: right / total for head, right in rights.items()}
    return result


def asked_steps(counts: Counts, batch: Batch) -> Steps:
    """What the baselines read of a packed batch."""
    asked = torch.nonzero(batch.targets["next-item"] > 0)[:, 0].numpy()
    target, weight = batch.targets["next-item"].numpy()[asked], batch.weights["next-item"].numpy()[asked]
    place = np.full(len(batch.step_of_row), -1)
    place[asked] = np.arange(len(asked))
    rows, items, when = _history(batch)
    last = np.zeros(len(batch.step_of_row), dtype=np.int64)
    last[rows] = items
    wanted = np.flatnonzero(place[rows] >= 0)[::-1]
    pair = place[rows[wanted]] * len(counts.popularity) + items[wanted]
    latest = wanted[np.unique(pair, return_index=True)[1]]  # of an item that occurred twice, the later time
    recent = _recency_ranks(counts.popularity, target, place[rows[latest]], items[latest], when[latest])
    return Steps(last[asked], target, weight.astype(np.float64), recent)


def _recency_ranks(
    popularity: Floats,
    target: NDArray[np.int64],
    row: NDArray[np.int64],
    item: NDArray[np.int64],
    when: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Ranks by the latest time of each item seen (``row``, ``item``, ``when``), those never seen by popularity behind."""
    seen = np.full(len(target), -1)
    own = item == target[row]
    seen[row[own]] = when[own]
    later = np.bincount(row, weights=when > seen[row], minlength=len(target))
    # a seen item stands before an unseen target, wherever popularity has it
    least = popularity[target][row]
    moved = 1.0 - (popularity[item] > least) - 0.5 * (popularity[item] == least)
    unseen = _ranks(popularity, target) + np.bincount(row, weights=moved, minlength=len(target))
    return np.where(seen >= 0, later, unseen)


def _ranks(scores: Floats, target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rank of each target from 0, the mean over random orders of ties. Shapes: ``float32[C], int64[P] -> float64[P]``."""
    ordered, wanted = np.sort(scores), scores[target]
    at_most, below = np.searchsorted(ordered, wanted, "right"), np.searchsorted(ordered, wanted, "left")
    return np.asarray(len(scores) - (at_most + below + 1) / 2)


def _ranks_on_top(base: Floats, more: sparse.csr_matrix, steps: Steps) -> NDArray[np.float64]:
    """Ranks by a base and, on top of it, the row of ``more`` that belongs to the last item; sorted once per item."""
    ranks, order = np.zeros(len(steps.last)), np.argsort(steps.last, kind="stable")
    ends, scores = more.indptr.tolist(), np.empty_like(base)
    for group in np.split(order, np.flatnonzero(np.diff(steps.last[order])) + 1):
        if len(group):
            item = int(steps.last[group[0]])
            row = slice(ends[item], ends[item + 1])  # asking scipy for a row costs more than sorting it
            scores[:] = base
            scores[more.indices[row]] += more.data[row]
            ranks[group] = _ranks(scores, steps.target[group])
    return ranks


RANKS: Mapping[str, Callable[[Counts, Steps], NDArray[np.float64]]] = {
    "popularity": lambda counts, steps: _ranks(counts.popularity, steps.target),
    "markov": lambda counts, steps: _ranks_on_top(BACKOFF * counts.popularity, counts.transitions, steps),
    "item-knn": lambda counts, steps: _ranks_on_top(
        np.float32(1e-6) * counts.popularity, counts.similarity, steps
    ),
    "repeat-last": lambda _, steps: steps.recent,
}


def _majority(counts: Counts, batch: Batch, head: str) -> torch.Tensor:  # noqa: ARG001
    return torch.tensor(int(counts.classes[head][1:].argmax()) + 1)


def _same_again(counts: Counts, batch: Batch, head: str) -> torch.Tensor:  # noqa: ARG001
    return batch.category if head == "next-category" else batch.inputs[STEP_HEADS[head]]


CLASSES = {"next-event": "event_accuracy", "next-category": "category_accuracy"}
GUESSES: Mapping[str, Callable[[Counts, Batch, str], torch.Tensor]] = {
    "majority": _majority,
    "repeat-last": _same_again,
}


def _history(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Triples (row of the batch, item seen up to it, step when), ordered by step: ``int64[K]`` each."""
    item, step = batch.inputs["item"].numpy(), batch.step_of_row.numpy()
    who, lengths = batch.consumer_of_row.numpy(), batch.lengths.numpy()
    sizes = np.asarray(batch.batch_sizes)
    begin = np.concatenate([[0], np.cumsum(sizes)])
    seen = np.flatnonzero(item > 0)
    repeat = lengths[who[seen]] - step[seen]
    later = np.arange(repeat.sum()) - np.repeat(np.cumsum(repeat) - repeat, repeat) + np.repeat(step[seen], repeat)
    return (
        begin[later] + np.repeat(who[seen], repeat),
        np.repeat(item[seen], repeat),
        np.repeat(step[seen], repeat),
    )


def cosine(row: NDArray[np.int64], item: NDArray[np.int64], consumers: int, items: int) -> sparse.csr_matrix:
    """Cosine of the consumers of each two items: ``csr[items, items]``. ``row``, ``item``: pairs that occurred."""
    from scipy import sparse

    ones = np.ones(len(row), dtype=np.float32)
    seen = sparse.csr_matrix((ones, (row, item)), shape=(consumers, items))
    seen.data[:] = 1.0  # duplicates were summed: a consumer counts once per item
    norm = np.sqrt(np.maximum(np.asarray(seen.sum(axis=0)).ravel(), 1.0))
    together = (seen.T @ seen).tocsr()
    scale = sparse.diags(1.0 / norm)
    return sparse.csr_matrix(scale @ together @ scale, dtype=np.float32)
