"""One round at one site: local differentially private steps, and the update that they add up to.

    sample consumers (Poisson) -> clipped gradient sum -> noise -> / public constant -> optimizer step

Everything that decides the guarantee is a public constant in ``LocalPlan``; nothing in it is len(data).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from client.training.gaussian import GaussianMechanism, Noise
from client.training.gradients import GradientDiagnostics, GradientEngine
from client.training.optimizer import make_optimizer
from common.errors import ConfigError
from common.model import Vector
from common.privacy import TRAIN_SIDE, PrivacyEvent
from common.run import RunConfig
from common.tasks import LocalConstants, local_constants, rounding_slack as rounding_slack
from common.trust.randomness import Floats, RandomStream, SeededStream

_STRETCH = 1 << 15  # numbers


@dataclass(frozen=True)
class LocalPlan(LocalConstants):
    """The public constants of one site's local training, and the mechanism that they stand for."""

    def mechanism(self, clip: float, stream: RandomStream) -> GaussianMechanism:
        """The mechanism of the steps, over sums that one consumer moves by at most ``clip`` and rounding."""
        sensitivity = clip * (1 + rounding_slack(self.expected_batch))
        noise = Noise(self.noise_multiplier, sensitivity, (TRAIN_SIDE,), self.hardened, torch_turn)
        return GaussianMechanism(noise, stream)


def local_plan(
    config: RunConfig, population: int, sites: int, noise_multiplier: float, signal: float
) -> LocalPlan:
    """A site's plan from the run's settings and its declared population, see ``local_constants``."""
    return LocalPlan(**vars(local_constants(config, population, sites, noise_multiplier, signal)))


@dataclass
class LocalDiagnostics:
    """What training looked like from inside. PRIVATE: the site logs it locally and never sends it."""

    batch_sizes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    clip_fractions: list[float] = field(default_factory=list)
    signal_to_noise: list[float] = field(default_factory=list)

    def add(self, batch: GradientDiagnostics, clip: float, signal: float, noise: float) -> None:
        """Record one step."""
        self.batch_sizes.append(len(batch.losses))
        self.losses.append(float(batch.losses.mean()) if len(batch.losses) else math.nan)
        if len(batch.norms):
            self.norms.append(float(batch.norms.mean()))
            self.clip_fractions.append(float((batch.norms > clip).mean()))
        if noise > 0:
            self.signal_to_noise.append(signal / noise)

    def summary(self) -> dict[str, float]:
        """Means over the steps; NaN where nothing was seen."""
        return {
            "batch_size": _mean([float(b) for b in self.batch_sizes]),
            "loss": _mean([x for x in self.losses if math.isfinite(x)]),
            "gradient_norm": _mean(self.norms),
            "clip_fraction": _mean(self.clip_fractions),
            "signal_to_noise": _mean(self.signal_to_noise),
        }

    def __repr__(self) -> str:
        return "LocalDiagnostics(private)"


@dataclass(frozen=True)
class LocalResult:
    """The update ``theta_T - theta_0: float32[d]``, what the steps that made it cost, and what stays at the site."""

    update: Vector
    events: tuple[PrivacyEvent, ...]
    diagnostics: LocalDiagnostics = field(repr=False)


def train_locally(engine: GradientEngine, start: Vector, plan: LocalPlan, stream: RandomStream) -> LocalResult:
    """Run the local steps of one round from the incoming parameters ``start: float32[d]``.

    Guarantee: with ``plan.private`` and a private stream, the update is the post-processing of
    ``plan.steps`` Poisson-subsampled Gaussian mechanisms with multiplier ``plan.noise_multiplier``
    under adding or removing one consumer. An empty batch is a step like any other. ``events`` are counted
    where the noise is drawn.
    Without noise the same stream gives the same bits (one torch thread is used).
    """
    if plan.private:
        require_clip(engine, plan)
    diagnostics, mechanism = LocalDiagnostics(), plan.mechanism(engine.clip, stream)
    optimizer = make_optimizer(plan.optimizer, plan.learning_rate, private=plan.private)
    engine.parameters.load(start)
    theta = engine.parameters.vector
    anchor = theta.clone()
    with one_thread(), _dropout_seed(stream):
        for _ in range(plan.steps):
            rows = mechanism.sample(plan.sampling_rate, engine.consumers)
            gradient, batch = engine.clipped_sum(rows)
            noise = torch.from_numpy(mechanism.noise(len(gradient)))
            gradient, lengths = noised_mean(gradient, noise, plan.expected_batch)
            diagnostics.add(batch, plan.clip, *lengths)
            if plan.proximal:
                gradient.add_(theta - anchor, alpha=plan.proximal)
            optimizer.step(theta, gradient)
    update = (theta - anchor).numpy()
    return LocalResult(update, mechanism.events(), diagnostics)


def require_clip(engine: GradientEngine, plan: LocalConstants) -> None:
    """Return if the engine clips where the plan says. Raises: ConfigError."""
    if engine.clip != plan.clip:
        raise ConfigError(
            f"the engine clips at {engine.clip}, the plan says {plan.clip}", hint="build the engine from the plan"
        )


def noised_mean(total: Tensor, noise: Tensor, divisor: float) -> tuple[Tensor, tuple[float, float]]:
    """``(total + noise) / divisor`` in double precision, rounded once, and the L2 lengths of sum and noise.

    Shapes: ``float64[d]`` each, ``total`` is overwritten; result: ``float32[d]``. A stretch that fits the cache at a time:
    a pass over whole vectors costs as much as drawing a third of the noise.
    """
    mean, squares = torch.empty(len(total)), [0.0, 0.0]
    for begin in range(0, len(total), _STRETCH):
        here = slice(begin, begin + _STRETCH)
        part, drawn = total[here], noise[here]
        squares[0] += float(torch.dot(part, part))
        squares[1] += float(torch.dot(drawn, drawn))
        mean[here] = part.add_(drawn).div_(divisor)
    return mean, (math.sqrt(squares[0]), math.sqrt(squares[1]))


def torch_turn(angle: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of angles, which are overwritten, for ``fill_gaussian``.

    torch's are within one unit in the last place too, and take a seventh of numpy's time in double precision.
    """
    turned = torch.from_numpy(angle)
    return turned.cos().numpy(), turned.sin_().numpy()


def seeded_stream(seed: int, site: str, round_number: int) -> SeededStream:
    """The sampling stream of a run WITHOUT privacy: same seed, site and round, same batches."""
    digest = hashlib.sha256(f"fedcart/sampling/1\0{seed}\0{site}\0{round_number}".encode()).digest()
    return SeededStream(int.from_bytes(digest[:8], "big"))


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: small products are faster so, and sums come in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _dropout_seed(stream: RandomStream) -> Iterator[None]:
    """Dropout masks follow the stream, so that a run without privacy repeats; they carry no guarantee."""
    with torch.random.fork_rng(devices=[]):
        # of the CPU alone: torch.manual_seed writes a stack trace for each kind of accelerator that is not there
        torch.default_generator.manual_seed(int.from_bytes(stream.bytes(7), "big"))
        yield


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
