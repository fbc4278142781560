"""What exact per-consumer clipping costs: ours beside ordinary training and beside Opacus.

    python -m benchmarks.dpsgd [--smoke] [--row NAME]...

One JSON line per row of the grid. All columns run the same model on the same consumers, alternating
A B C A B C in one process on one thread; times are medians of CPU milliseconds for forward + backward
(+ clip), which other programs on the machine disturb less than wall time. Memory is the peak above
what was resident before, in MB. ``does not fit``: the mode's per-sample gradients alone pass the memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.training.dpsgd.clipping import ClippedGradient, gradient_views
from common.model import Batch, Batcher, ItemHead
from common.model.heads import public_negatives
from common.strict_json import finite

Step = Callable[[], object]
DIM = 64
SECONDS_PER_ROW = 4.0
MEMORY_SHARE = 0.6


@dataclass(frozen=True)
class Case:
    """One row of the grid. ``shortest`` < ``steps``: uniform random lengths; ``every``: loss at every step."""

    name: str
    items: int
    hidden: int
    batch: int
    steps: int
    shortest: int = 0
    cell: str = "lstm"
    layers: int = 1
    every: bool = False
    tied: bool = False
    negatives: int = 0
    functorch: bool = False


GRID = (
    Case("v5k-h64-b64-t20", 5_000, 64, 64, 20, functorch=True),
    Case("v5k-h128-b64-t50", 5_000, 128, 64, 50, functorch=True),
    Case("v5k-h64-b256-t20", 5_000, 64, 256, 20),
    Case("v5k-h128-2layers-b64-t50", 5_000, 128, 64, 50, layers=2),
    Case("v5k-h128-b64-t50-every", 5_000, 128, 64, 50, every=True),
    Case("v50k-h64-b256-t50", 50_000, 64, 256, 50),
    Case("v5k-h64-b64-t12to50", 5_000, 64, 64, 50, shortest=12),
    Case("v5k-h64-b64-t12to50-every", 5_000, 64, 64, 50, shortest=12, every=True),
    Case("gru-v5k-h64-b64-t20", 5_000, 64, 64, 20, cell="gru"),
    Case("gru-v5k-h128-b64-t50", 5_000, 128, 64, 50, cell="gru"),
    Case("v50k-tied-sampled-b64-t50", 50_000, DIM, 64, 50, every=True, tied=True, negatives=1_000),
    Case("v5k-h64-b64-t500", 5_000, 64, 64, 500),
    Case("v5k-h64-b2048-t20", 5_000, 64, 2048, 20),
)
SMOKE = (
    Case("smoke-last", 200, 16, 8, 6),
    Case("smoke-every-tied-sampled", 200, DIM, 8, 6, shortest=2, every=True, tied=True, negatives=20),
)


@dataclass(frozen=True)
class _Rows:
    offsets: np.ndarray
    integers: np.ndarray
    integer_names: tuple[str, ...] = ("item",)


def batcher_of(case: Case) -> Batcher:
    rng = np.random.default_rng(1)
    steps = rng.integers(case.shortest or case.steps, case.steps + 1, case.batch)
    offsets = np.concatenate([[0], np.cumsum(steps + 1)])
    items = rng.integers(1, case.items, (offsets[-1], 1)).astype(np.int32)
    return Batcher(_Rows(offsets, items), ("next-item",))


class Model(nn.Module):
    """Embedding, recurrent layer, item head: the plain model of the grid. ``rnn`` may be Opacus's DPLSTM."""

    def __init__(self, case: Case, rnn: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.case = case
        self.item = nn.Embedding(case.items, DIM)
        self.rnn = rnn(DIM, case.hidden, case.layers, batch_first=True)
        self.out = nn.Linear(case.hidden, case.items)
        if case.tied:
            self.out.weight = self.item.weight
        self.negatives = public_negatives(case.items, case.negatives, 1) if case.negatives else None

    def forward(self, ids: Tensor, last: Tensor) -> Tensor:
        """Logits ``[B, V]`` of the last step, or ``[B, T, V]``; with negatives: hidden states."""
        states = self.rnn(self.item(ids))[0]  # [B, T, H]
        if not self.case.every:
            states = states[torch.arange(len(ids)), last]
        return states if self.negatives is not None else self.out(states)

    def sum_of_losses(self, batch: Batch) -> Tensor:
        """Sum over consumers of the mean over their steps, on padded rows."""
        logits, target = self(batch.inputs["item"], batch.lengths - 1), batch.targets["next-item"]
        if not self.case.every:
            return functional.cross_entropy(
                logits, target[torch.arange(batch.size), batch.lengths - 1], reduction="sum"
            )
        if self.negatives is not None:
            loss = self.sampled(logits.flatten(0, 1), target.flatten())
        else:
            loss = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return (loss * batch.weights["next-item"].flatten()).sum()

    def sampled(self, states: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over the public negatives and the target."""
        others = states @ self.out.weight[self.negatives].t() + self.out.bias[self.negatives]
        wanted = (states * self.out.weight[target]).sum(1) + self.out.bias[target]
        others = others.masked_fill(self.negatives == target[:, None], float("-inf"))
        return torch.logsumexp(torch.cat([wanted[:, None], others], 1), 1) - wanted


class TapedModel(nn.Module):
    """The same parameters behind the layers that our engine knows, on packed rows."""

    def __init__(self, plain: Model) -> None:
        super().__init__()
        case = plain.case
        self.case, self.item, self.rnn = case, plain.item, plain.rnn
        self.head = ItemHead(case.hidden, case.items, 0.0, plain.negatives)
        self.head.linear = plain.out

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each consumer: ``[B]``."""
        assert batch.batch_sizes is not None
        rows = nn.utils.rnn.PackedSequence(self.item(batch.inputs["item"]), batch.batch_sizes)
        states, target = self.rnn(rows)[0].data, batch.targets["next-item"]
        if not self.case.every:
            return self.head.step_losses(states[batch.last_row], target[batch.last_row], batch)
        loss = self.head.step_losses(states, target, batch) * batch.weights["next-item"]
        return loss.new_zeros(batch.size).index_add(0, batch.consumer_of_row, loss)


def plain_step(case: Case, batcher: Batcher) -> Step:
    model = Model(case, {"lstm": nn.LSTM, "gru": nn.GRU}[case.cell])
    batch = batcher.padded(np.arange(case.batch))

    def step() -> None:
        model.zero_grad()
        model.sum_of_losses(batch).backward()

    return step


def our_step(case: Case, batcher: Batcher) -> Step:
    model = TapedModel(Model(case, {"lstm": nn.LSTM, "gru": nn.GRU}[case.cell]))
    batch = batcher.packed(np.arange(case.batch))
    core = ClippedGradient(model, 1.0)
    flat = torch.zeros(sum(p.numel() for p in model.parameters()))
    views = gradient_views(model, flat)

    def step() -> None:
        core.add(batch, views, fresh=True)

    return step


def opacus_step(case: Case, batcher: Batcher, *, functorch: bool = False) -> Step:
    from opacus.grad_sample import GradSampleModule
    from opacus.layers import DPGRU, DPLSTM
    from opacus.optimizers import DPOptimizer

    model = GradSampleModule(
        Model(case, {"lstm": DPLSTM, "gru": DPGRU}[case.cell]), loss_reduction="sum", force_functorch=functorch
    )
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    batch = batcher.padded(np.arange(case.batch))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model._module.sum_of_losses(batch).backward()
        optimizer.clip_and_accumulate()

    return step


def ghost_step(case: Case, batcher: Batcher) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.layers import DPGRU, DPLSTM

    model = GradSampleModuleFastGradientClipping(
        Model(case, {"lstm": DPLSTM, "gru": DPGRU}[case.cell]),
        loss_reduction="sum",
        max_grad_norm=1.0,
        use_ghost_clipping=True,
    )
    batch = batcher.padded(np.arange(case.batch))
    rows = torch.arange(case.batch)

    def losses() -> Tensor:
        logits, target = model._module(batch.inputs["item"], batch.lengths - 1), batch.targets["next-item"]
        if not case.every:
            return functional.cross_entropy(logits, target[rows, batch.lengths - 1], reduction="none")
        loss = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return (loss * batch.weights["next-item"].flatten()).view(case.batch, -1).sum(1)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss = losses()
        loss.sum().backward(retain_graph=True)
        model.zero_grad(set_to_none=True)
        factors = model.get_clipping_coef()
        model.disable_hooks()
        (factors * loss).sum().backward()
        model.enable_hooks()

    return step


def columns(case: Case) -> Iterator[tuple[str, Callable[[Case, Batcher], Step]]]:
    """The columns that exist for a row; Opacus has no rule for the functional sampled softmax."""
    yield "plain", plain_step
    yield "ours", our_step
    if case.negatives:
        return
    yield "ghost", ghost_step
    yield "hooks", opacus_step
    if case.functorch:
        yield "functorch", lambda c, b: opacus_step(c, b, functorch=True)


def per_sample_bytes(case: Case, column: str) -> int:
    """Per-sample gradients that a mode must hold at least (ghost holds them for the recurrent layer only)."""
    gates = (4 if case.cell == "lstm" else 3) * case.hidden
    recurrent = gates * (DIM + case.hidden) + (case.layers - 1) * 2 * gates * case.hidden
    tables = case.items * (DIM + case.hidden)
    steps = 4 * case.batch * case.steps * case.items if case.every else 0
    if column in ("plain", "ours"):
        return 0
    return 2 * 4 * case.batch * (recurrent + (0 if column == "ghost" else tables)) + steps


def memory_available() -> int:
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _resident(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def peak_megabytes(make: Callable[[], Step]) -> tuple[Step, float]:
    """Build a step, run it twice, and measure the highest resident memory above the start."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    step = make()
    step()
    step()
    return step, (_resident("VmHWM") - before) / 1e6


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Run one row of the grid: ``{column: {ms, mb}}`` and the ratios."""
    import opacus  # noqa: F401 - before the first look at the memory

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook")
    batcher = batcher_of(case)
    steps: dict[str, Step] = {}
    cells: dict[str, Any] = {}
    for name, make in columns(case):
        if per_sample_bytes(case, name) > MEMORY_SHARE * memory_available():
            cells[name] = "does not fit"
            continue
        try:
            steps[name], megabytes = peak_megabytes(lambda make=make: make(case, batcher))
        except Exception as error:
            cells[name] = f"fails: {type(error).__name__}"
            continue
        cells[name] = {"mb": round(megabytes)}
    for name, times in alternate(steps, seconds).items():
        cells[name]["ms"] = round(1e3 * statistics.median(times), 2)
        cells[name]["runs"] = len(times)
    return {"row": case.name, **cells, "ratios": ratios(cells), "case": asdict(case)}


def alternate(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """CPU seconds of each step, in turns; a slow column (over a fifth of the time) stops after three turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    begin = time.process_time()
    while time.process_time() - begin < seconds or any(len(t) < 3 for t in times.values()):
        for name, step in steps.items():
            if len(times[name]) >= 3 and (sum(times[name]) > seconds / 5 and name not in ("plain", "ours")):
                continue
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    return times


def ratios(cells: dict[str, Any]) -> dict[str, float]:
    """Ours over plain in time and memory; the best Opacus mode over ours in time."""
    plain, ours = cells["plain"], cells["ours"]
    out = {"time": round(ours["ms"] / plain["ms"], 2), "memory": round(ours["mb"] / max(plain["mb"], 1), 2)}
    opacus = [
        c["ms"] for n, c in cells.items() if n not in ("plain", "ours") and isinstance(c, dict) and "ms" in c
    ]
    if opacus:
        out["opacus"] = round(min(opacus) / ours["ms"], 1)
    return out


def main(smoke: bool = False, rows: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Print one JSON line per row, and a summary of the ratios for the whole grid."""
    grid = [replace(c) for c in (SMOKE if smoke else GRID) if not rows or c.name in rows]
    results = []
    for case in grid:
        results.append(measure(case, 0.05 if smoke else SECONDS_PER_ROW))
        print(json.dumps(finite(results[-1]), allow_nan=False), flush=True)
    for name in ("time", "memory", "opacus"):
        values = [r["ratios"][name] for r in results if name in r["ratios"]]
        if values:
            print(
                json.dumps(
                    finite(
                        {"ratio": name, "median": statistics.median(values), "range": [min(values), max(values)]}
                    ),
                    allow_nan=False,
                )
            )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--row", action="append", default=[])
    arguments = parser.parse_args()
    main(arguments.smoke, tuple(arguments.row))
