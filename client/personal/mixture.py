"""A head whose softmax is mixed with a site's own counts: where the network is asked, the mixture answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from client.personal.counts import OwnCounts
from common.model import Batch, ClassHead, ItemHead, SequenceModel

_LEAST = 1e-30  # log of a mixture that gives a class nothing


@dataclass(frozen=True)
class Shares:
    """Weights of the network, of own transitions, of own likeness, and of items that come again; they sum to 1."""

    network: float = 1.0
    transitions: float = 0.0
    likeness: float = 0.0
    again: float = 0.0

    @property
    def counts(self) -> float:
        """Weight of all counts."""
        return self.transitions + self.likeness + self.again


class MixedHead(ClassHead):
    """The logarithm of a mixture of the head's softmax and own counts, as logits: its softmax is the mixture itself.

    ``barred: bool[C]`` classes that the network never learnt: it gives them nothing, the counts may.
    """

    def __init__(self, head: ClassHead, counts: OwnCounts, shares: Shares, barred: Tensor | None = None) -> None:
        nn.Module.__init__(self)
        self.head, self.linear = head, head.linear
        self._counts, self.shares, self._barred = counts, shares, barred

    def logits(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Shapes: ``hidden: [P, dim]`` -> ``[P, classes]``."""
        return self._mixed(self.head.logits(hidden, batch), batch, slice(None))

    def logits_in_pieces(self, states: Tensor, batch: Batch) -> Iterator[tuple[slice, Tensor]]:
        """The same without gradients, few rows at a time."""
        for piece, logits in self.head.logits_in_pieces(states, batch):
            yield piece, self._mixed(logits, batch, piece)

    def step_losses(self, hidden: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each step under the mixture."""
        return ClassHead.step_losses(self, hidden, target, batch)

    def _mixed(self, logits: Tensor, batch: Batch, piece: slice) -> Tensor:
        if self._barred is not None:
            logits = logits.masked_fill(self._barred, float("-inf"))
        if not self.shares.counts:
            return logits
        share = torch.softmax(logits, dim=-1).nan_to_num_(0.0).mul_(self.shares.network)
        latest = _context(self.head, batch)[piece].numpy()
        if self.shares.transitions:
            share += torch.from_numpy(self._counts.after(latest[:, 0])).mul_(self.shares.transitions)
        if self.shares.likeness:
            share += torch.from_numpy(self._counts.alike(latest)).mul_(self.shares.likeness)
        if self.shares.again:
            share += torch.from_numpy(self._counts.once_more(_seen(batch, piece, len(share)), len(share))).mul_(
                self.shares.again
            )
        share[:, 0] = 0.0
        return share.clamp_min_(_LEAST).log_().index_fill_(1, torch.zeros(1, dtype=torch.int64), float("-inf"))


class MixedItemHead(MixedHead, ItemHead):
    """The same for the next item: ranked, not only right or wrong."""

    negatives = None
    copy_bonus = 0.0


def _context(head: ClassHead, batch: Batch) -> Tensor:
    """What the counts are asked by at each step: ``int64[P, A]``."""
    if isinstance(head, ItemHead):
        assert batch.recent is not None
        return batch.recent
    last = batch.category.reshape(-1) if hasattr(head, "copy_bonus") else batch.last_event
    assert last is not None
    return last[:, None]


def _seen(batch: Batch, piece: slice, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, counted from the first of so many, and items seen up to them: ``int64[K]`` each."""
    rows, items = batch.seen_rows.numpy() - (piece.start or 0), batch.seen_items.numpy()
    inside = (rows >= 0) & (rows < count)
    return rows[inside], items[inside]


def install(
    model: SequenceModel, head: str, counts: OwnCounts, shares: Shares, barred: Tensor | None = None
) -> None:
    """Put a mixture in the place of a head, or in the place of an earlier mixture."""
    plain = model.heads[head]
    if isinstance(plain, MixedHead):
        plain = plain.head
    assert isinstance(plain, ClassHead)
    kind = MixedItemHead if isinstance(plain, ItemHead) else MixedHead
    model.heads[head] = kind(plain, counts, shares, barred)


NETWORK = (0.8, 0.6, 0.4, 0.2, 0.05, 0.0)
LIKENESS = (0.0, 0.3, 0.7, 1.0)
AGAIN = (0.0, 0.3, 0.7, 1.0)
FIRST_LIKENESS = 0.3
FIRST_NETWORK = (
    0.4,
    0.05,
    0.0,
)  # beside items that come again: in logs of purchases pairs of items only take from them


def best_shares(measure: Callable[[Shares], np.ndarray], has_likeness: bool) -> tuple[Shares, np.ndarray]:
    """The mixture with the highest mean score over the choosing slice, and its scores: ``float64[N]``.

    First how much the network says, then which of the counts say the rest. ``measure``: scores of each consumer.
    """
    tried: dict[Shares, np.ndarray] = {}

    def score(shares: Shares) -> float:
        if shares not in tried:
            tried[shares] = measure(shares)
        return float(tried[shares].mean()) if len(tried[shares]) else 0.0

    first = FIRST_LIKENESS if has_likeness else 0.0
    known = [Shares(), *(split(network, first) for network in NETWORK)]
    if has_likeness:
        known += [split(network, first, 1.0) for network in FIRST_NETWORK]
    best = max(known, key=score)
    if best.counts and has_likeness:
        again = best.again / best.counts
        best = max([*(split(best.network, likeness, again) for likeness in LIKENESS), best], key=score)
        pairs = best.transitions + best.likeness
        likeness = best.likeness / pairs if pairs else first
        best = max([*(split(best.network, likeness, again) for again in AGAIN), best], key=score)
    return best, tried[best]


def split(network: float, likeness: float, again: float = 0.0) -> Shares:
    """Shares with so much for the network, of the rest so much for items that come again, and of what is left for likeness."""
    rest = 1.0 - network
    paired = rest * (1 - again)
    return Shares(network, paired * (1 - likeness), paired * likeness, rest * again)
