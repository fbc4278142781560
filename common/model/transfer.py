"""Begin a run with the parameters of an earlier one: what was learnt for one task serves the next."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from common.data import FeatureSpec
from common.errors import BadInputError
from common.model.network import SequenceModel
from common.model.parameters import load_model


def adopt(model: SequenceModel, folder: Path, spec: FeatureSpec) -> tuple[str, ...]:
    """Copy every tensor that the earlier model has under the same name and in the same shape; returns the names.

    The rest keeps its initial values: another task's head begins anew. A released model is public, so beginning
    with it costs nothing; what it cost its consumers was charged then, and adds up in the scope of their ledger.
    Raises: BadInputError for an unusable model, one with another encoding or catalogue, or one without the encoder.
    """
    from common.model_files import METADATA_FILE

    vector, layout, metadata = load_model(folder)
    try:
        earlier = FeatureSpec.from_json(json.loads(metadata["plan"]["features"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{folder / METADATA_FILE} is of another version: {error}", hint="train the earlier model again"
        ) from None
    if earlier.canonical() != spec.canonical():
        raise BadInputError(
            f"the model in {folder} was trained with another catalogue or encoding",
            hint="start from a run with the same catalogue and features",
        )
    tensors, adopted = layout.split(vector), []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tensors and tensors[name].shape == tuple(parameter.shape):
                parameter.copy_(torch.from_numpy(tensors[name].copy()))
                adopted.append(name)
    needed = [name for name, _ in model.named_parameters() if name.startswith(("encoder.", "item."))]
    missing = [name for name in needed if name not in adopted]
    if missing:
        raise BadInputError(
            f"the model in {folder} has no {missing[0]} of this shape",
            hint="the encoder, its widths and layers must be those of the earlier run",
        )
    return tuple(adopted)
