"""``ServerState``: everything that lives from round to round. Saved, it is the checkpoint.

A checkpoint is one safetensors file with its metadata and a SHA-256 over its content, written atomically:
a run resumes from the newest one that verifies.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors, save as save_tensors

from common.atomic import write_atomic
from common.errors import BadInputError
from common.run import model_digest, round_file, round_files

Vector = NDArray[np.float32]
_FORMAT = "fedcart-checkpoint/1"


@dataclass(frozen=True)
class ServerState:
    """Shapes: ``parameters, average: float32[d]``; ``moments[*]``: float32, as the strategy has them.

    ``round``: rounds done. ``plan``: hex digest of the run's plan, so that a checkpoint cannot continue a
    different run. ``losses``: the released loss per round, for
    early stopping. ``stopped``: sites that will not be asked again, with the reason. ``record``: the last
    round's line of ``metrics.jsonl``, in case the process ended before that was written.
    """

    parameters: Vector
    average: Vector
    plan: str
    round: int = 0
    moments: dict[str, Vector] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    stopped: dict[str, str] = field(default_factory=dict)
    record: str = ""

    @cached_property
    def digests(self) -> tuple[bytes, bytes]:
        """``model_digest`` of the parameters, and of the averaged ones: hashing a model takes milliseconds."""
        of_parameters = model_digest(self.parameters)
        return of_parameters, of_parameters if self.average is self.parameters else model_digest(self.average)

    def digest_of(self, vector: Vector) -> bytes:
        """``model_digest`` of one of its vectors, or of any other."""
        known = {id(self.average): 1, id(self.parameters): 0}
        return self.digests[known[id(vector)]] if id(vector) in known else model_digest(vector)

    @staticmethod
    def initial(parameters: Vector, plan_digest: bytes) -> ServerState:
        """The state before round 1."""
        return ServerState(parameters, parameters.copy(), plan_digest.hex())


def save_checkpoint(folder: Path, state: ServerState) -> Path:
    """Write ``round-NNNNN.safetensors`` atomically. Raises: WorkFailedError (disk full)."""
    tensors = {"parameters": state.parameters, "average": state.average}
    tensors |= {f"moment.{name}": value for name, value in state.moments.items()}
    facts = {
        "round": state.round,
        "plan": state.plan,
        "losses": state.losses,
        "stopped": state.stopped,
        "record": state.record,
    }
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    metadata = {"format": _FORMAT, "state": text, "sha256": _digest(tensors, text)}
    path = round_file(folder, state.round, "safetensors")
    write_atomic(path, save_tensors(tensors, metadata))
    return path


def load_checkpoint(path: Path) -> ServerState:
    """Read and verify one checkpoint. Raises: BadInputError if it is damaged or of another version."""
    try:
        data = path.read_bytes()
        tensors = load_tensors(data)
        metadata = _metadata(data)
        facts = json.loads(metadata["state"])
        if metadata["format"] != _FORMAT or metadata["sha256"] != _digest(tensors, metadata["state"]):
            raise ValueError("digest")
        moments = {k.removeprefix("moment."): v for k, v in tensors.items() if k.startswith("moment.")}
        return ServerState(
            tensors["parameters"],
            tensors["average"],
            facts["plan"],
            facts["round"],
            moments,
            tuple(facts["losses"]),
            facts["stopped"],
            facts["record"],
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"checkpoint {path} is damaged or of another version", hint="remove it to resume from the one before"
        ) from error


def latest_checkpoint(folder: Path) -> ServerState:
    """The newest checkpoint. Raises: BadInputError if there is none or the newest does not verify."""
    paths = round_files(folder, "safetensors")
    if not paths:
        raise BadInputError(f"no checkpoint in {folder}", hint="the run never started; start it anew")
    return load_checkpoint(paths[-1])


def _digest(tensors: dict[str, Vector], text: str) -> str:
    content = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        content.update(name.encode() + b"\0")
        content.update(np.ascontiguousarray(tensors[name]).data)
    return content.hexdigest()


def _metadata(data: bytes) -> dict[str, str]:
    """The ``__metadata__`` of a safetensors file: an 8-byte length, then a JSON header."""
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata
