"""The model as one step: an event and the carried state in, logits and the next state out. What is exported."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from client.scoring.model import SharedModel
from common.errors import BadInputError
from common.model import ClassHead, RowHead, SequenceModel


class StepModel(nn.Module):
    """One step for a batch of consumers. Copy bonus and barred class 0 are left to the caller: they need no weights.

    Shapes: ``features: int64[B, F]`` in the order of ``names``; ``state`` as in ``SequenceModel.step``. Result: one
    tensor per head, ``[B, classes]`` or ``[B]`` (a logit), in the order of ``heads_in_order``, then the next state.
    """

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.names = ("item", *model.context)
        self.heads_in_order = tuple(name for name in model.settings.heads if _answers_at_once(model, name))
        self.model = copy.deepcopy(model)
        self.model.attention = None
        self.model.heads = nn.ModuleDict({name: self.model.heads[name] for name in self.heads_in_order})

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        """Advance every consumer by one event."""
        inputs = {name: features[:, place].contiguous() for place, name in enumerate(self.names)}
        hidden, following = self.model.step(inputs, state)
        return (*(head.linear(hidden) for head in self.model.heads.values()), following)  # type: ignore[operator]


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


@dataclass(frozen=True)
class StepFacts:
    """What a user of an exported file must know beside the file."""

    inputs: tuple[str, ...]
    heads: tuple[str, ...]
    state: tuple[int, int, int]  # S, layers, hidden
    copy_bonus: float


def step_facts(shared: SharedModel) -> StepFacts:
    """Names and sizes of inputs and outputs."""
    step, state = step_model(shared), shared.model.first_state(1).shape
    sizes = (state[0], state[1], state[3])
    return StepFacts(step.names, step.heads_in_order, sizes, shared.model.settings.copy_bonus)


def _answers_at_once(model: SequenceModel, name: str) -> bool:
    """Attention pooling and counts read the whole row: such a head cannot be answered from the carried state."""
    head = model.heads[name]
    return isinstance(head, ClassHead) or (
        isinstance(head, RowHead) and head.history is None and model.attention is None
    )
