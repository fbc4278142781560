"""Metrics as sums over consumers: each consumer adds one bounded vector, so a sum has a public sensitivity.

A consumer's metric is the mean over its steps (as in the training loss), not the last step only: every
consumer counts once whatever its length, and the mean of several steps varies less than one of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.errors import ConfigError
from common.model.batch import Batch
from common.model.heads import ClassHead, ItemHead, RowHead, shifted_exp_
from common.model.network import SequenceModel
from common.model.targets import STEP_HEADS
from common.tasks import INTENT_BINS, LOSS_BOUND, TOP_K, metric_names


def consumer_metrics(model: SequenceModel, batch: Batch) -> NDArray[np.float64]:
    """One bounded vector per consumer: ``float64[B, m]`` in the order of ``metric_names``.

    A consumer without an answer for the first head (too short, nothing known) is a zero vector.
    Guarantee: every coordinate is finite and in [0, 1], whatever the parameters are.
    """
    heads = list(model.settings.heads)
    columns = np.zeros((batch.size, len(metric_names(heads))))
    if batch.steps == 0:
        return columns
    model.eval()
    with torch.no_grad():
        hidden = model.hidden_states(batch)
        loss, parts = hidden.new_zeros(batch.size, 1), []
        for name in heads:
            head = model.heads[name]
            if isinstance(head, RowHead):
                mean, values = _row_metrics(head, model.answers(name, hidden, batch), batch, name)
            else:
                mean, values = _step_metrics(head, hidden, batch, name)
            loss = loss + model.settings.heads[name] * mean
            parts.append(values)
        parts.insert(0, loss / LOSS_BOUND)
    bounded = torch.cat(parts, dim=1).double().nan_to_num(nan=1.0, posinf=1.0, neginf=0.0).clamp(0, 1)
    counted = _has_answer(batch, heads[0])
    columns[:, 0] = 1.0
    columns[:, 1:] = bounded.numpy()
    return columns * counted[:, None]


def expected_ranks(scores: Tensor, target: Tensor, flags: Tensor | None = None) -> Tensor:
    """Rank of the target from 0, the mean over random orders of ties. Shapes: ``[P, C], [P] -> [P]``.

    ``flags``: room for ``[P, C]`` numbers, to be overwritten.
    Guarantee: NaN never helps: a NaN score beats the target, a NaN target comes last.
    """
    wanted = scores.gather(1, target[:, None])
    # 0/1 as floats and a product with ones: four times as fast as a sum of booleans, exact below 2^24 classes
    flags, ones = torch.empty_like(scores) if flags is None else flags, scores.new_ones(scores.shape[1])
    not_above = torch.le(scores, wanted, out=flags) @ ones
    below = torch.lt(scores, wanted, out=flags) @ ones
    ranks = scores.shape[1] - (not_above + below + 1) / 2
    return torch.where(torch.isnan(wanted[:, 0]), torch.full_like(ranks, scores.shape[1]), ranks)


def rank_metrics(ranks: Tensor, k: int = TOP_K) -> Tensor:
    """Recall@k and MRR@k of each step. Shapes: ``[P] -> [P, 2]``."""
    hit = (ranks < k).double()
    return torch.stack([hit, hit / (ranks.double() + 1)], dim=1)


def mean_over_steps(values: Tensor, batch: Batch, head: str) -> Tensor:
    """Weighted sum of step values per consumer. Shapes: ``[P, m] -> [B, m]``."""
    weighted = values.double() * batch.weights[head].reshape(-1, 1)
    return weighted.new_zeros(batch.size, values.shape[1]).index_add(0, batch.consumer_of_row, weighted)


def _has_answer(batch: Batch, head: str) -> NDArray[np.float64]:
    weight = batch.weights[head]
    if head in STEP_HEADS:
        known = torch.zeros(batch.size).index_add(0, batch.consumer_of_row, weight.reshape(-1)) > 0
    else:
        known = weight > 0
    return known.double().numpy()


def _step_metrics(head: nn.Module, hidden: Tensor, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Mean loss and metrics of each consumer from one pass over the logits: ``[B, 1]``, ``[B, m]``."""
    if not isinstance(head, ClassHead):
        raise ConfigError(f"head {name!r} has no metric", hint="add it to consumer_metrics")
    asked = batch.target_steps(name, hidden)
    states, target = asked.hidden.flatten(0, -2), asked.target.reshape(-1)
    loss, right = states.new_empty(len(states), 1), states.new_empty(len(states), 1)
    flags = None
    for piece, logits in head.logits_in_pieces(states, asked.batch):
        if isinstance(head, ItemHead):
            flags = torch.empty_like(logits) if flags is None else flags
            right[piece, 0] = expected_ranks(logits, target[piece], flags[: len(logits)])
        else:
            right[piece, 0] = (logits.argmax(1) == target[piece]).float()
        loss[piece, 0] = _cross_entropy_of(logits, target[piece])
    values = rank_metrics(right[:, 0]) if isinstance(head, ItemHead) else right.double()
    if asked.one_each:
        return loss * asked.weight[:, None], values * asked.weight[:, None]
    return mean_over_steps(loss, batch, name), mean_over_steps(values, batch, name)


def _cross_entropy_of(logits: Tensor, target: Tensor) -> Tensor:
    """Loss of each row, 0 where the target is unknown; the logits are overwritten. Shapes: ``[P, C], [P] -> [P]``."""
    wanted = logits.gather(1, target[:, None])
    most = logits.amax(1, keepdim=True)
    total = shifted_exp_(logits, most) @ logits.new_ones(logits.shape[1])
    loss = total.log_() + (most - wanted)[:, 0]
    return torch.where(target > 0, loss, torch.zeros_like(loss))


def _row_metrics(head: RowHead, values: Tensor, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Loss and metrics of each consumer: ``[B, 1]``, ``[B, m]``."""
    known = batch.weights[name].double()[:, None]
    target = batch.targets[name]
    loss = head.losses(values, target)[:, None] * known
    if head.classes > 1:
        return loss, (values.argmax(1) == target.long()).double()[:, None] * known
    score = torch.sigmoid(values).nan_to_num(0.0)
    place = (score * INTENT_BINS).long().clamp(0, INTENT_BINS - 1) + INTENT_BINS * (target > 0.5).long()
    return loss, functional.one_hot(place, 2 * INTENT_BINS).double() * known
