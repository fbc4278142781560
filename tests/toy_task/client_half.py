"""The site's half of basket size: trained and measured as behaviour, with its own answer for each consumer."""

from __future__ import annotations

import numpy as np
from common.tasks.basket import BUCKETS, HEAD

from client.tasks import behaviour
from common.data.formats import EVENT_TYPES
from common.data.sequences import ConsumerSequences
from common.model.targets import RowTargets
from common.run import RunConfig

ANSWERS = behaviour.ANSWERS


def row_targets(_config: RunConfig, sequences: ConsumerSequences) -> RowTargets:
    """The last quarter of each row is the question, the rest may be read; rows of one event have no answer."""
    counts = sequences.lengths
    lengths = counts - np.minimum(np.maximum(counts // 4, 1), counts)
    bought = np.concatenate([[0], np.cumsum(sequences.column("event") == EVENT_TYPES.index("purchase") + 1)])
    ends = sequences.offsets[1:]
    size = bought[ends] - bought[sequences.offsets[:-1] + lengths]
    answer = np.where(lengths > 0, np.minimum(size, BUCKETS - 1), np.nan)
    return RowTargets(lengths.astype(np.int64), {HEAD: answer.astype(np.float64)})
