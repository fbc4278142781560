"""The model as one step: an event and the carried state in, logits and the next state out. What is exported."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.scoring.model import SharedModel
from common.errors import BadInputError
from common.model.heads import ClassHead, RowHead
from common.model.network import SequenceModel


class StepModel(nn.Module):
    """One step for a batch of consumers. Copy bonus and barred class 0 are left to the caller: they need no weights.

    Shapes: ``features: int64[B, F]`` in the order of ``names``; ``state: float32[S, layers, B, hidden]`` with
    S = 2 for an LSTM (hidden, cell) and 1 for a GRU. Result: one tensor per head, ``[B, classes]`` or ``[B]``
    (a logit), in the order of ``heads``, then the next state.
    """

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.names = ("item", *model.context)
        self.heads_in_order = tuple(name for name in model.settings.heads if _answers_at_once(model, name))
        self.item = nn.Embedding.from_pretrained(model.item.weight.detach().clone())
        self.context = nn.ModuleList(
            nn.Embedding.from_pretrained(embedding.get_parameter("weight").detach().clone())
            for embedding in model.context.values()
        )
        self.lstm = model.settings.encoder == "lstm"
        kind = nn.LSTM if self.lstm else nn.GRU
        self.encoder = kind(model.settings.dim, model.settings.hidden, model.settings.layers, batch_first=True)
        self.encoder.load_state_dict(model.encoder.state_dict())
        self.projection = nn.Identity() if model.projection is None else _copied(model.projection)
        linears = [model.heads[name].linear for name in self.heads_in_order]
        self.outputs = nn.ModuleList(_copied(linear) for linear in linears)  # type: ignore[arg-type]

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        """Advance every consumer by one event."""
        item = features[:, 0].contiguous()
        x = self.item(item) * (item > 0).to(torch.float32)[:, None]
        for place, embedding in enumerate(self.context):
            x = x + embedding(features[:, place + 1].contiguous())
        if self.lstm:
            out, carried = self.encoder(x[:, None], (state[0], state[1]))
            following = torch.stack([carried[0], carried[1]])
        else:
            out, carried = self.encoder(x[:, None], state[0])
            following = carried[None]
        hidden = x + self.projection(out[:, 0])
        return (*(linear(hidden) for linear in self.outputs), following)


def step_model(shared: SharedModel) -> StepModel:
    """The step of a released model, its weights copied. Raises: BadInputError if no head answers step by step."""
    step = StepModel(shared.model)
    if not step.heads_in_order:
        raise BadInputError(
            f"no head of this model answers step by step: {', '.join(shared.heads)} reads the whole row",
            hint="train with model.history = false and model.pooling = last for live scores of intent",
        )
    step.eval()
    return step


def first_state(shared: SharedModel, consumers: int) -> Tensor:
    """State before the first event: ``float32[S, layers, B, hidden]`` of zeros."""
    settings = shared.model.settings
    return torch.zeros(2 if settings.encoder == "lstm" else 1, settings.layers, consumers, settings.hidden)


@dataclass(frozen=True)
class StepFacts:
    """What a user of an exported file must know beside the file."""

    inputs: tuple[str, ...]
    heads: tuple[str, ...]
    state: tuple[int, int, int]
    copy_bonus: float


def step_facts(shared: SharedModel) -> StepFacts:
    """Names and sizes of inputs and outputs."""
    step, settings = step_model(shared), shared.model.settings
    state = (2 if settings.encoder == "lstm" else 1, settings.layers, settings.hidden)
    return StepFacts(step.names, step.heads_in_order, state, settings.copy_bonus)


def _answers_at_once(model: SequenceModel, name: str) -> bool:
    """Attention pooling and counts read the whole row: such a head cannot be answered from the carried state."""
    head = model.heads[name]
    return isinstance(head, ClassHead) or (
        isinstance(head, RowHead) and head.history is None and model.attention is None
    )


def _copied(linear: nn.Linear) -> nn.Linear:
    copy = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    copy.load_state_dict({name: value.detach().clone() for name, value in linear.state_dict().items()})
    return copy
