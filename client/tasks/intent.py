"""The site's half of purchase intent, alone or beside the next behaviour: as behaviour, with an answer per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import client.tasks.behaviour as behaviour

if TYPE_CHECKING:
    from common.data import ConsumerSequences
    from common.model import RowTargets
    from common.run import RunConfig

ANSWERS = behaviour.ANSWERS


def row_targets(config: RunConfig, sequences: ConsumerSequences) -> RowTargets | None:
    """Whether each consumer buys, asked at several moments. See ``common.model.targets``."""
    from common.model import targets

    return targets.row_targets(config, sequences)
