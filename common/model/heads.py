"""Heads: what the model answers. Each turns hidden states into logits and logits into a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import ConfigError
from common.model.batch import Batch

NEVER = float("-inf")
CELLS_AT_ONCE = 1 << 18  # 1 MB of float32 logits: what is done to them next finds them in the cache
FARTHEST = (
    -80.0
)  # below the largest logit: exp of less than -87 is denormal, which takes a processor ten times as long


def shifted_exp_(logits: Tensor, top: Tensor) -> Tensor:
    """``exp(logits - top)`` in place, not below e^-80. Shapes: ``[P, C]``, ``[P, 1]`` -> ``[P, C]``.

    Guarantee: normal float32 numbers wherever the logits are no NaN; a sum over C classes is off by at most C * e^-80.
    """
    return logits.sub_(top).clamp_(min=FARTHEST).exp_()


class ClassHead(nn.Module):
    """A softmax over the classes of one feature; class 0 (padding, unknown) is never predicted."""

    def __init__(self, dim: int, classes: int, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes, bias=bias)

    def logits(self, hidden: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002 - same call for every step head
        """Shapes: ``hidden: [..., dim]`` -> ``[..., classes]``."""
        logits: Tensor = self.linear(hidden)
        return without_unknown(logits)

    def logits_in_pieces(self, states: Tensor, batch: Batch) -> Iterator[tuple[slice, Tensor]]:
        """The same logits without gradients, few rows at a time, in one buffer that the next piece overwrites.

        Shapes: ``states: [P, dim]`` -> slices of its rows and ``[rows, classes]``.
        """
        rows = max(1, CELLS_AT_ONCE // self.linear.out_features)
        buffer = states.new_empty(min(rows, len(states)), self.linear.out_features)
        states, weight = states.detach(), self.linear.weight.detach().t()
        bias = states.new_zeros(()) if self.linear.bias is None else self.linear.bias.detach()
        add_bonus = self._bonus(batch)
        for start in range(0, len(states), rows):
            piece = slice(start, min(start + rows, len(states)))
            logits = torch.addmm(bias, states[piece], weight, out=buffer[: piece.stop - start])
            add_bonus(piece, logits)
            logits[:, 0] = NEVER
            yield piece, logits

    def _bonus(self, batch: Batch) -> Callable[[slice, Tensor], None]:  # noqa: ARG002 - as of heads with a copy path
        """What adds the copy path's constant to the logits of a piece of rows, in place."""
        return lambda _piece, _logits: None

    def step_losses(self, hidden: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each step, 0 where the target is unknown. Shapes: ``[P]`` or ``[B, T]``."""
        logits = self.logits(hidden, batch)
        flat = functional.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=0, reduction="none")
        return flat.view(target.shape)


class CategoryHead(ClassHead):
    """Next category: the softmax with a copy path, a public constant bonus on the consumer's last known category.

    Most consumers stay in a category for a while; without the bonus a private model does not reach "the last one
    again". It has no parameter, so it costs no epsilon.
    """

    def __init__(self, dim: int, classes: int, copy_bonus: float) -> None:
        super().__init__(dim, classes)
        self.copy_bonus = copy_bonus

    def logits(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Shapes: ``hidden: [..., dim]`` -> ``[..., classes]``."""
        raw: Tensor = self.linear(hidden)
        if self.copy_bonus:
            last = batch.category.view(raw.shape[:-1])[..., None]
            raw = raw.scatter_add(-1, last, raw.new_full(last.shape, self.copy_bonus))
        return without_unknown(raw)

    def _bonus(self, batch: Batch) -> Callable[[slice, Tensor], None]:
        last = batch.category.reshape(-1, 1)

        def add(piece: slice, logits: Tensor) -> None:
            logits.scatter_add_(1, last[piece], logits.new_full((len(logits), 1), self.copy_bonus))

        return add


class ItemHead(ClassHead):
    """Next item: the softmax with a copy path, a public constant bonus on items already in the row.

    The bonus is added once, however often an item occurred. It has no parameter, so it costs no epsilon.
    With ``negatives`` (public, fixed for a run) the softmax runs over these and the target only; ``whole_logits``
    makes the logits of all items first, for libraries that hook into the layer.
    """

    whole_logits = False

    def __init__(
        self, dim: int, items: int, copy_bonus: float, negatives: Tensor | None = None, *, bias: bool = True
    ) -> None:
        super().__init__(dim, items, bias=bias)
        self.copy_bonus = copy_bonus
        self.negatives = negatives

    def logits(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Shapes: ``hidden: [..., dim]`` -> ``[..., items]``, over the full catalogue."""
        raw: Tensor = self.linear(hidden)
        items = raw.shape[-1]
        if self.copy_bonus:
            bonus = torch.full((len(batch.seen_rows),), self.copy_bonus, dtype=raw.dtype)
            raw = raw.view(-1).index_add(0, batch.seen_rows * items + batch.seen_items, bonus).view(raw.shape)
        return without_unknown(raw)

    def _bonus(self, batch: Batch) -> Callable[[slice, Tensor], None]:
        if not self.copy_bonus:
            return super()._bonus(batch)
        rows, order = batch.seen_rows.sort()
        items = batch.seen_items[order]

        def add(piece: slice, logits: Tensor) -> None:
            first, last = torch.searchsorted(rows, rows.new_tensor([piece.start, piece.stop])).tolist()
            place = (rows[first:last] - piece.start, items[first:last])
            logits[place] += self.copy_bonus  # no pair of row and item is there twice

        return add

    def step_losses(self, hidden: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each step, 0 where the target is unknown. Shapes: ``[P]`` or ``[B, T]``."""
        if self.negatives is None:
            return super().step_losses(hidden, target, batch)
        flat = target.flatten()
        if self.whole_logits:
            wanted, others = self._picked(self.logits(hidden, batch).flatten(0, -2), flat, self.negatives)
        else:
            wanted, others = self._sampled(hidden.flatten(0, -2), flat, batch, self.negatives)
        # the target competes with the negatives once, also where it is one of them
        others = others.masked_fill(self.negatives[None] == flat[:, None], NEVER)
        loss = torch.logsumexp(torch.cat([wanted, others], dim=1), dim=1) - wanted[:, 0]
        return torch.where(flat > 0, loss, torch.zeros_like(loss)).view(target.shape)

    def _picked(self, logits: Tensor, target: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the targets and of the negatives among those of all items. Shapes: ``[P, 1]``, ``[P, N]``."""
        return logits.gather(1, target[:, None]), logits[:, negatives]

    def _sampled(self, states: Tensor, target: Tensor, batch: Batch, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """As ``_picked``, without the logits of all other items."""
        weight, bias = self.linear.weight, self.linear.bias
        wanted = (states * weight[target]).sum(1)
        others = functional.linear(states, weight[negatives])
        if bias is not None:
            wanted, others = wanted + bias[target], others + bias[negatives]
        if self.copy_bonus:
            rows, items = batch.seen_rows, batch.seen_items
            hit = rows[items == target[rows]]
            wanted = wanted.index_add(0, hit, wanted.new_full((len(hit),), self.copy_bonus))
            place = torch.full((weight.shape[0],), -1)
            place[negatives] = torch.arange(len(negatives))
            known = place[items] >= 0
            at = rows[known] * len(negatives) + place[items[known]]
            bonus = others.new_full((len(at),), self.copy_bonus)
            others = others.reshape(-1).index_add(0, at, bonus).view(others.shape)
        return wanted[:, None], others


class RowHead(nn.Module):
    """An answer per consumer from the pooled row: the logit of a yes, or with ``classes`` above 1 a logit of each.

    With ``history`` that many counts of the consumer's past are added up beside it: a linear way past the encoder,
    which begins at zero.
    """

    def __init__(self, dim: int, *, classes: int = 1, history: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes)
        self.history = nn.Linear(history, classes, bias=False) if history else None
        self.classes = classes

    def values(self, pooled: Tensor, history: Tensor | None = None) -> Tensor:
        """Shapes: ``pooled: [B, dim]``, ``history: [B, K]`` -> ``[B]``, or ``[B, classes]`` for several.

        Raises: ConfigError if the head reads a history and there is none.
        """
        values: Tensor = self.linear(pooled)
        if self.history is None:
            return values[:, 0] if self.classes == 1 else values
        if history is None:
            raise ConfigError(
                "this head reads a history, which the batch lacks", hint="make its targets with asks"
            )
        values = values + self.history(history.to(pooled.dtype))
        return values[:, 0] if self.classes == 1 else values

    def losses(self, values: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of answers. Shapes: ``values`` as above, ``target: [B]`` (0 or 1, or the class) -> ``[B]``."""
        if self.classes == 1:
            return functional.binary_cross_entropy_with_logits(values, target, reduction="none")
        return functional.cross_entropy(values, target.long(), reduction="none")


def without_unknown(logits: Tensor) -> Tensor:
    """Give class 0 no probability. Shapes: ``[..., C]`` -> same."""
    barred = torch.zeros(logits.shape[-1], dtype=logits.dtype)
    barred[0] = NEVER
    return logits + barred


def public_negatives(items: int, count: int, seed: int) -> Tensor:
    """Draw the fixed, public candidates of a sampled softmax: ``int64[count]``, without item 0.

    Guarantee: depends on the arguments only, never on data.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(items - 1, generator=generator) + 1
    return order[: min(count, items - 1)].sort().values
