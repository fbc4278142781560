"""Trivial baselines on the same steps, weights and metrics as the model: what a model must beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from common.model.batch import Batch, Batcher, Sequences
from common.model.metrics import expected_ranks, mean_over_steps, rank_metrics
from common.tasks.heads import STEP_HEADS
from common.tasks.metric_sums import TOP_K

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
        _cosine(row[known], item[known], len(train.offsets) - 1, items),
        {head: np.bincount(table[:, names.index(STEP_HEADS[head])], minlength=2) for head in CLASSES},
    )


def evaluate_baselines(counts: Counts, holdout: Batcher) -> dict[str, dict[str, float]]:
    """Recall and MRR of each baseline over the hold-out, a consumer's mean over its steps counting once.

    Result: ``{"popularity": {"recall@20": ..., "mrr@20": ...}, ..., "majority": {"event_accuracy": ...}}``; event type
    and category are also guessed to be the same as the last one.
    """
    sums = {name: np.zeros(2) for name in SCORERS}
    guessed = {name: {head: 0.0 for head in CLASSES if head in holdout.heads} for name in GUESSES}
    answered = 0.0
    for batch in holdout.pieces(len(counts.popularity)):
        if batch.steps == 0:
            continue
        known = mean_over_steps(torch.ones(len(batch.step_of_row), 1), batch, "next-item")[:, 0] > 0
        answered += float(known.sum())
        asked = torch.nonzero(batch.targets["next-item"] > 0)[:, 0].numpy()
        last, target = _last_known_item(batch)[asked], batch.targets["next-item"][torch.from_numpy(asked)]
        for name, scorer in SCORERS.items():
            values = torch.zeros(len(batch.step_of_row), 2, dtype=torch.double)
            scores = torch.from_numpy(scorer(counts, batch, asked, last))
            values[asked] = rank_metrics(expected_ranks(scores, target))
            sums[name] += mean_over_steps(values, batch, "next-item").sum(0).numpy()
        for name, guess in GUESSES.items():
            for head in guessed[name]:
                right = (batch.targets[head] == guess(counts, batch, head)).double()[:, None]
                guessed[name][head] += float(mean_over_steps(right, batch, head)[known].sum())
    total = max(answered, 1.0)
    names = (f"recall@{TOP_K}", f"mrr@{TOP_K}")
    result = {n: dict(zip(names, (s / total).tolist(), strict=True)) for n, s in sums.items()}
    for name, rights in guessed.items():
        result[name] = result.get(name, {}) | {CLASSES[head]: right / total for head, right in rights.items()}
    return result


def _popularity(counts: Counts, batch: Batch, asked: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:  # noqa: ARG001
    return np.repeat(counts.popularity[None], len(asked), axis=0)


def _markov(counts: Counts, batch: Batch, asked: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:  # noqa: ARG001
    rows: Floats = counts.transitions[last].toarray()
    rows += BACKOFF * counts.popularity
    return rows


def _item_knn(counts: Counts, batch: Batch, asked: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:  # noqa: ARG001
    rows: Floats = counts.similarity[last].toarray()
    rows += 1e-6 * counts.popularity
    return rows


def _repeat_last(counts: Counts, batch: Batch, asked: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:  # noqa: ARG001
    """Most recent distinct items first, popularity behind them."""
    place = np.full(len(batch.step_of_row), -1)
    place[asked] = np.arange(len(asked))
    scores = np.repeat(counts.popularity[None], len(asked), axis=0)
    rows, items, when = _history(batch)
    wanted = place[rows] >= 0
    # ordered by time: of an item that occurred twice, the later time is written last
    scores[place[rows[wanted]], items[wanted]] = 1.0 + when[wanted]
    return scores


SCORERS: Mapping[str, Callable[[Counts, Batch, NDArray[np.int64], NDArray[np.int64]], Floats]] = {
    "popularity": _popularity,
    "markov": _markov,
    "item-knn": _item_knn,
    "repeat-last": _repeat_last,
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


def _last_known_item(batch: Batch) -> NDArray[np.int64]:
    """The latest known item up to each step, 0 if there was none: ``int64[P]`` of a packed batch."""
    last = np.zeros(len(batch.step_of_row), dtype=np.int64)
    rows, items, _ = _history(batch)
    last[rows] = items
    return last


def _cosine(row: NDArray[np.int64], item: NDArray[np.int64], consumers: int, items: int) -> sparse.csr_matrix:
    ones = np.ones(len(row), dtype=np.float32)
    seen = sparse.csr_matrix((ones, (row, item)), shape=(consumers, items))
    seen.data[:] = 1.0  # duplicates were summed: a consumer counts once per item
    norm = np.sqrt(np.maximum(np.asarray(seen.sum(axis=0)).ravel(), 1.0))
    together = (seen.T @ seen).tocsr()
    scale = sparse.diags(1.0 / norm)
    return sparse.csr_matrix(scale @ together @ scale, dtype=np.float32)
