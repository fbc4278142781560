"""What will each consumer do next, and will they buy: the shared model over a site's own log."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.personal.intent import logits, own_scores
from client.scoring.binary import best_threshold, binary_metrics
from client.scoring.consumers import chunks
from client.scoring.model import SharedModel
from common.data import ConsumerSequences, value_name
from common.model import (
    INTENT,
    STEP_HEADS,
    Batch,
    Batcher,
    ClassHead,
    ItemHead,
    RowHead,
    RowTargets,
    asked_now,
    whole_rows,
)

_CHUNK = 256
WHAT = {"item": "next-item", "category": "next-category", "event": "next-event"}


@dataclass(frozen=True)
class NextBehaviour:
    """The most probable next values of one feature for each consumer, best first.

    Shapes: ``consumers: uint64[N]``; ``choices: int64[N, K]`` the model's own ids, 0 where fewer than K are
    possible; ``probabilities: float32[N, K]``. Classes of a row head are counted from 1 here.
    """

    what: str
    consumers: NDArray[np.uint64]
    choices: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def available(shared: SharedModel) -> tuple[str, ...]:
    """What the model can say about the next event: of item, category, event."""
    return tuple(what for what, head in WHAT.items() if head in shared.heads)


def answerable(shared: SharedModel) -> tuple[str, ...]:
    """All that can be predicted in classes: what is ``available``, and heads of other tasks and programs by their names."""
    others = (head for head in shared.heads if head not in (*WHAT.values(), INTENT))
    return available(shared) + tuple(others)


def predict_next(
    shared: SharedModel, sequences: ConsumerSequences, what: str, top: int, *, exclude_known: bool = False
) -> NextBehaviour:
    """The ``top`` most probable next items, categories or event types of every consumer, or classes of another head.

    ``sequences`` come from ``shared.sequences``; ``what`` is one of ``answerable``. With ``exclude_known`` items that a
    consumer has had are left out and the rest is scaled to sum to 1. A consumer of whom nothing is known gets what is
    likely for anybody. Raises: BadInputError if the model has no such head.
    """
    name = WHAT.get(what, what)
    shared.need_head(name)
    head = shared.model.heads[name]
    count = min(top, _classes(head))
    choices = np.zeros((len(sequences), count), dtype=np.int64)
    shares = np.zeros((len(sequences), count), dtype=np.float32)
    batcher = Batcher(sequences, (), whole_rows(sequences))
    with torch.no_grad():
        for rows in chunks(len(sequences), _CHUNK):
            batch = batcher.packed(rows)
            scored = (
                row_logits(shared, batch, name) if isinstance(head, RowHead) else last_logits(shared, batch, name)
            )
            if exclude_known and isinstance(head, ItemHead):
                scored[batch.consumer_of_row[batch.seen_rows], batch.seen_items] = float("-inf")
            share, chosen = torch.softmax(scored, dim=1).nan_to_num(0.0).topk(count)
            choices[batch.consumers.numpy()] = torch.where(share > 0, chosen, 0).numpy()
            shares[batch.consumers.numpy()] = share.numpy()
    return NextBehaviour(what, sequences.consumers, choices, shares)


def _classes(head: Any) -> int:
    """How many classes a head chooses from; the first row of its logits is none of them."""
    if isinstance(head, RowHead):
        return max(head.classes, 2)  # of yes and no, one logit
    return int(head.linear.out_features) - 1


def row_logits(shared: SharedModel, batch: Batch, name: str) -> Tensor:
    """Logits of a row head for each consumer, asked behind the last event: ``[B, 1 + classes]``, column 0 is no class.

    A head of one logit has the classes no and yes.
    """
    model = shared.model
    width = model.settings.dim
    hidden = model.hidden_states(batch) if batch.steps else torch.zeros(0, width)
    pooled = model.pooled(hidden, batch) if batch.steps else torch.zeros(batch.size, width)
    head = model.heads[name]
    assert isinstance(head, RowHead)
    values = head.values(pooled)
    if head.classes == 1:
        values = torch.stack([torch.zeros_like(values), values], dim=1)
    return torch.cat([values.new_full((len(values), 1), float("-inf")), values], dim=1)


def last_logits(shared: SharedModel, batch: Batch, name: str) -> Tensor:
    """Logits of a step head behind each consumer's last event: ``[B, classes]``."""
    head = shared.model.heads[name]
    assert isinstance(head, ClassHead)
    if batch.steps == 0:
        return head.logits(torch.zeros(batch.size, head.linear.in_features), _only_last(batch))
    hidden = shared.model.hidden_states(batch)[batch.last_row]  # [B, dim]
    there = (batch.lengths > 0)[:, None]
    return head.logits(hidden * there, _only_last(batch))


def _only_last(batch: Batch) -> Batch:
    """The same batch with one row per consumer, the last one: what is seen is renumbered accordingly."""
    owner = batch.consumer_of_row[batch.seen_rows]
    final = batch.last_row[owner] == batch.seen_rows
    last = batch.category[batch.last_row] if batch.steps else torch.zeros(batch.size, dtype=torch.int64)
    last = torch.where(batch.lengths > 0, last, 0)
    at = batch.last_row
    return replace(
        batch,
        seen_rows=owner[final],
        seen_items=batch.seen_items[final],
        category=last,
        recent=_rows_or_zeros(batch, batch.recent, at),
        last_event=_rows_or_zeros(batch, batch.last_event, at),
    )


def _rows_or_zeros(batch: Batch, values: Tensor | None, rows: Tensor) -> Tensor | None:
    """The rows of a column, zeros for a consumer without steps; None where there is no such column."""
    if values is None or not batch.steps:
        return None if values is None else values.new_zeros(batch.size, *values.shape[1:])
    there = (batch.lengths > 0).view(-1, *[1] * (values.dim() - 1))
    return values[rows] * there


def intent_scores(
    shared: SharedModel, sequences: ConsumerSequences, targets: RowTargets | None = None
) -> NDArray[np.float64]:
    """Probability of a purchase for every row: ``float64[N]``, NaN for a row without events.

    With ``targets`` only their part of each row is read, as in training; else all of it, asked at the latest event.
    Raises: BadInputError for a model without the head.
    """
    shared.need_head(INTENT)
    asked = targets or asked_now(shared.plan.config, sequences)
    own = shared.personal.kept.intent if shared.personal is not None else None
    if own is not None and own.trees is not None and shared.personal is not None:
        return own_scores(own, shared.personal.shared, sequences, asked)
    return np.asarray(1 / (1 + np.exp(-logits(shared.model, sequences, asked))))


@dataclass(frozen=True)
class IntentCheck:
    """How the model does on the site's own past, with the threshold that did best on the other half.

    ``metrics`` and ``trees`` (gradient-boosted trees fitted on the validation half) are measured on the test
    half at their own thresholds. Numbers are the site's own and stay there.
    """

    threshold: float
    validation: int
    test: int
    metrics: dict[str, float]
    trees: dict[str, float] = field(default_factory=dict)
    note: str = ""


def check_intent(
    shared: SharedModel, sequences: ConsumerSequences, targets: RowTargets, key: bytes
) -> IntentCheck:
    """Cut the log as in training, choose the threshold with the best F1 on one half, measure it on the other.

    The halves follow the keyed hash of consumers, so they stay the same from day to day. Without both classes
    in the validation half the threshold is 0.5 and the note says so.
    """
    from common.data import holdout_mask
    from common.model.intent_baselines import boosted_trees, intent_table

    labels = targets.values[INTENT]
    known = np.isfinite(labels)
    half = holdout_mask(sequences.consumers, key, 0.5)
    fit, test = known & ~half, known & half
    scores = intent_scores(shared, sequences, targets)
    if len(np.unique(labels[fit])) < 2:
        which = "no consumer has an answer" if not fit.any() else "all answers are the same"
        note = f"threshold 0.5: {which} in the validation half, so none can be chosen"
        return IntentCheck(0.5, int(fit.sum()), int(test.sum()), {}, note=note)
    threshold = best_threshold(scores[fit], labels[fit])
    table = intent_table(sequences, targets)
    trees = boosted_trees(table[fit], labels[fit], table)
    cut = best_threshold(_cross_fitted(table[fit], labels[fit]), labels[fit])
    return IntentCheck(
        threshold,
        int(fit.sum()),
        int(test.sum()),
        binary_metrics(scores[test], labels[test], threshold),
        binary_metrics(trees[test], labels[test], cut),
    )


def _cross_fitted(table: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of trees on rows that they were not fitted on: two folds."""
    from common.model.intent_baselines import boosted_trees

    scores = np.empty(len(table))
    odd = np.arange(len(table)) % 2 == 1
    for fold in (odd, ~odd):
        scores[fold] = boosted_trees(table[~fold], labels[~fold], table[fold]) if fold.any() else 0.5
    return scores


def class_name(shared: SharedModel, what: str, index: int) -> str:
    """Name of a predicted item, category or event type, or of a class of another head; empty for 0, which is none."""
    if what == "item":
        return shared.item_name(index)
    if what == "category":
        return shared.category_name(index)
    if not index:
        return ""
    head = shared.model.heads[WHAT.get(what, what)]
    if isinstance(head, RowHead):
        return ("no", "yes")[index - 1] if head.classes == 1 else str(index - 1)
    return value_name(shared.spec, "event" if what == "event" else STEP_HEADS[what], index)
