"""The encoder of a model: torch's LSTM or GRU, or one that somebody has registered, looked at before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from common.errors import ConfigError
from common.extensions import OWN_ENCODERS, custom_encoder
from common.run import ModelSettings

_LENGTHS = (4, 3, 2)  # of the consumers on which an encoder is tried

Carries = tuple[int, int, int]
"""(1, or 2 where there is a cell beside the hidden state; layers; width)"""


def build_encoder(settings: ModelSettings) -> tuple[nn.Module, Carries]:
    """The encoder and the shape of the state it carries. Raises: ConfigError for a registered one that cannot be used.

    Guarantee: a registered encoder was tried on random rows and neither mixed consumers nor looked ahead.
    """
    d, h, layers = settings.dim, settings.hidden, settings.layers
    if settings.encoder in OWN_ENCODERS:
        kind = nn.LSTM if settings.encoder == "lstm" else nn.GRU
        dropout = settings.dropout if layers > 1 else 0.0
        return kind(d, h, layers, batch_first=True, dropout=dropout), (2 if kind is nn.LSTM else 1, layers, h)
    encoder = custom_encoder(settings.encoder)(d, h, layers)
    if not isinstance(encoder, nn.Module):
        raise ConfigError(
            f"encoder {settings.encoder!r} is {type(encoder).__name__}, no torch module",
            hint="build(dim, hidden, layers) returns an nn.Module that is called like nn.GRU",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return encoder, _tried(settings.encoder, encoder, d, h)


def stacked(state: Any) -> Tensor:
    """What an encoder carries on, as one tensor: ``float32[S, layers, B, hidden]``."""
    return torch.stack(state) if isinstance(state, tuple) else state[None]


def on_rows(layer: Callable[[Tensor], Tensor], x: Any) -> Any:
    """Apply a layer to every event, packed or padded: for encoders of more than one part."""
    if isinstance(x, PackedSequence):
        return PackedSequence(layer(x.data), x.batch_sizes, x.sorted_indices, x.unsorted_indices)
    return layer(x)


def _tried(name: str, encoder: nn.Module, dim: int, hidden: int) -> Carries:
    """Raises: ConfigError if it does not do on random rows what clipping and scoring rely on."""
    sizes = torch.tensor([sum(length > step for length in _LENGTHS) for step in range(max(_LENGTHS))])
    who = torch.cat([torch.arange(int(size)) for size in sizes])
    when = torch.cat([torch.full((int(size),), step) for step, size in enumerate(sizes)])
    x = torch.randn(len(who), dim, requires_grad=True)
    try:
        out, state = encoder(PackedSequence(x, sizes))
        rows, carried = out.data, stacked(state)
    except Exception as error:
        raise ConfigError(
            f"encoder {name!r} cannot be called like nn.GRU: {type(error).__name__}: {error}",
            hint="forward(PackedSequence or [B, T, dim], state=None) -> (the same kind with `hidden` columns, state)",
        ) from error
    if rows.shape != (len(who), hidden) or carried.dim() != 4 or carried.shape[2] != len(_LENGTHS):
        raise ConfigError(
            f"encoder {name!r} gives {tuple(rows.shape)} and a state {tuple(carried.shape)}",
            hint=f"({len(who)}, {hidden}) and [layers, B, width], or two of them, are expected for this probe",
        )
    for row in range(len(who)):
        (moved,) = torch.autograd.grad(rows[row].sum(), x, retain_graph=True)
        read = moved.abs().sum(1) > 0
        if bool((read & (who != who[row])).any()):
            raise ConfigError(f"encoder {name!r} mixes consumers, so no consumer can be clipped")
        if bool((read & (when > when[row])).any()):
            raise ConfigError(f"encoder {name!r} looks at later events, so it would know the answers")
    return carried.shape[0], carried.shape[1], carried.shape[3]
