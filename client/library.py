"""The models that a site was given: verified when they come and when they are opened, one folder each, one of them in use.

    state/models/RUN-rNNNNN/   model.safetensors, model.json (signed), roster.json, catalogue.json, masks.npz
    state/models/in-use.json   which one the operator chose, and what was in use before

A folder is renamed to its name when it is whole; one that was cut off has another name and is swept away.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from client.site import Site
from client.verification import check_plan
from common.atomic import disk_errors, private_folder, sync_directory, write_atomic
from common.errors import BadInputError, FedcartError, VerificationError
from common.model_files import MAX_HEADER_BYTES, read_document, signer_of, verify_document
from common.run import CATALOGUE_FILE, MASKS_FILE, METADATA_FILE, WEIGHTS_FILE, Delivery, RunPlan
from common.strict_json import one_line
from common.trust import ROSTER_FILE, Roster

if TYPE_CHECKING:
    from common.deployment import SiteKit

CHOICE, KEPT = "in-use.json", "kept.json"
UNFINISHED = ".incoming-"
REMEMBERED = 20  # earlier choices


@dataclass(frozen=True)
class KeptModel:
    """One model of a site. ``which``: last or best of its run; ``finished``: seconds since 1970, as its coordinator signed;
    ``took_part``: whether an answer of this site may be in it; ``catalogue``: digest of the catalogue it belongs to."""

    name: str
    folder: Path
    run: str
    task: str
    which: str
    rounds: int
    finished: int
    sites: tuple[str, ...]
    digest: str
    catalogue: str
    took_part: bool
    private: bool


@dataclass(frozen=True)
class Arrival:
    """A model as it comes: both files as they are, and what the coordinator announced; None if a person brought it."""

    document: bytes
    weights: bytes
    announced: Delivery | None = None


def keep_model(site: Site, arrival: Arrival) -> KeptModel:
    """Verify a model and keep it, together with the catalogue it belongs to; the newest becomes the one in use.

    A model of a run in which this site took no part is kept, and in use only when its operator says so. What an operator
    chose (``use_model``) stays in use.
    Raises: BadInputError, VerificationError, PolicyRefusedError (another population, roster or catalogue) for what this
    site does not accept; nothing is kept then.
    """
    facts, plan = _verified(site, arrival)
    _sweep(private_folder(site.kit.models))
    for known in kept_models(site.kit):
        if known.digest == _digest(arrival):
            return known
        if (known.run, known.which) == (plan.run, facts["which"]) and known.rounds >= facts["rounds"]:
            raise VerificationError(
                f"a model of run {plan.run} behind {facts['rounds']} rounds came after one behind {known.rounds}",
                hint="it is not taken: ask the coordinator which of them holds",
            )
    return _opened(site.kit, _write(site, arrival, plan, _name_of(facts, plan)))


def kept_models(kit: SiteKit) -> list[KeptModel]:
    """All models of a site, the newest first. A folder that is not whole, or not signed, is left out."""
    found = []
    for path in sorted(kit.models.glob("*/" + METADATA_FILE)) if kit.models.is_dir() else ():
        with suppress(FedcartError, OSError):
            if not path.parent.name.startswith("."):
                found.append(_opened(kit, path.parent))
    return sorted(found, key=lambda one: (one.finished, one.which == "best", one.rounds), reverse=True)


def damaged_models(kit: SiteKit) -> list[str]:
    """Names of folders that are there and cannot be used."""
    known = {one.name for one in kept_models(kit)}
    there = [p.name for p in kit.models.iterdir() if p.is_dir()] if kit.models.is_dir() else []
    return sorted(name for name in there if name not in known and not name.startswith("."))


def model_in_use(kit: SiteKit) -> KeptModel:
    """The model that this site works with: the operator's choice, else the newest of a run that it took part in.

    Raises: BadInputError if there is none, or the chosen one is gone or damaged.
    """
    chosen, models = _choice(kit)["chosen"], kept_models(kit)
    if chosen:
        for one in models:
            if one.name == chosen:
                return one
        raise BadInputError(
            f"the model in use, {chosen}, is gone or damaged",
            hint=f"fedcart site use {kit.path} another one, or latest; the coordinator sends it again: server deliver",
        )
    for one in models:
        if one.took_part:
            return one
    hint = "the coordinator sends it at the end of a run, at the next one, or with: fedcart server deliver"
    if models:
        hint = f"{models[0].name} is of a run that this site took no part in: fedcart site use {kit.path} {models[0].name}"
    raise BadInputError(f"the kit {kit.path} has no model yet", hint=hint)


def use_model(kit: SiteKit, name: str) -> KeptModel:
    """Work with this model from now on, whatever comes; ``latest``: with the newest again. Raises: BadInputError."""
    if name != "latest" and name not in {one.name for one in kept_models(kit)}:
        known = ", ".join(one.name for one in kept_models(kit)) or "none"
        raise BadInputError(f"no usable model {name!a}", hint=f"known: {known}, latest")
    now, before = _name_in_use(kit), _choice(kit)["before"]
    _choose(kit, "" if name == "latest" else name, [*before, now] if now else before)
    return model_in_use(kit)


def roll_back(kit: SiteKit) -> KeptModel:
    """Work with the model that was in use before, else the next older one. Raises: BadInputError if there is none."""
    now, models = model_in_use(kit), kept_models(kit)
    names, earlier = [one.name for one in models], list(_choice(kit)["before"])
    while earlier and (earlier[-1] == now.name or earlier[-1] not in names):
        earlier.pop()
    older = names[names.index(now.name) + 1 :]
    if not earlier and not older:
        raise BadInputError(f"there is no model before {now.name}", hint=f"fedcart site models {kit.path}")
    _choose(kit, earlier[-1] if earlier else older[0], earlier[:-1])
    return model_in_use(kit)


def _verified(site: Site, arrival: Arrival) -> tuple[dict[str, Any], RunPlan]:
    """Facts and plan of a model that this site's coordinator signed, about a run that this site could be in."""
    document = read_document(arrival.document, METADATA_FILE)
    key = verify_document(document, arrival.weights, METADATA_FILE)
    if key != site.roster.coordinator.public_key:
        raise VerificationError("the model is signed by another coordinator than this site's")
    facts, plan = _facts_of(document)
    said = arrival.announced
    if said is not None and (said.run, said.plan, said.rounds, said.document) != (
        plan.run, plan.digest().hex(), facts["rounds"], _digest(arrival)
    ):  # fmt: skip
        raise VerificationError(
            f"the model of run {plan.run} is not the one that was announced, of run {said.run}"
        )
    if len(arrival.weights) > 4 * plan.parameters + MAX_HEADER_BYTES:
        raise BadInputError(
            f"the model has {len(arrival.weights)} bytes, its plan says {plan.parameters} parameters"
        )
    if site.name not in plan.sites:
        raise VerificationError(f"the model is of run {plan.run}, which is not one of this site's")
    check_plan(site, plan)
    _require_numbers(arrival.weights, plan)
    return facts, plan


def _facts_of(document: dict[str, Any]) -> tuple[dict[str, Any], RunPlan]:
    try:
        facts = dict(document["metadata"])
        plan = RunPlan.from_json(json.dumps(facts["plan"], allow_nan=False))
        whole = [facts["rounds"], facts["finished"]]
        if any(type(value) is not int or value < 0 for value in whole) or facts["which"] not in ("last", "best"):
            raise ValueError("which, rounds or finished")
        tuple(str(name) for name in facts["sites"])
    except (KeyError, TypeError, ValueError, BadInputError) as error:
        raise BadInputError(
            f"{METADATA_FILE} is of another version: {str(error)[:120]}", hint="both sides need the same version"
        ) from None
    return facts, plan


def _require_numbers(weights: bytes, plan: RunPlan) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(weights)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"the model is damaged: {str(error)[:120]}") from None
    if sum(tensor.size for tensor in tensors.values()) != plan.parameters:
        raise BadInputError(f"the model does not have the {plan.parameters} parameters of its plan")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise BadInputError("the model holds a value that is not finite")


def _name_of(facts: dict[str, Any], plan: RunPlan) -> str:
    return f"{plan.run}-r{facts['rounds']:05d}" + ("-best" if facts["which"] == "best" else "")


def _described(folder: Path, facts: dict[str, Any], plan: RunPlan, local: dict[str, Any]) -> KeptModel:
    return KeptModel(
        folder.name, folder, plan.run, plan.config.task, facts["which"], facts["rounds"], facts["finished"],
        tuple(facts["sites"]), local["model"], str(json.loads(plan.features).get("catalogue_digest", "")),
        bool(local["took_part"]), plan.config.privacy.enabled,
    )  # fmt: skip


def _opened(kit: SiteKit, folder: Path) -> KeptModel:
    """What a folder holds: signed by the coordinator of the kit's roster, whole, with the catalogue of its plan.

    The digest of the weights is compared when they are read (``open_model``). Raises: BadInputError, VerificationError.
    """
    raw = (folder / METADATA_FILE).read_bytes()
    document = read_document(raw, str(folder / METADATA_FILE))
    if signer_of(document, str(folder)) != Roster.load(kit.roster).coordinator.public_key:
        raise VerificationError(f"{folder} is signed by another coordinator than this site's")
    facts, plan = _facts_of(document)
    try:
        local = dict(json.loads((folder / KEPT).read_bytes()))
        whole = local["model"] == hashlib.sha256(raw).hexdigest() and folder.name == _name_of(facts, plan)
        whole = whole and (folder / WEIGHTS_FILE).stat().st_size == local["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise BadInputError(f"{folder} is not whole", hint="remove it; the coordinator sends the model again")
    return _described(folder, facts, plan, local)


def _write(site: Site, arrival: Arrival, plan: RunPlan, name: str) -> Path:
    """All files of a model under a passing name, then the folder under its own."""
    from common.data import FeatureSpec, write_catalogue
    from common.data.sharing import shared_item_masks

    catalogue = site.catalogue_of(plan)
    spec = FeatureSpec.from_json(json.loads(plan.features))
    masks: dict[str, Any] = dict(
        shared_item_masks(spec, catalogue, plan.sites, plan.config.aggregation.min_stockists)
    )
    rows = io.BytesIO()
    np.savez_compressed(rows, **masks)
    local = {"took_part": _took_part(site, plan.run), "bytes": len(arrival.weights), "model": _digest(arrival)}
    with disk_errors(site.kit.models):
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=site.kit.models))
    files = {WEIGHTS_FILE: arrival.weights, MASKS_FILE: rows.getvalue(), KEPT: one_line(local).encode()}
    for file, content in (files | {METADATA_FILE: arrival.document}).items():
        write_atomic(folder / file, content, mode=0o600)
    if catalogue is not None:
        write_catalogue(catalogue, folder / CATALOGUE_FILE)
    site.roster.save(folder / ROSTER_FILE)
    place = site.kit.models / name
    with disk_errors(place):
        shutil.rmtree(place, ignore_errors=True)  # one that was damaged: a whole one would have been returned
        os.rename(folder, place)
        sync_directory(site.kit.models)
    return place


def _digest(arrival: Arrival) -> str:
    return hashlib.sha256(arrival.document).hexdigest()


def _took_part(site: Site, run: str) -> bool:
    """Whether a contribution of this site to the run has left, by its own ledger."""
    with site.guard().ledger.transaction() as state:
        return any(r.body.run == run and r.state == "committed" for r in state.reservations.values())


def _sweep(models: Path) -> None:
    for path in models.glob(UNFINISHED + "*"):
        shutil.rmtree(path, ignore_errors=True)


def _name_in_use(kit: SiteKit) -> str:
    try:
        return model_in_use(kit).name
    except BadInputError:
        return ""


def _choice(kit: SiteKit) -> dict[str, Any]:
    """What the operator chose, empty for the newest; and what was in use before. Raises: BadInputError."""
    path = kit.models / CHOICE
    if not path.exists():
        return {"chosen": "", "before": []}
    try:
        said = json.loads(path.read_bytes())
        return {"chosen": str(said["chosen"]), "before": [str(name) for name in said["before"]]}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInputError(
            f"{path} is damaged", hint="remove it, and choose again with: fedcart site use"
        ) from None


def _choose(kit: SiteKit, name: str, before: list[str]) -> None:
    said = {"chosen": name, "before": before[-REMEMBERED:]}
    write_atomic(private_folder(kit.models) / CHOICE, one_line(said).encode(), mode=0o600)
