"""Settings of the processor while gradients are clipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep numpy's BLAS to one thread: its products are small, and its pool would fight with torch's."""
    pools = [pool for pool in _controller().lib_controllers if pool.num_threads > 1]
    before = [pool.num_threads for pool in pools]
    for pool in pools:
        pool.set_num_threads(1)
    try:
        yield
    finally:
        for pool, threads in zip(pools, before, strict=True):
            pool.set_num_threads(threads)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Let numbers below the normal range be zeros on this thread.

    Gradients fade along a long row; below 1e-38 the processor would spend a hundred cycles on each.
    """
    tiny = torch.tensor(2.0**-126)
    on = bool(tiny * 0.5 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(on)
