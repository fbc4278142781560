"""Encoders as a user would write them, good and bad."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from common.model.encoders import on_rows


class Deep(nn.Module):
    """A GRU, a layer on every event behind it, and a norm."""

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden, layers, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.mix = nn.Linear(hidden, hidden)

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        out, behind = self.gru(x, state)
        return on_rows(lambda rows: torch.tanh(self.mix(self.norm(rows))), out), behind


class Mixing(Deep):
    """Takes the mean of the batch away: a consumer's answer depends on the others."""

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        out, behind = super().forward(x, state)
        return on_rows(lambda rows: rows - rows.mean(dim=0), out), behind


class Backwards(nn.Module):
    """Reads every row from its end."""

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        return self.gru(x, state)


class Narrow(Deep):
    """Forgets half of its columns."""

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        out, behind = super().forward(x, state)
        return on_rows(lambda rows: rows[:, ::2], out), behind


class Odd(nn.Module):
    """Cannot be called at all."""

    def __init__(self, *_: int) -> None:
        super().__init__()


class Loose(Deep):
    """Holds a parameter outside of every layer that can be clipped."""

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__(dim, hidden, layers)
        self.scale = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        out, behind = super().forward(x, state)
        return on_rows(lambda rows: rows * self.scale, out), behind


def no_module(*_: int) -> str:
    return "nothing"
