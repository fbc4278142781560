"""Optimizers on one flat vector. They see the noised gradient only, so they cost no epsilon."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from common.errors import ConfigError
from common.tasks import BETA1, BETA2, EPSILON, MOMENTUM


class Optimizer(Protocol):
    """State of one local run; a site's optimizer starts fresh in every round."""

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Move ``parameters: float32[d]`` in place against ``gradient: float32[d]``."""


class Sgd:
    """Plain or momentum SGD, as ``torch.optim.SGD``."""

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self._velocity: Tensor | None = None

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Move ``parameters`` in place."""
        if self.momentum:
            if self._velocity is None:
                self._velocity = gradient.clone()
            else:
                self._velocity.mul_(self.momentum).add_(gradient)
            gradient = self._velocity
        parameters.sub_(gradient, alpha=self.learning_rate)


class Adam:
    """Adam, as ``torch.optim.Adam``; ``scalar``: one second moment shared by all coordinates.

    Under noise of equal scale on every coordinate the coordinates' own second moments carry no signal;
    their mean is nearly noiseless, and keeps the proportions of the gradient. ``momentum``: decay of the mean of the
    gradients.
    """

    def __init__(self, learning_rate: float, *, scalar: bool, momentum: float = BETA1) -> None:
        self.learning_rate, self.scalar, self.momentum = learning_rate, scalar, momentum
        self._count = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._mean_square = 0.0

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Move ``parameters`` in place."""
        self._count += 1
        if self._first is None:
            self._first = torch.zeros_like(gradient)
        self._first.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
        rate, unbiased = self.learning_rate / (1 - self.momentum**self._count), 1 - BETA2**self._count
        if self.scalar:
            square = float(torch.dot(gradient, gradient)) / max(gradient.numel(), 1)
            self._mean_square = BETA2 * self._mean_square + (1 - BETA2) * square
            parameters.sub_(self._first, alpha=rate / (math.sqrt(self._mean_square / unbiased) + EPSILON))
            return
        if self._second is None:
            self._second = torch.zeros_like(gradient)
        self._second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        scale = (self._second / unbiased).sqrt_().add_(EPSILON)
        parameters.addcdiv_(self._first, scale, value=-rate)


def make_optimizer(name: str, learning_rate: float, *, private: bool = False) -> Optimizer:
    """Make the optimizer of ``TrainingSettings.optimizer``. Raises: ConfigError for an unknown name.

    Adam's first moment begins anew in every round, and its correction weighs the first of ten gradients 2.6 and the
    last .15: 1.22 times the noise for the same signal. So private steps go without it.
    """
    if name in ("scalar-adam", "adam"):
        return Adam(learning_rate, scalar=name == "scalar-adam", momentum=0.0 if private else BETA1)
    if name == "momentum":
        return Sgd(learning_rate, MOMENTUM)
    if name == "sgd":
        return Sgd(learning_rate)
    raise ConfigError(f"unknown optimizer: {name!r}", hint="use scalar-adam, adam, momentum or sgd")
