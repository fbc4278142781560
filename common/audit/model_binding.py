"""Is the model in a run folder the one that the records say? Their digests of it are signed, and by the sites too at the close.

So not even the coordinator, who signs model and manifest, can put another model there afterwards, nor another description: how
many rounds and which sites made it, and by which released figure it is called the best.
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
from common.run import BEST, CHECKPOINTS, RoundRecord, RunFolder, RunPlan, model_digest, round_files
from common.trust import Roster

LAST = "last"
_UNREADABLE = (FedcartError, OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError)


def model_problems(
    run: RunFolder, plan: RunPlan, roster: Roster, records: Sequence[RoundRecord]
) -> Iterator[tuple[str, str]]:
    """(file, what does not hold) of the last model, of the best one, and of the checkpoints, as far as they are there."""
    trained = [record for record in records if record.kind == TRAIN]
    if trained:
        last, any_round = {trained[-1].average}, {record.model for record in records}
        for folder, name, digests in ((run.path, LAST, last), (run.best_model, BEST, any_round)):
            where = METADATA_FILE if name == LAST else f"{BEST}/{METADATA_FILE}"
            found = _read_model(folder, plan, roster, digests)
            if isinstance(found, str):
                yield where, found
            elif found is not None:
                yield from ((where, what) for what in _wrong_facts(run, plan, records, name, found))
    by_round = {record.round: (record.state, record.average) for record in trained}
    for path in round_files(run.checkpoints, "safetensors"):
        if what := _wrong_with_checkpoint(path, by_round):
            yield f"{CHECKPOINTS}/{path.name}", what


def _read_model(
    folder: Path, plan: RunPlan, roster: Roster, digests: set[str]
) -> tuple[Mapping[str, Any], str] | str | None:
    """What the model's description says, and the digest of its parameters; or what is wrong with it. None if there is none."""
    if not (folder / METADATA_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        return None  # the manifest knows whether they are missing
    try:
        weights = (folder / WEIGHTS_FILE).read_bytes()
        document = read_document((folder / METADATA_FILE).read_bytes(), METADATA_FILE)
        if verify_document(document, weights, METADATA_FILE) != roster.coordinator.public_key:
            return "is signed by another coordinator than the roster's"
        if document["metadata"]["plan"] != json.loads(plan.to_json()):
            return "is of a run with another plan"
        digest = _digest(document["layout"], load_tensors(weights))
        if digest not in digests:
            return "is another model than the records, which the sites signed, say it is"
    except _UNREADABLE as error:
        return f"cannot be read as a model: {error}"
    return document["metadata"], digest


def _wrong_facts(
    run: RunFolder, plan: RunPlan, records: Sequence[RoundRecord], which: str, found: tuple[Mapping[str, Any], str]
) -> Iterator[str]:
    """What the description of a model says and the records do not. Of a run that is under way it may be an earlier one's."""
    from common.data import FeatureSpec

    said, digest = found
    summary = run.summary()
    if summary is None or not run.manifest():
        return
    sums = [record for record in records if record.kind == TRAIN and not record.aborted]
    sites = [site for site, did in sums[-1].sites.items() if did.status == "ok"] if sums else []
    wanted: dict[str, Any] = {"which": which, "status": summary.status, "private": plan.config.privacy.enabled}
    wanted["sizes"] = FeatureSpec.from_json(json.loads(plan.features)).sizes
    if which == LAST:
        wanted["rounds"] = sum(record.kind == TRAIN for record in records)
    else:
        rounds, metric = said.get("rounds"), said.get("chosen_by")
        value = next(
            (r.released.get(str(metric)) for r in records if r.model == digest and r.round - 1 == rounds), None
        )
        wanted["value"] = said.get("value") if value is None else value
        if value is None:
            yield "says that another round than the records' measured it"
    for name, value in wanted.items():
        if said.get(name) != value:
            yield f"says {name} {str(said.get(name))[:40]}, the records say {value}"
    if sorted(said.get("sites", ())) != sorted(sites):
        yield "says that other sites made it than the records"


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
