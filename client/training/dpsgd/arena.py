"""``Arena``: memory for one micro-batch that is used again by the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 64


class Arena:
    """Hands out uninitialised tensors from one block and takes them all back at ``reset``.

    A fresh large tensor costs more in page faults than a pass over it, and every step needs the same
    ones. The block grows to the largest micro-batch seen.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def reset(self) -> None:
        """Take everything back. Tensors handed out before must not be used any more."""
        if self._used > self._block.numel():
            self._block = torch.empty(self._used + self._used // 8, dtype=torch.uint8)
        self._used = 0

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised contiguous tensor that lives until the next ``reset``."""
        size = math.prod(shape) * dtype.itemsize
        begin, self._used = self._used, self._used + -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._used > self._block.numel():
            return torch.empty(tuple(shape), dtype=dtype)
        # .data: a tensor of its own to autograd; slices of one block would share a version counter
        return self._block[begin : begin + size].view(dtype).view(tuple(shape)).data
