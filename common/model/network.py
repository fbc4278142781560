"""``SequenceModel``: embeddings, a recurrent encoder with a residual path, and one head per task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from common.errors import ConfigError
from common.model.batch import Batch
from common.model.encoders import build_encoder, stacked
from common.model.heads import CategoryHead, ClassHead, ItemHead, RowHead, public_negatives
from common.model.history import history_width
from common.run import ModelSettings
from common.tasks import INTENT, ROW_HEADS, STEP_HEADS

_NEGATIVES_SEED = 1  # public and the same in every run


@dataclass(frozen=True)
class ModelShape:
    """Cardinality of each integer feature (0 = padding or unknown included), for example ``{"item": 1001}``."""

    sizes: Mapping[str, int]
    context: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.sizes.get("item", 0) < 2:
            raise ConfigError(
                f"the model needs a catalogue of items, got {self.sizes.get('item', 0)} rows",
                hint="give a catalogue with at least one item",
            )
        object.__setattr__(self, "context", tuple(n for n in self.sizes if n != "item" and self.sizes[n] > 1))


class SequenceModel(nn.Module):
    """Encoder and heads. Every parameter lives in a leaf that can be clipped.

    Guarantee: the output at a step depends on events up to that step only (attention pooling reads the
    whole input of a row and feeds row heads only).
    """

    def __init__(self, settings: ModelSettings, shape: ModelShape) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape
        d, h = settings.dim, settings.hidden
        self.item = nn.Embedding(shape.sizes["item"], d)
        self.context = nn.ModuleDict(
            {name: nn.Embedding(shape.sizes[name], d) for name in shape.context if name in settings.context}
        )
        self.encoder, self.carries = build_encoder(settings)
        self.projection = nn.Linear(h, d, bias=False) if h != d else None
        self.attention = nn.Linear(d, 1) if settings.pooling == "attention" and self._row_heads() else None
        self.heads = nn.ModuleDict({name: self._head(name) for name in settings.heads})

    def _row_heads(self) -> list[str]:
        return [name for name in self.settings.heads if name in ROW_HEADS]

    def _head(self, name: str) -> nn.Module:
        d, sizes = self.settings.dim, self.shape.sizes
        if name == "next-item":
            count = self.settings.sampled_negatives
            negatives = public_negatives(sizes["item"], count, _NEGATIVES_SEED) if count else None
            bias = self.settings.item_bias
            head = ItemHead(d, sizes["item"], self.settings.copy_bonus, negatives, bias=bias)
            if self.settings.tied:
                head.linear.weight = self.item.weight
            return head
        if name in STEP_HEADS and STEP_HEADS[name] in self.shape.context:
            if name == "next-category":
                return CategoryHead(d, sizes["category"], self.settings.copy_bonus)
            return ClassHead(d, sizes[STEP_HEADS[name]])
        if name in ROW_HEADS:
            counts = history_width(sizes.get("event", 1) - 1) if name == INTENT and self.settings.history else 0
            return RowHead(d, classes=ROW_HEADS[name], history=counts)
        known = ", ".join([*STEP_HEADS, *ROW_HEADS])
        raise ConfigError(f"no head named {name!r} for these features", hint=f"model.heads may name: {known}")

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Sum of the embeddings of each event. Shapes: ``int64[...]`` of each feature -> ``[..., dim]``."""
        item = inputs["item"]
        # "no item" is the zero vector: row 0 is never read, so it is in no gradient of any engine
        x: Tensor = self.item(item) * (item > 0).to(self.item.weight.dtype)[..., None]
        if self.context:
            context = sum(embedding(inputs[name]) for name, embedding in self.context.items())
            x = x + self.settings.context_scale * context
        return x

    def encode(
        self, x: Tensor, batch_sizes: Tensor | None = None, state: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Residual stream behind the encoder, ``x + rnn(x)``, and what torch's encoder carries on.

        Shapes: ``x`` and result ``[P, dim]`` packed by ``batch_sizes``, or ``[B, T, dim]``; ``state`` as in ``step``.
        """
        carried: Any = state
        if state is not None:
            carried = (state[0], state[1]) if len(state) == 2 else state[0]
        if batch_sizes is None:
            states, behind = self.encoder(x, carried)
        else:
            packed, behind = self.encoder(PackedSequence(x, batch_sizes), carried)
            states = packed.data
        return x + (self.projection(states) if self.projection is not None else states), behind

    def hidden_states(self, batch: Batch) -> Tensor:
        """Residual stream of each event. Shapes: ``[P, dim]`` packed, ``[B, T, dim]`` padded."""
        return self.encode(self.embed(batch.inputs), batch.batch_sizes)[0]

    def carried(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Residual stream of a packed batch, and the state behind the last event of each row (``step``)."""
        hidden, behind = self.encode(self.embed(batch.inputs), batch.batch_sizes)
        return hidden, stacked(behind)

    def step(self, inputs: Mapping[str, Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        """Advance every consumer by one event.

        Shapes: ``int64[B]`` of each feature and ``state: float32[S, layers, B, hidden]`` (``first_state``), S = 2
        for an LSTM (hidden, cell) and 1 for a GRU -> residual stream ``[B, dim]`` and the next state. S, layers and
        hidden are in ``carries``.
        """
        hidden, behind = self.encode(self.embed(inputs)[:, None], state=state)
        return hidden[:, 0], stacked(behind)

    def first_state(self, consumers: int) -> Tensor:
        """State before the first event: ``float32[S, layers, consumers, hidden]`` of zeros."""
        kept, layers, hidden = self.carries
        return torch.zeros(kept, layers, consumers, hidden)

    def pooled(self, hidden: Tensor, batch: Batch, moment: int = -1) -> Tensor:
        """One vector per consumer, zeros for a consumer without steps. Shapes: ``[B, dim]``.

        With ``batch.asked`` the row as it was at that moment; the last is the one that is judged.
        """
        there = (batch.lengths > 0).to(hidden.dtype)[:, None]
        asked = batch.asked
        if self.attention is None:
            rows = batch.last_row if asked is None else asked.rows[:, moment]
            return hidden.reshape(-1, hidden.shape[-1])[rows] * there
        share = self.attention_weights(hidden, batch, None if asked is None else asked.steps[:, moment])
        flat = (hidden * share[..., None]).reshape(-1, hidden.shape[-1])
        return flat.new_zeros(batch.size, flat.shape[-1]).index_add(0, batch.consumer_of_row, flat)

    def answers(self, name: str, hidden: Tensor, batch: Batch, moment: int = -1) -> Tensor:
        """What a row head says of every consumer (intent: a logit). Shapes: ``[B]``."""
        head = self.heads[name]
        if not isinstance(head, RowHead):
            raise ConfigError(f"head {name!r} does not answer for whole rows")
        history = None if batch.asked is None else batch.asked.history[:, moment]
        return head.values(self.pooled(hidden, batch, moment), history)

    def attention_weights(self, hidden: Tensor, batch: Batch, until: Tensor | None = None) -> Tensor:
        """Share of each step in its consumer's pooled vector. Shapes: ``[P]`` or ``[B, T]``.

        ``until: int64[B]`` is the last step of each consumer that counts, all if left out.
        Guarantee: the shares of a consumer with steps sum to 1; padding has none.
        """
        if self.attention is None:
            raise ConfigError("this model has no attention", hint='set model.pooling = "attention"')
        who, barred = batch.consumer_of_row, ~batch.valid
        if until is not None:
            barred = barred | (batch.step_of_row > until[who]).view(barred.shape)
        score = self.attention(hidden)[..., 0].masked_fill(barred, float("-inf"))
        flat = score.reshape(-1)
        top = flat.detach().new_full((batch.size,), -1e30).scatter_reduce(0, who, flat.detach(), "amax")
        weight = torch.exp(flat - top[who])
        total = weight.new_zeros(batch.size).index_add(0, who, weight)
        return (weight / total.clamp_min(1e-30)[who]).view(score.shape)

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each consumer: heads' mean over its steps, weighted over heads. Shapes: ``[B]``.

        The training loss is the sum over consumers, so that a consumer is one unit whatever its length.
        """
        if batch.steps == 0:
            return torch.zeros(batch.size)
        hidden = self.hidden_states(batch)
        total = hidden.new_zeros(batch.size)
        for name, weight in self.settings.heads.items():
            head = self.heads[name]
            if weight == 0:
                continue
            if isinstance(head, RowHead):
                total = total + weight * self._row_losses(name, head, hidden, batch)
            elif isinstance(head, ClassHead):
                total = total + weight * self._step_losses(name, head, hidden, batch)
        return total

    def _row_losses(self, name: str, head: RowHead, hidden: Tensor, batch: Batch) -> Tensor:
        """Loss of each consumer, for intent the mean over the moments at which it is asked. Shapes: ``[B]``."""
        asked = batch.asked
        if name != INTENT or asked is None:
            return head.losses(self.answers(name, hidden, batch), batch.targets[name]) * batch.weights[name]
        moments = range(asked.targets.shape[1])
        parts = [head.losses(self.answers(name, hidden, batch, m), asked.targets[:, m]) for m in moments]
        return (torch.stack(parts, dim=1) * asked.weights).sum(dim=1)

    def _step_losses(self, name: str, head: ClassHead, hidden: Tensor, batch: Batch) -> Tensor:
        """Weighted sum over the steps at which a head is asked; logits exist for these only. Shapes: ``[B]``."""
        asked = batch.target_steps(name, hidden)
        losses = (head.step_losses(asked.hidden, asked.target, asked.batch) * asked.weight).reshape(-1)
        if asked.one_each:
            return losses
        return losses.new_zeros(batch.size).index_add(0, batch.consumer_of_row, losses)

    def item_tensors(self) -> tuple[str, ...]:
        """Names of the parameters whose first axis is the catalogue."""
        rows = self.shape.sizes["item"]
        owners = {id(self.item.weight)}
        if "next-item" in self.heads:
            owners |= {id(p) for p in self.heads["next-item"].parameters()}
        return tuple(n for n, p in self.named_parameters() if id(p) in owners and p.shape[0] == rows)


def build_model(settings: ModelSettings, shape: ModelShape, seed: int) -> SequenceModel:
    """Make a model whose parameters follow from the arguments only; torch's global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        model = SequenceModel(settings, shape)
    initialise(model, seed)
    return model


def initialise(model: SequenceModel, seed: int) -> None:
    """Draw every parameter from the seed and its own name, so that no parameter depends on another's size."""
    d, h = model.settings.dim, model.settings.hidden
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            digest = hashlib.sha256(f"fedcart/initialise/1\0{seed}\0{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            if name == "item.weight" or name.startswith("context."):
                scale = d**-0.5 if name == "item.weight" else 0.3 * d**-0.5
                parameter.normal_(0.0, scale, generator=generator)
            elif name.startswith("encoder."):
                parameter.uniform_(-(h**-0.5), h**-0.5, generator=generator)
            elif parameter.dim() == 2 and not name.endswith("history.weight"):
                parameter.normal_(0.0, 0.5 * parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.zero_()  # biases and counts
