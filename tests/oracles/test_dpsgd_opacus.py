"""Our engine against Opacus: hooks as the oracle of the clipped sum, its accountant as the oracle of the books.

Importing opacus costs seconds, so these run with `make test-full`.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from client.training.dpsgd.engine import TapeEngine
from client.training.trainer import LocalPlan, train_locally
from common.errors import BadInputError, ConfigError, LocalProtocolError
from common.trust.randomness import PrivateStream, SeededStream
from tests.dpsgd_samples import batcher_of, model_of, relative_error

pytestmark = pytest.mark.full
CLIP = 0.5
ROWS = np.arange(6)
EVENTS = [3, 9, 0, 6, 2, 8]


def frame(sigma: float, stream: Any, **choices: Any) -> Any:
    """Module, optimizer and accountant of one model, with SGD at learning rate 1."""
    from client.training.dpsgd import opacus_frame as of

    plan = of.FramePlan(clip=CLIP, noise_multiplier=sigma, sampling_rate=0.25, expected_batch=4.0)
    module = of.TapedModule(model_of(torch.float32, 1, **choices), CLIP)
    sgd = torch.optim.SGD(module.parameters(), lr=1.0)
    optimizer = of.TapedOptimizer(sgd, module, plan, stream)
    return module, optimizer, of.attach_accountant(optimizer)


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("encoder", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", ["every", "last"])
def test_one_optimizer_step_equals_opacus_hooks_on_padded_rows(
    encoder: str, layers: int, tied: bool, targets: Any
) -> None:
    from client.training.dpsgd.opacus_path import OpacusEngine

    choices = {"encoder": encoder, "layers": layers, "tied": tied, "pooling": "attention", "targets": targets}
    model, batcher = model_of(torch.float32, 1, **choices), batcher_of(EVENTS, 1, targets=targets)
    stock = OpacusEngine(copy.deepcopy(model), batcher, CLIP)
    ours = TapeEngine(model, batcher, CLIP)
    want, theirs = stock.clipped_sum(ROWS)
    got, diagnostics = ours.clipped_sum(ROWS)
    assert relative_error(got, want) <= 1e-5
    np.testing.assert_allclose(np.sort(diagnostics.norms), np.sort(theirs.norms), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("targets", ["every", "last"])
def test_sampled_softmax_through_opacus_hooks_is_clipped_whole(targets: Any) -> None:
    from client.training.dpsgd.opacus_path import OpacusEngine

    model = model_of(torch.float32, 1, sampled_negatives=7, targets=targets, tied=False)
    batcher = batcher_of(EVENTS, 1, targets=targets)
    stock = OpacusEngine(copy.deepcopy(model), batcher, CLIP)
    want, _ = stock.clipped_sum(ROWS)
    got, _ = TapeEngine(model, batcher, CLIP).clipped_sum(ROWS)
    assert relative_error(got, want) <= 1e-5


class Mixed(torch.nn.Module):
    """A layer on padded rows, then Opacus's LSTM on an unsorted packing: two orders of the same samples."""

    def __init__(self) -> None:
        from opacus.layers import DPLSTM

        super().__init__()
        self.first, self.rnn = torch.nn.Linear(4, 4), DPLSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.first(x), lengths, batch_first=True, enforce_sorted=False)
        return self.rnn(packed)[1][0]


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_opacus_mixes_consumers_of_an_unsorted_packed_sequence_and_we_refuse_it() -> None:
    from opacus import GradSampleModule

    data = torch.randn(4, 7, 4, generator=torch.Generator().manual_seed(2))
    lengths, clip = torch.tensor([2, 7, 3, 5]), 0.01

    def clipped_sum(rows: list[int]) -> torch.Tensor:
        torch.manual_seed(1)
        module = GradSampleModule(Mixed(), loss_reduction="sum")
        weight = torch.tensor([1.0, 100.0, 1.0, 10.0])[rows]
        ((module(data[rows], lengths[rows])[0] ** 2).sum(1) * weight).sum().backward()
        samples = torch.cat([p.grad_sample.flatten(1) for p in module.parameters()], 1)
        return (samples * (clip / samples.norm(dim=1)).clamp(max=1)[:, None]).sum(0)

    moved = max(
        float((clipped_sum([0, 1, 2, 3]) - clipped_sum([r for r in range(4) if r != gone])).norm())
        for gone in range(4)
    )
    assert moved > clip * 1.05  # the defect is there: one consumer moves the sum by more than the clip

    from client.training.dpsgd.taping import make_taped

    lstm = torch.nn.LSTM(4, 4, batch_first=True)
    tape = make_taped(lstm)
    tape.start(torch.tensor([0, 1, 0]), torch.tensor([2, 1]), 2)
    packed = pack_padded_sequence(
        torch.zeros(2, 2, 4), torch.tensor([1, 2]), batch_first=True, enforce_sorted=False
    )
    with pytest.raises(BadInputError, match="unsorted"):
        lstm(packed)


def test_step_in_the_frame_is_the_clipped_sum_over_the_public_divisor() -> None:
    module, optimizer, accountant = frame(0.0, SeededStream(1))
    engine = TapeEngine(model_of(torch.float32, 1), batcher_of(EVENTS, 1), CLIP)
    want = flat(module) - engine.clipped_sum(ROWS)[0] / 4.0
    rows = np.flatnonzero(engine.batcher.steps > 0)
    module.losses(engine.batcher.packed(rows)).sum().backward()
    optimizer.step()
    assert relative_error(flat(module), want) <= 1e-6
    assert [h[1:] for h in accountant.history] == [(0.25, 1)]


def test_micro_batches_in_the_frame_are_one_step_and_one_entry() -> None:
    batcher = batcher_of(EVENTS, 1)
    rows = np.flatnonzero(batcher.steps > 0)
    results, books = [], []
    for parts in ([rows], [rows[:1], rows[1:3], rows[3:]]):
        module, optimizer, accountant = frame(1.0, SeededStream(7))
        for n, part in enumerate(parts):
            optimizer.signal_skip_step(do_skip=n < len(parts) - 1)
            module.losses(batcher.packed(part)).sum().backward()
            optimizer.step()
        results.append(flat(module))
        books.append(accountant.history)
    assert relative_error(results[1], results[0]) <= 1e-6
    assert books[0] == books[1] == [(1.0, 0.25, 1)]


def test_optimizer_step_without_a_clipped_backward_raises() -> None:
    module, optimizer, accountant = frame(1.0, PrivateStream())
    batch = batcher_of([4, 5], 1).packed(np.arange(2))
    with pytest.raises(LocalProtocolError, match="without a clipped backward"):
        optimizer.step()
    module.losses(batch)
    with pytest.raises(LocalProtocolError, match="no backward"):
        optimizer.step()
    module.losses(batch).sum().backward()
    optimizer.step()
    with pytest.raises(LocalProtocolError, match="without a clipped backward"):
        optimizer.step()
    assert accountant.history == [(1.0, 0.25, 1)]


def test_an_empty_batch_in_the_frame_is_noise_and_an_entry() -> None:
    module, optimizer, accountant = frame(2.0, PrivateStream())
    before = flat(module)
    module.losses(batcher_of([4], 1).packed(np.arange(0)))
    optimizer.step()
    noise = (flat(module) - before) * 4.0
    assert 0.8 < float(noise.std()) / (2.0 * CLIP) < 1.2
    assert bool((noise != 0).all())
    assert accountant.history == [(2.0, 0.25, 1)]


def test_books_of_opacus_equal_our_events_after_every_round() -> None:
    from client.training.dpsgd.opacus_frame import history_events

    batcher = batcher_of(EVENTS, 1)
    module, optimizer, accountant = frame(1.5, PrivateStream())
    engine = TapeEngine(model_of(torch.float32, 1), batcher, CLIP)
    plan = LocalPlan(16.0, 0.25, 3, CLIP, 1.5, "sgd", 0.1)
    start, steps = engine.parameters.numpy(), 0
    for _ in range(3):
        (event,) = train_locally(engine, start, plan, PrivateStream()).events
        for _ in range(plan.steps):
            rows = np.flatnonzero((PrivateStream().bernoulli(0.25, 6)) & (batcher.steps > 0))
            losses = module.losses(batcher.packed(rows))
            if losses.requires_grad:
                losses.sum().backward()
            optimizer.step()
        steps += event.steps
        (booked,) = history_events(accountant)
        assert (booked.noise_multiplier, booked.sampling_rate) == (event.noise_multiplier, event.sampling_rate)
        assert (booked.steps, booked.unit, booked.relation) == (steps, event.unit, event.relation)


def test_a_plan_with_another_clip_than_the_module_is_refused() -> None:
    from client.training.dpsgd import opacus_frame as of

    module = of.TapedModule(model_of(torch.float32, 1), 1.0)
    plan = of.FramePlan(clip=2.0, noise_multiplier=1.0, sampling_rate=0.1, expected_batch=8.0)
    with pytest.raises(ConfigError, match="clips at"):
        of.TapedOptimizer(torch.optim.SGD(module.parameters(), lr=1.0), module, plan, PrivateStream())


def test_the_fast_path_does_not_import_opacus() -> None:
    code = "import sys, client.training.dpsgd.engine, client.training.trainer; sys.exit('opacus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
