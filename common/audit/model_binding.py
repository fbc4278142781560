"""Is the model in a run folder the one that the records say? Their digests of it are signed, and by the sites too at the close.

So not even the coordinator, who signs model and manifest, can put another model there afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from common.contribution import TRAIN
from common.errors import FedcartError
from common.model_files import METADATA_FILE, WEIGHTS_FILE, read_document, verify_document
from common.run import CHECKPOINTS, RoundRecord, RunFolder, RunPlan, model_digest, round_files
from common.trust import Roster

_UNREADABLE = (FedcartError, OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError)


def model_problems(
    run: RunFolder, plan: RunPlan, roster: Roster, records: Sequence[RoundRecord]
) -> Iterator[tuple[str, str]]:
    """(file, what does not hold) of the last model, of the best one, and of the checkpoints, as far as they are there."""
    trained = [record for record in records if record.kind == TRAIN]
    if trained:
        last, any_round = {trained[-1].average}, {record.model for record in records}
        places = ((run.path, "", last), (run.best_model, f"{run.best_model.name}/", any_round))
        for folder, name, digests in places:
            if what := _wrong_with_model(folder, plan, roster, digests):
                yield f"{name}{METADATA_FILE}", what
    by_round = {record.round: (record.state, record.average) for record in trained}
    for path in round_files(run.checkpoints, "safetensors"):
        if what := _wrong_with_checkpoint(path, by_round):
            yield f"{CHECKPOINTS}/{path.name}", what


def _wrong_with_model(folder: Path, plan: RunPlan, roster: Roster, digests: set[str]) -> str:
    """What is wrong with the model in a folder; empty if nothing, or if there is none."""
    if not (folder / METADATA_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        return ""  # the manifest knows whether they are missing
    try:
        weights = (folder / WEIGHTS_FILE).read_bytes()
        document = read_document((folder / METADATA_FILE).read_bytes(), METADATA_FILE)
        if verify_document(document, weights, METADATA_FILE) != roster.coordinator.public_key:
            return "is signed by another coordinator than the roster's"
        if document["metadata"]["plan"] != json.loads(plan.to_json()):
            return "is of a run with another plan"
        if _digest(document["layout"], load_tensors(weights)) not in digests:
            return "is another model than the records, which the sites signed, say it is"
    except _UNREADABLE as error:
        return f"cannot be read as a model: {error}"
    return ""


def _digest(layout: Sequence[Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Digest of the parameters, put one after another as the layout says."""
    parts = []
    for name, shape in layout:
        tensor = np.asarray(tensors[name], dtype=np.float32)
        if tensor.size != math.prod(shape):
            raise ValueError(f"{name} has {tensor.size} values")
        parts.append(tensor.ravel())
    if len(parts) != len(tensors):
        raise ValueError("there are parameters that the layout does not name")
    return model_digest(np.concatenate(parts)).hex()


def _wrong_with_checkpoint(path: Path, by_round: Mapping[int, tuple[str, str]]) -> str:
    number = int(path.stem.rpartition("-")[2]) if path.stem.rpartition("-")[2].isdigit() else -1
    if number not in by_round:
        return ""  # before round 1, or of a round whose line the crash took: the manifest knows it
    try:
        tensors = load_tensors(path.read_bytes())
        found = tuple(model_digest(tensors[name]).hex() for name in ("parameters", "average"))
    except _UNREADABLE as error:
        return f"cannot be read: {error}"
    return "" if found == by_round[number] else f"holds another state than the record of round {number} says"
