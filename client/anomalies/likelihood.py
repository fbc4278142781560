"""How surprised the shared model is by each event: negative log-likelihood of every step head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from client.scoring.model import SharedModel
from common.data import ConsumerSequences
from common.errors import BadInputError
from common.model import STEP_HEADS, Batch, Batcher, ClassHead, whole_rows

_CELLS = 20_000_000  # of the largest table of logits


@dataclass(frozen=True)
class Surprise:
    """Negative log-likelihood of every event under the model, from the events before it.

    Shapes: ``nats: float32[R, H]`` in the order of ``heads``; NaN for the first event of a row and where an
    event has no value of that head (a login has no item). ``hidden: float32[R, dim]`` is the residual stream
    behind each event, which the literature feeds to a detector as it is.
    """

    heads: tuple[str, ...]
    nats: NDArray[np.float32]
    hidden: NDArray[np.float32]


def surprise(shared: SharedModel, sequences: ConsumerSequences) -> Surprise:
    """Score every event of every row. Raises: BadInputError for a model without a head of the next behaviour."""
    heads = tuple(name for name in shared.heads if name in STEP_HEADS)
    if not heads:
        raise BadInputError(
            f"this model does not predict behaviour, it was trained for: {', '.join(shared.heads)}",
            hint="use a model with the heads next-event, next-category or next-item",
        )
    nats = np.full((len(sequences.timestamps), len(heads)), np.nan, dtype=np.float32)
    hidden = np.zeros((len(sequences.timestamps), shared.model.settings.dim), dtype=np.float32)
    batcher = Batcher(sequences, heads, whole_rows(sequences))
    with torch.no_grad():
        for rows in _even_chunks(sequences.lengths, shared.model.shape.sizes["item"]):
            batch = batcher.packed(rows)
            if batch.steps:
                _score(shared, batch, (sequences.offsets, heads), (nats, hidden))
    return Surprise(heads, nats, hidden)


def _score(
    shared: SharedModel,
    batch: Batch,
    known: tuple[NDArray[np.int64], tuple[str, ...]],
    into: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    offsets, heads = known
    nats, hidden = into
    states = shared.model.hidden_states(batch)
    source = offsets[batch.consumers.numpy()[batch.consumer_of_row.numpy()]] + batch.step_of_row.numpy()
    hidden[source] = states.numpy()
    for column, name in enumerate(heads):
        head = shared.model.heads[name]
        assert isinstance(head, ClassHead)
        target = batch.targets[name]
        share = torch.log_softmax(head.logits(states, batch), dim=1)
        loss = -share.gather(1, target[:, None])[:, 0]
        asked = (target > 0).numpy()
        nats[source[asked] + 1, column] = loss.numpy()[asked]  # the step before predicts this event


def _even_chunks(lengths: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """Rows in pieces whose table of logits stays within ``_CELLS``; long rows first, so little is padded."""
    order = np.argsort(-lengths, kind="stable")
    budget = max(1, _CELLS // width)
    piece = np.cumsum(lengths[order]) // budget
    return [order[piece == number] for number in np.unique(piece)]
