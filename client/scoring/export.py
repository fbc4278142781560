"""Small files for real-time scoring: int8 weights for torch, and ONNX; with what they cost in quality.

Weights are stored in safetensors, never pickled. For torch, int8 is a way to store them: it computes in float32,
because torch deprecated its int8 kernels. ONNX Runtime has its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from client.scoring.edge_files import write_edge
from client.scoring.model import SharedModel
from client.scoring.prune import check_share, int8_rows, prune as pruned_step, read_pruned, write_pruned
from client.scoring.step import StepModel, step_facts, step_model
from common.atomic import write_atomic
from common.data import ConsumerSequences
from common.errors import BadInputError, ConfigError

INT8_FILE, ONNX_FILE, ONNX_INT8_FILE, REPORT_FILE = (
    "step.int8.safetensors",
    "step.onnx",
    "step.int8.onnx",
    "export.json",
)
PRUNED_FILE = "step.pruned.safetensors"
PRUNED_ONNX_FILE, PRUNED_ONNX_INT8_FILE = "step.pruned.onnx", "step.pruned.int8.onnx"
FORMAT = "fedcart-step/1"
INT8_WEIGHTS = "torch, int8 file"
_TOP = 20
_CONSUMERS, _LONGEST = 200, 40

Arrays = tuple[NDArray[np.float32], ...]
Step = Callable[[NDArray[np.int64], NDArray[np.float32]], Arrays]
"""``features: int64[B, F], state: float32[S, layers, B, hidden]`` -> logits of each head, next state."""


def torch_step(step: nn.Module) -> Step:
    """A torch module as a function of arrays."""

    def run(features: NDArray[np.int64], state: NDArray[np.float32]) -> Arrays:
        with torch.no_grad():
            outputs = step(torch.from_numpy(features), torch.from_numpy(state))
        return tuple(part.numpy() for part in outputs)

    return run


def write_int8(step: StepModel, path: Path, facts: Mapping[str, Any]) -> None:
    """Store every matrix as int8 with one scale per row, the rest as float32. No pickle."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, value in step.state_dict().items():
        array = value.numpy()
        if array.ndim < 2:
            tensors[name] = array.copy()
            continue
        tensors[name], tensors[f"{name}/scale"] = int8_rows(array)
    write_atomic(
        path,
        save(tensors, metadata={"format": FORMAT, "facts": json.dumps(facts, sort_keys=True, allow_nan=False)}),
    )


def read_int8(shared: SharedModel, path: Path) -> StepModel:
    """The step with the stored weights, in float32. Raises: BadInputError for a damaged or foreign file."""
    step = step_model(shared)
    try:
        stored = load(path.read_bytes())
        weights = {
            name: torch.from_numpy(stored[name].astype(np.float32) * stored.get(f"{name}/scale", np.float32(1)))
            for name in step.state_dict()
        }
        step.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise BadInputError(f"{path} does not fit the model: {error}", hint="export the model again") from None
    return step


def write_onnx(step: StepModel, shared: SharedModel, path: Path) -> None:
    """Write the step as ONNX, batch size free. Raises: ConfigError without the extra ``onnx``."""
    _need_onnx()
    features, state = torch.ones(2, len(step.names), dtype=torch.int64), shared.model.first_state(2)
    free = torch.export.Dim("consumers")
    with _silent():
        torch.onnx.export(
            step,
            (features, state),
            str(path),
            input_names=["features", "state"],
            output_names=[*step.heads_in_order, "next_state"],
            dynamic_shapes={"features": {0: free}, "state": {2: free}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def write_onnx_int8(source: Path, path: Path) -> None:
    """Quantize the weights of an ONNX file. Raises: ConfigError without the extra ``onnx``."""
    _need_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = onnx.load(str(source))
    del plain.graph.value_info[:]  # the exporter's notes on shapes contradict those that the quantizer infers
    _untie(plain)
    with _silent():
        quantize_dynamic(plain, str(path), weight_type=QuantType.QInt8)


def _untie(model: Any) -> None:
    """Give every lookup its own table: the quantizer transposes a matrix that is also an output layer."""
    tables = {table.name: table for table in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Gather" and node.input[0] in tables:
            copy = model.graph.initializer.add()
            copy.CopyFrom(tables[node.input[0]])
            copy.name = f"{node.input[0]}/lookup{number}"
            node.input[0] = copy.name
    used = {name for node in model.graph.node for name in node.input}
    for table in [table for table in model.graph.initializer if table.name not in used]:
        model.graph.initializer.remove(table)


def onnx_step(path: Path) -> Step:
    """An ONNX file as a function of arrays, on one thread. Raises: ConfigError, BadInputError."""
    _need_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no public parent
        raise BadInputError(f"{path} is not a usable ONNX file: {error}", hint="export the model again") from None

    def run(features: NDArray[np.int64], state: NDArray[np.float32]) -> Arrays:
        return tuple(session.run(None, {"features": features, "state": state}))

    return run


def onnx_available() -> bool:
    """True if the extra ``onnx`` is installed."""
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


def _need_onnx() -> None:
    if not onnx_available():
        raise ConfigError("ONNX is not installed", hint='install the extra: pip install "fedcart[onnx]"')


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Exporters talk to stdout, to warnings and to the log; a command's output is its own."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@dataclass(frozen=True)
class Variant:
    """One way to run the step. Units: microseconds per event of one consumer (median, 99th percentile).

    ``nats`` and ``recall`` are the mean loss and Recall@20 of the next item (of the next event type for a model
    without items); ``worst`` the largest difference of a logit to the float32 model, over all heads and events.
    """

    name: str
    size_bytes: int
    median_us: float
    p99_us: float
    nats: float
    recall: float
    worst: float


def compare(
    shared: SharedModel, steps: Mapping[str, tuple[Step, int]], sequences: ConsumerSequences, repeats: int = 300
) -> list[Variant]:
    """Quality of every variant on the same events, and speed in turn (A B A B ...), one event at a time.

    ``steps`` maps names to (step, size in bytes), the float32 model first. Numbers are the site's own.
    """
    events = _events(shared, sequences)
    runs = {name: _replay(shared, step, events) for name, (step, _) in steps.items()}
    reference = next(iter(runs.values()))
    times = _times([step for step, _ in steps.values()], shared, events, repeats)
    result = []
    for (name, (_, size)), spent in zip(steps.items(), times, strict=True):
        nats, recall = _quality(shared, runs[name], events)
        worst = max(
            float(np.abs(a - b)[events.there].max(initial=0)) for a, b in zip(runs[name], reference, strict=True)
        )
        result.append(Variant(name, size, statistics.median(spent), _p99(spent), nats, recall, worst))
    return result


@dataclass(frozen=True)
class _Events:
    """Events as rectangles. Shapes: ``features: int64[B, T, F]``, ``there: bool[B, T]``."""

    features: NDArray[np.int64]
    there: NDArray[np.bool_]
    names: tuple[str, ...]


def _events(shared: SharedModel, sequences: ConsumerSequences) -> _Events:
    names = step_facts(shared).inputs
    rows = np.flatnonzero(sequences.lengths >= 2)[:_CONSUMERS]
    if not len(rows):
        raise BadInputError("no consumer has two events to compare on", hint="give a longer log")
    integers, _, lengths = sequences.padded(rows)
    columns = [sequences.integer_names.index(name) for name in names]
    features = integers[:, :_LONGEST, columns].astype(np.int64)
    there = np.arange(features.shape[1]) < lengths[:, None]
    return _Events(features, there, names)


def _replay(shared: SharedModel, step: Step, events: _Events) -> list[NDArray[np.float32]]:
    """Logits of each head behind every event: ``float32[B, T, ...]``."""
    state = shared.model.first_state(len(events.features)).numpy()
    steps: list[Arrays] = []
    for t in range(events.features.shape[1]):
        *answers, state = step(np.ascontiguousarray(events.features[:, t]), state)
        steps.append(tuple(answers))
    return [np.stack(parts, axis=1) for parts in zip(*steps, strict=True)]


def _quality(shared: SharedModel, run: list[NDArray[np.float32]], events: _Events) -> tuple[float, float]:
    facts = step_facts(shared)
    head, feature = ("next-item", "item") if "next-item" in facts.heads else ("next-event", "event")
    if head not in facts.heads:
        return float("nan"), float("nan")
    values = events.features[:, :, events.names.index(feature)]
    logits = torch.from_numpy(run[facts.heads.index(head)].copy())
    logits[..., 0] = float("-inf")
    if feature == "item" and facts.copy_bonus:
        seen = torch.zeros_like(logits)
        for t in range(values.shape[1]):
            seen[:, t:].scatter_(
                2, torch.from_numpy(values[:, t])[:, None, None].expand(-1, values.shape[1] - t, 1), 1
            )
        logits = logits + facts.copy_bonus * seen
        logits[..., 0] = float("-inf")
    asked = events.there[:, 1:] & (values[:, 1:] > 0)
    if not asked.any():
        return float("nan"), float("nan")
    wanted = torch.from_numpy(values[:, 1:][asked])
    share = torch.log_softmax(logits[:, :-1][torch.from_numpy(asked)], dim=1)
    own = share.gather(1, wanted[:, None])
    hit = (share > own).sum(1) < _TOP
    return float(-own.mean()), float(hit.double().mean())


def _times(steps: list[Step], shared: SharedModel, events: _Events, repeats: int) -> list[list[float]]:
    spent: list[list[float]] = [[] for _ in steps]
    state = shared.model.first_state(1).numpy()
    one = np.ascontiguousarray(events.features[:1, 0])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(repeats + 20):
            for place, step in enumerate(steps):
                begin = time.perf_counter()
                step(one, state)
                if turn >= 20:  # the first turns warm up
                    spent[place].append((time.perf_counter() - begin) * 1e6)
    finally:
        torch.set_num_threads(threads)
    return spent


def _p99(values: list[float]) -> float:
    return float(np.percentile(values, 99))


def export(
    shared: SharedModel, folder: Path, sequences: ConsumerSequences | None, *, onnx: bool, prune: float = 0.0
) -> tuple[list[Variant], list[str]]:
    """Write all files of an export and compare them. Returns the variants and the files' names.

    Without ``sequences`` nothing is compared. ``prune``: also without this share of the weights, 0 for none.
    Raises: ConfigError without the extra for ``onnx``, or for a share that cannot be pruned.
    """
    from common.strict_json import readable

    if onnx:
        _need_onnx()
    if prune:
        check_share(prune)
    folder.mkdir(parents=True, exist_ok=True)
    step, facts = step_model(shared), asdict(step_facts(shared))
    float_bytes = sum(4 * p.numel() for p in step.state_dict().values())
    write_int8(step, folder / INT8_FILE, facts)
    small = torch_step(read_int8(shared, folder / INT8_FILE))
    steps = {"torch float32": (torch_step(step), float_bytes), INT8_WEIGHTS: (small, _size(folder / INT8_FILE))}
    names = [INT8_FILE]
    if onnx:
        steps |= _onnx_files(step, shared, folder, (ONNX_FILE, ONNX_INT8_FILE), "onnx")
        names += [ONNX_FILE, ONNX_INT8_FILE, *write_edge(shared, folder)]
    if prune:
        pruned = pruned_step(step_model(shared), prune)
        write_pruned(pruned, folder / PRUNED_FILE, facts)
        again = torch_step(read_pruned(step_model(shared), folder / PRUNED_FILE))
        steps[f"pruned {prune:.0%}, int8 file"] = (again, _size(folder / PRUNED_FILE))
        names.append(PRUNED_FILE)
        if onnx:
            both = (PRUNED_ONNX_FILE, PRUNED_ONNX_INT8_FILE)
            steps |= _onnx_files(pruned, shared, folder, both, f"onnx pruned {prune:.0%}")
            names += both
    variants = compare(shared, steps, sequences) if sequences is not None else []
    report = {
        "format": FORMAT,
        "step": facts,
        "pruned": prune,
        "variants": [asdict(variant) for variant in variants],
    }
    write_atomic(folder / REPORT_FILE, readable(report).encode())
    return variants, [*names, REPORT_FILE]


def _onnx_files(
    step: StepModel, shared: SharedModel, folder: Path, files: tuple[str, str], words: str
) -> dict[str, tuple[Step, int]]:
    """A step as ONNX in float32 and in int8: name -> (step, bytes)."""
    plain, small = (folder / file for file in files)
    write_onnx(step, shared, plain)
    write_onnx_int8(plain, small)
    return {
        f"{words} {kind}": (onnx_step(file), _size(file)) for kind, file in (("float32", plain), ("int8", small))
    }


def _size(path: Path) -> int:
    return path.stat().st_size
