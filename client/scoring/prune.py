"""Magnitude pruning: the smallest weights of every matrix become zero, and a file that does not store them.

Zeros make the file smaller, not the computation faster: the kernels of torch and ONNX Runtime multiply zeros too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.scoring.step import StepModel
from common.atomic import write_atomic
from common.errors import BadInputError, ConfigError

FORMAT = "fedcart-pruned/1"


def check_share(share: float) -> None:
    """Return if a share of weights can be pruned. Raises: ConfigError."""
    if not 0 < share < 1:
        raise ConfigError(
            f"a share of {share:g} cannot be pruned", hint="between 0 and 1, for example --prune 0.5"
        )


def prune(step: StepModel, share: float) -> StepModel:
    """Set the ``share`` smallest weights of every matrix to zero, in place; vectors (biases) are kept.

    Source: Han, Pool, Tran, Dally 2015, "Learning both weights and connections" (without training afterwards).
    """
    check_share(share)
    done = set()
    with torch.no_grad():
        for value in step.parameters():
            if value.dim() < 2 or value.data_ptr() in done:
                continue
            done.add(value.data_ptr())  # a table that is also an output layer is one matrix
            count = int(share * value.numel())
            smallest = value.abs().flatten().argsort(stable=True)[:count]
            value.view(-1)[smallest] = 0.0
    return step


def int8_rows(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers and one scale per row, whose product is the matrix up to half a scale.

    Shapes: ``matrix: float32[n, m]`` -> ``int8[n, m]``, ``float32[n, 1]``.
    """
    scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-12) / 127
    return np.rint(matrix / scale).astype(np.int8), scale.astype(np.float32)


def write_pruned(step: StepModel, path: Path, facts: Mapping[str, Any]) -> None:
    """Store of every matrix where it is not zero (one bit per weight) and these weights as int8 with one scale per row."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, value in step.state_dict().items():
        array = value.numpy()
        if array.ndim < 2:
            tensors[name] = array.copy()
            continue
        there = array != 0
        rows, tensors[f"{name}/scale"] = int8_rows(array)
        tensors[f"{name}/there"], tensors[name] = np.packbits(there), rows[there]
    facts = {"format": FORMAT, "facts": json.dumps(facts, sort_keys=True, allow_nan=False)}
    write_atomic(path, save(tensors, metadata=dict(facts)))


def read_pruned(step: StepModel, path: Path) -> StepModel:
    """The step with the stored weights, in float32. Raises: BadInputError for a damaged or foreign file."""
    try:
        stored, weights = load(path.read_bytes()), {}
        for name, like in step.state_dict().items():
            if like.dim() < 2:
                weights[name] = torch.from_numpy(stored[name].copy())
                continue
            there = np.unpackbits(stored[f"{name}/there"], count=like.numel()).astype(np.bool_)
            whole = np.zeros(like.numel(), dtype=np.float32)
            whole[there] = stored[name]
            weights[name] = torch.from_numpy(whole.reshape(tuple(like.shape)) * stored[f"{name}/scale"])
        step.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise BadInputError(f"{path} does not fit the model: {error}", hint="export the model again") from None
    return step
