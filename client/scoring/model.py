"""The shared model, opened for use on a site's own data: run folder or model file -> network, features, names.

Nothing here leaves the site and nothing is charged: a released model may be used without limit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.personal.file import PersonalFile, load_personal
from client.personal.start import SharedStart
from common.data import Catalogue, ConsumerSequences, EventLog, FeatureSpec, build_sequences, read_catalogue
from common.errors import BadInputError, ConfigError
from common.model import (
    FlatParameters,
    ModelShape,
    SequenceModel,
    StockedModel,
    build_model,
    check_layout,
    layout_of,
    load_model,
)
from common.run import METADATA_FILE, WEIGHTS_FILE, RunFolder, RunPlan


@dataclass(frozen=True)
class OwnPart:
    """What is personal beside the network: how intent is answered, what is usual here, the shared network for its logit."""

    kept: PersonalFile
    shared: SequenceModel

    @property
    def words(self) -> str:
        """What the personal model is made of."""
        return self.kept.personal.words


@dataclass(frozen=True)
class SharedModel:
    """A released model over the items that somebody trained (or one site stocks), with all names.

    ``model`` has rows for these items only; ``rows`` translates between its item ids and the catalogue's.
    ``catalogue`` is None for a model with hashed item buckets only. ``personal``: what a site has made on top of it; the
    network and the heads are then its own.
    """

    model: SequenceModel
    rows: StockedModel
    spec: FeatureSpec
    catalogue: Catalogue | None
    plan: RunPlan
    facts: dict[str, Any]
    personal: OwnPart | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the model's heads."""
        return tuple(self.model.settings.heads)

    @property
    def max_events(self) -> int:
        """Last events of a consumer that the model was trained on."""
        return self.plan.config.features.max_events

    def item_name(self, local: int) -> str:
        """Name of one of the model's item ids; a hashed bucket is ``bucket:N``."""
        index = int(self.rows.rows[local])
        if index == 0:
            return ""
        if self.catalogue is not None and index <= self.spec.catalogue_items:
            return self.catalogue.items[index - 1]
        return f"bucket:{index - self.spec.catalogue_items}"

    def category_name(self, index: int) -> str:
        """Name of a category index; empty for unknown."""
        if index == 0:
            return ""
        if self.catalogue is not None and index <= self.spec.catalogue_categories:
            return self.catalogue.categories[index - 1]
        return f"bucket:{index - self.spec.catalogue_categories}"

    def category_of(self, local: int) -> str:
        """Category of one of the model's item ids, as the public catalogue has it."""
        index = int(self.rows.rows[local])
        if self.catalogue is None or index > self.spec.catalogue_items:
            return ""
        return self.category_name(int(self.catalogue.item_category[index]))

    def need_head(self, name: str) -> None:
        """Refuse a task that the model was not trained for. Raises: BadInputError naming its heads."""
        if name not in self.heads:
            raise BadInputError(
                f"this model has no head {name!r}, it was trained for: {', '.join(self.heads)}",
                hint=f"train one with --set model.heads.{name}=1.0, or a task that has this head",
            )

    def sequences(self, log: EventLog, *, max_events: int = 0, cut: int | None = None) -> ConsumerSequences:
        """Encode a log with the model's item ids; items that it does not know become unknown (0).

        ``max_events`` 0 means as many as in training; ``cut`` is that of ``build_sequences``.
        """
        encoded = build_sequences(
            log, self.spec, self.catalogue, max_events=max_events or self.max_events, cut=cut
        )
        return self.localize(encoded)

    def localize(self, sequences: ConsumerSequences) -> ConsumerSequences:
        """Replace catalogue ids by the model's item ids."""
        integers = sequences.integers.copy()
        column = sequences.integer_names.index("item")
        integers[:, column] = self.rows.translate(integers[:, column])
        return replace(sequences, integers=integers)


def open_model(
    path: Path, *, catalogue: Path | None = None, site: str = "", personal: Path | None = None
) -> SharedModel:
    """Open a run folder, a model folder or one of its two files, with the catalogue beside it or the given one.

    With ``site`` only the items of that site can be predicted; else every item that some site trained. ``personal``: the
    file of a personal model on top of this one, which then answers.
    Raises: BadInputError or ConfigError for a missing, damaged or foreign file, a catalogue that is not the
    model's, or a site without declared stock.

    Example:
        >>> shared = open_model(Path("runs/latest"))  # doctest: +SKIP
    """
    folder = path.parent if path.name in (WEIGHTS_FILE, METADATA_FILE) or path.suffix == ".safetensors" else path
    if not folder.is_dir():
        raise BadInputError(f"no such model: {path}", hint="name a run folder, or its model.safetensors")
    start, names, facts = open_start(folder, catalogue, site)
    rows, model = start.network(start.trained, start.vector)
    spec = FeatureSpec.from_json(json.loads(start.plan.features))
    shared = SharedModel(model, rows, spec, names, start.plan, facts)
    return shared if personal is None else with_own(shared, start, load_personal(personal))


def open_start(
    folder: Path, catalogue: Path | None = None, site: str = ""
) -> tuple[SharedStart, Catalogue | None, dict[str, Any]]:
    """The shared parameters of a model folder, its catalogue, and the facts beside them. Raises: as ``open_model``."""
    vector, layout, metadata = load_model(folder)
    plan, spec = _plan_of(folder, metadata)
    if plan.task.network != "sequence":
        raise BadInputError(
            "this model forecasts sales, it does not read consumers", hint="use it with `fedcart forecast`"
        )
    names = _catalogue_of(folder, spec, catalogue)
    check_layout(layout, layout_of(build_model(plan.config.model, ModelShape(spec.sizes), plan.config.seed)))
    facts = {name: value for name, value in metadata.items() if name not in ("plan", "sizes")}
    return SharedStart(plan, vector, _candidates(folder, spec, names, site)), names, facts


def with_own(shared: SharedModel, start: SharedStart, kept: PersonalFile) -> SharedModel:
    """The personal model in the place of the shared one. Raises: BadInputError if it was made on top of another."""
    from client.personal.behaviour import mixed_model

    personal = kept.personal
    rows, model = start.network(_fitting(personal.mask, start.trained), None)
    if personal.network.shape != (rows.index.size,) or personal.trained.shape != rows.rows.shape:
        raise BadInputError(
            "the personal model was made on top of another shared one", hint="make it again: fedcart personalize"
        )
    FlatParameters(model).load(personal.network)
    before = start.network(personal.mask, start.vector)[1]
    return replace(shared, model=mixed_model(model, personal), rows=rows, personal=OwnPart(kept, before))


def _fitting(mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if mask.shape != known.shape:
        raise BadInputError(
            "the personal model was made with another catalogue", hint="make it again: fedcart personalize"
        )
    return mask


def _plan_of(folder: Path, metadata: dict[str, Any]) -> tuple[RunPlan, FeatureSpec]:
    try:
        plan = RunPlan.from_json(json.dumps(metadata["plan"], allow_nan=False))
        return plan, FeatureSpec.from_json(json.loads(plan.features))
    except (KeyError, ValueError, ConfigError, BadInputError) as error:
        reason = error.message if isinstance(error, BadInputError) else f"{type(error).__name__} {error}"
        raise BadInputError(
            f"{folder / METADATA_FILE} is of another version: {reason}",
            hint="use the version of fedcart that trained the model",
        ) from None


def _catalogue_of(folder: Path, spec: FeatureSpec, given: Path | None) -> Catalogue | None:
    if not spec.catalogue_digest:
        return None
    path = given or RunFolder(folder).catalogue_file
    if not path.is_file():
        raise BadInputError(
            f"the model's catalogue is not at {path}", hint="give the run's catalogue file with --catalogue"
        )
    catalogue = read_catalogue(path)
    if catalogue.digest().hex() != spec.catalogue_digest:
        raise BadInputError(
            f"{path} is not the model's catalogue: digest {catalogue.digest().hex()[:12]}, "
            f"the model has {spec.catalogue_digest[:12]}",
            hint="use the catalogue file of the run that trained the model",
        )
    return catalogue


def _candidates(folder: Path, spec: FeatureSpec, names: Catalogue | None, site: str) -> NDArray[np.bool_]:
    """Item rows that were trained. Rows that no site shared were never updated: they must not be predicted."""
    trained = np.ones(spec.sizes["item"], dtype=np.bool_)
    stored = RunFolder(folder).item_masks()
    if site and site in stored:
        trained = stored[site]
    elif site and names is not None and site in names.stock:
        trained[: spec.catalogue_items + 1] = names.mask(site)
    elif site:
        known = sorted(stored) or sorted(names.stock if names else ())
        raise BadInputError(f"no declared stock of a site {site!r}", hint=f"known: {', '.join(known) or 'none'}")
    elif stored:
        trained = np.logical_or.reduce(list(stored.values()))
    if trained.shape != (spec.sizes["item"],) or not trained[1:].any():
        raise BadInputError(
            f"the item masks in {folder} do not fit the model", hint="use the files of one run together"
        )
    return trained
