"""Our engine inside Opacus's frame: its module interface, a subclass of its optimizer, its accountant.

For users who know Opacus, and for checking that its books and ours agree. Importing this module costs
seconds (it imports opacus), so the trainer's fast path does not.

    module = TapedModule(model)
    optimizer = TapedOptimizer(torch.optim.SGD(module.parameters(), lr=0.1), module, plan, stream)
    accountant = attach_accountant(optimizer)
    module.losses(batch).sum().backward()
    optimizer.step()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus.accountants import RDPAccountant
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from client.training.dpsgd.clipping import ClippedGradient
from common.errors import ConfigError, LocalProtocolError
from common.model import Batch
from common.privacy import TRAIN_SIDE, PrivacyEvent
from common.trust.randomness import RandomStream


@dataclass(frozen=True)
class FramePlan:
    """The public constants of the steps. Units: ``expected_batch`` = sampling rate * declared population."""

    clip: float
    noise_multiplier: float
    sampling_rate: float
    expected_batch: float


class TapedModule(AbstractGradSampleModule):
    """A model behind Opacus's module interface, whose clipped gradient comes from the tape.

    There are no per-sample gradients (``grad_sample`` stays None): that is the point.
    """

    def __init__(self, model: nn.Module, clip: float = 1.0) -> None:
        core = ClippedGradient(model, clip)
        super().__init__(model, batch_first=True, loss_reduction="sum")
        self.core = core
        self._begun = False

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each consumer of a packed batch: ``[B]``; run backward on the sum, then step.

        An empty Poisson batch is a step like any other: its losses need no backward.
        """
        losses = self.core.begin(batch)
        self._begun = True
        return losses

    def add_hooks(self, **_: Any) -> None:
        """Nothing to hook: the layers write to the tape."""

    def remove_hooks(self) -> None:
        """Nothing to unhook."""

    def take_clipped(self) -> dict[int, Tensor]:
        """The clipped sum of the batch whose backward has just run, by parameter ``id``.

        Raises: LocalProtocolError if there was none.
        """
        if not self._begun:
            raise LocalProtocolError(
                "optimizer step without a clipped backward",
                hint="call module.losses(batch).sum().backward() before every step",
            )
        self._begun = False
        gradient = {id(p): torch.zeros_like(p) for p in self.parameters()}
        self.core.finish(gradient)
        return gradient


class TapedOptimizer(DPOptimizer):
    """Opacus's ``DPOptimizer`` with the clipped sum from the tape and noise from our cryptographic stream.

    Guarantee: one step releases (clipped sum + N(0, (noise_multiplier * clip)^2)) / expected_batch, a
    public divisor; ``step`` without a clipped backward raises.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, module: TapedModule, plan: FramePlan, stream: RandomStream
    ) -> None:
        if plan.clip != module.core.clip:
            raise ConfigError(
                f"the module clips at {module.core.clip}, the plan says {plan.clip}",
                hint="build both from one plan",
            )
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip,
            expected_batch_size=plan.expected_batch,  # a float is fine: it is only divided by
            loss_reduction="mean",
        )
        self.module, self.plan, self.stream = module, plan, stream

    @property
    def accumulated_iterations(self) -> int:
        """One: physical micro-batches of one logical batch are not steps."""
        return 1

    def clip_and_accumulate(self) -> None:
        """Add the clipped sum of the last backward to ``p.summed_grad``. Raises: LocalProtocolError."""
        gradient = self.module.take_clipped()
        for p in self.params:
            p.summed_grad = gradient[id(p)] if p.summed_grad is None else p.summed_grad + gradient[id(p)]

    def add_noise(self) -> None:
        """Put noised sums into ``p.grad``: every coordinate gets noise, unused item rows included."""
        for p in self.params:
            noise = np.empty(tuple(p.shape), dtype=np.float64)
            self.stream.fill_gaussian(noise, scale=self.plan.noise_multiplier * self.plan.clip)
            p.grad = p.summed_grad + torch.from_numpy(noise).to(p.dtype)

    def pre_step(self, closure: Callable[[], float] | None = None) -> bool:  # noqa: ARG002 - Opacus's signature
        """Clip, noise, divide, account; False where only a micro-batch was added."""
        self.clip_and_accumulate()
        if self._check_skip_next_step():
            self._is_last_step_skipped = True
            return False
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        self._is_last_step_skipped = False
        for p in self.params:
            p.summed_grad = None
        return True

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One private step (or one more micro-batch after ``signal_skip_step``); gradients are used up."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        if not self.pre_step():
            return None
        loss: float | None = self.original_optimizer.step()
        for p in self.params:
            p.grad = None  # autograd's own gradient must stay empty: the next backward checks it
        return loss


def attach_accountant(optimizer: TapedOptimizer) -> RDPAccountant:
    """Attach Opacus's RDP accountant: it counts every step at the public sampling rate."""
    accountant = RDPAccountant()
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=optimizer.plan.sampling_rate))
    return accountant


def history_events(accountant: RDPAccountant) -> tuple[PrivacyEvent, ...]:
    """Opacus's books as our events, to be compared with the ledger's."""
    return tuple(
        PrivacyEvent(sigma, rate, steps, sub_scope=TRAIN_SIDE) for sigma, rate, steps in accountant.history
    )
