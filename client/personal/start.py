"""What personalizing begins with: the shared parameters, which of their item rows were trained, and a site's own consumers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data import ConsumerSequences, FeatureSpec, Sides, holdout_mask
from common.errors import BadInputError
from common.model import (
    FlatParameters,
    ModelShape,
    SequenceModel,
    StockedModel,
    Vector,
    build_model,
    item_rows,
    layout_of,
)
from common.run import RunPlan

FEWEST = 20  # consumers with an answer, on each side, below which nothing can be said


@dataclass(frozen=True)
class SharedStart:
    """Shapes: ``vector: float32[d]`` of the whole catalogue; ``trained: bool[V]`` item rows that sites trained."""

    plan: RunPlan
    vector: Vector
    trained: NDArray[np.bool_]

    @property
    def sizes(self) -> dict[str, int]:
        """Embedding rows of each feature."""
        return dict(FeatureSpec.from_json(json.loads(self.plan.features)).sizes)

    def rows_with(self, own: ConsumerSequences) -> NDArray[np.bool_]:
        """Item rows of a personal model: those that were trained, and what the site's own training consumers had: ``bool[V]``."""
        mask = self.trained.copy()
        mask[np.unique(own.column("item"))] = True
        mask[0] = False
        return mask

    def network(self, mask: NDArray[np.bool_], vector: Vector | None) -> tuple[StockedModel, SequenceModel]:
        """A network with these item rows: at the shared parameters, or untrained where ``vector`` is None."""
        config, sizes = self.plan.config, self.sizes
        whole = build_model(config.model, ModelShape(sizes), config.seed)
        rows = item_rows(layout_of(whole), whole.item_tensors(), mask)
        model = build_model(config.model, ModelShape(sizes | {"item": len(rows.rows)}), config.seed)
        if vector is not None:
            FlatParameters(model).load(rows.restrict(vector))
        model.eval()
        return rows, model


@dataclass(frozen=True)
class OwnConsumers:
    """A site's rows with the catalogue's item ids: to learn from (``fit``), to choose by, and to report on, each apart.

    ``validation``: those to choose by are the run's validation part, no slice of its training rows.
    """

    fit: ConsumerSequences
    choose: ConsumerSequences
    holdout: ConsumerSequences
    validation: bool = False

    @staticmethod
    def of(sides: Sides, key: bytes) -> OwnConsumers:
        """Choose by the consumers by whom the run has chosen; where there are too few of them, by a slice of the training rows,
        cut out by keyed hash of the consumer. Raises: BadInputError for too few.
        """
        train, holdout = sides.train, sides.holdout
        count = len(train)
        wanted = min(max(count // 10, 200), count // 4)
        if wanted < FEWEST or len(holdout) < FEWEST:
            raise BadInputError(
                f"{count} consumers to learn from and {len(holdout)} held out are too few to tell what is better",
                hint=f"{4 * FEWEST} and {FEWEST} are needed; the shared model as it is serves a site of any size",
            )
        if len(sides.validation) >= wanted:
            return OwnConsumers(train, sides.validation, holdout, validation=True)
        apart = hashlib.sha256(b"fedcart/choosing-slice/1\0" + key).digest()
        chosen = holdout_mask(train.consumers, apart, wanted / count)
        return OwnConsumers(train.take(~chosen), train.take(chosen), holdout)

    @property
    def train(self) -> tuple[ConsumerSequences, ConsumerSequences]:
        """All that may be learnt from, in its two parts."""
        return self.fit, self.choose
