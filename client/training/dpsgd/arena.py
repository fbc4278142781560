"""``Arena``: memory for one micro-batch that is used again by the next one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_ALIGNMENT = 64
_BLOCK_BYTES = 1 << 22
_WASTE = 1.5  # blocks that hold this many times what was used are given back


class Arena:
    """Hands out uninitialised tensors from a few blocks and takes them all back at ``reset``.

    A fresh large tensor costs more in page faults than a pass over it, and every step needs the same ones.
    """

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._block = self._begin = self._most = 0

    def reset(self) -> None:
        """Take everything back. Tensors handed out before must not be used any more."""
        if self._capacity(len(self._blocks)) > _WASTE * self._most + _BLOCK_BYTES:
            self._blocks = []
        self._block = self._begin = self._most = 0

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised contiguous tensor that lives until the next ``reset``."""
        size = math.prod(shape) * dtype.itemsize
        room = -(-size // _ALIGNMENT) * _ALIGNMENT
        while self._block < len(self._blocks) and self._begin + room > self._blocks[self._block].numel():
            self._block, self._begin = self._block + 1, 0
        if self._block == len(self._blocks):
            self._blocks.append(torch.empty(max(room + room // 8, _BLOCK_BYTES), dtype=torch.uint8))
        begin, self._begin = self._begin, self._begin + room
        self._most = max(self._most, self._capacity(self._block) + self._begin)
        # .data: a tensor of its own to autograd; slices of one block would share a version counter
        return self._blocks[self._block][begin : begin + size].view(dtype).view(tuple(shape)).data

    def _capacity(self, blocks: int) -> int:
        return sum(block.numel() for block in self._blocks[:blocks])

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """What is taken inside is taken back at the end."""
        block, begin = self._block, self._begin
        try:
            yield
        finally:
            self._block, self._begin = block, begin
