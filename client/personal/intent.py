"""Will this consumer buy, asked of a site's own trees beside the networks; the trees may read the shared network's logit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from client.personal.behaviour import Made
from client.personal.start import OwnConsumers
from client.personal.trees import Table, Trees
from client.personal.verdict import ALONE, PERSONAL, SHARED, Figure, Verdict, is_clear
from common.data import ConsumerSequences
from common.model import INTENT, Batcher, RowTargets, SequenceModel, row_targets
from common.model.intent_baselines import fitted_trees, intent_table
from common.run import RunConfig

NETWORK, TREES, BOTH = "network", "trees", "trees that read the shared network"
EVERY = (
    ", of every ask"  # earlier moments of a consumer teach too: good where what is usual stays, bad where it moves
)
_KINDS = {ALONE: (NETWORK, TREES, TREES + EVERY), PERSONAL: (NETWORK, BOTH, BOTH + EVERY)}
_AT_ONCE = 256


@dataclass(frozen=True)
class PersonalIntent:
    """``kind``: network (the personal model's own), trees, or trees that read the shared network's logit."""

    kind: str
    trees: Trees | None = None


@dataclass(frozen=True)
class _Rows:
    """Rows of one part, what they are asked, what the trees read of them, the shared network's logit."""

    sequences: ConsumerSequences
    targets: RowTargets
    table: Table
    logit: Table

    @property
    def labels(self) -> Table:
        """1 for buyers, 0 for others, NaN where there is no answer: ``float64[N]``."""
        return self.targets.values[INTENT]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Rows with an answer."""
        return np.isfinite(self.labels)

    def read(self, kind: str) -> Table:
        """The table as one kind of trees reads it."""
        return with_logit(self.table, self.logit) if kind.startswith(BOTH) else self.table


def with_logit(table: Table, logit: Table) -> Table:
    """The table of a row's past with the shared network's logit as its last column."""
    return np.concatenate([table, logit[:, None]], axis=1)


def logits(model: SequenceModel, sequences: ConsumerSequences, targets: RowTargets) -> Table:
    """The network's logit for every row, NaN for a row without events: ``float64[N]``."""
    batcher, found = Batcher(sequences, (), targets), np.full(len(sequences), np.nan)
    with torch.no_grad():
        for start in range(0, len(sequences), _AT_ONCE):
            batch = batcher.packed(np.arange(start, min(start + _AT_ONCE, len(sequences))))
            if batch.steps:
                said = model.answers(INTENT, model.hidden_states(batch), batch).double()
                said[batch.lengths == 0] = torch.nan
                found[batch.consumers.numpy()] = said.numpy()
    return found


def personalize_intent(made: Made, config: RunConfig) -> tuple[PersonalIntent, Verdict]:
    """Choose among the networks and the trees on the choosing slice; the verdict on the hold-out."""
    shop = made.workshop
    shared = shop.with_network(shop.trained(SHARED))
    own = OwnConsumers(shop.fit, shop.choose, shop.holdout)
    learnt, slice_, asked = (_rows(shared, part, config) for part in (own.fit, own.choose, own.holdout))
    choose, held = slice_[-1], asked[-1]  # judged at the last moment; trees learn from earlier ones too
    networks = {who: shop.with_network(one.network) for who, one in ((ALONE, made.alone), (PERSONAL, made.joined))}
    tried = {who: _tried(kinds, networks[who], [learnt], choose) for who, kinds in _KINDS.items()}
    labels = choose.labels[choose.known]
    alone, joined = (
        max(tried[who], key=lambda kind: _area(tried[who][kind], labels)) for who in (ALONE, PERSONAL)
    )
    gain = auc_gain(tried[PERSONAL][joined], tried[ALONE][alone], labels)
    who = PERSONAL if is_clear(gain) else ALONE
    # the personal model has one network: of answers by a network only that one's can be given
    other = PERSONAL if made.personal.base == ALONE else ALONE
    possible = {kind: scores for kind, scores in tried[who].items() if kind != NETWORK or who != other}
    kind = max(possible, key=lambda k: _area(possible[k], labels))
    parts, scores = [learnt, slice_], {SHARED: _probability(held.logit)[held.known]}
    scores[ALONE] = _asked(alone, networks[ALONE], parts, held)[held.known]
    scores[PERSONAL] = _asked(kind, networks[who], parts, held)[held.known]
    trees = None if kind == NETWORK else _grown(kind, parts)
    words = f"{who if who == ALONE else 'joined'}: {kind}"
    return PersonalIntent(kind, trees), auc_verdict(scores, held.labels[held.known], words)


def _tried(
    kinds: tuple[str, ...], network: SequenceModel, learnt: list[list[_Rows]], choose: _Rows
) -> dict[str, Table]:
    """What each way of answering says on the choosing slice: probability of each row with an answer."""
    return {kind: _asked(kind, network, learnt, choose)[choose.known] for kind in kinds}


def _area(scores: Table, labels: Table) -> float:
    """Area under the ROC curve, below all others where there is none."""
    value = _auc_figure(*_placements(scores, labels)).value
    return value if math.isfinite(value) else -math.inf


def auc_gain(candidate: Table, incumbent: Table, labels: Table) -> Figure:
    """How much larger the area under one curve is, and the error of that: paired."""
    one, other = _placements(candidate, labels), _placements(incumbent, labels)
    return _auc_figure(one[0] - other[0], one[1] - other[1])


def own_scores(
    own: PersonalIntent, shared: SequenceModel, sequences: ConsumerSequences, targets: RowTargets
) -> Table:
    """Probability of a purchase by own trees: ``float64[N]``, NaN for a row without events.

    ``shared``: the shared network with the personal model's item rows.
    """
    assert own.trees is not None
    table, logit = intent_table(sequences, targets), logits(shared, sequences, targets)
    scores = own.trees.probability(with_logit(table, logit) if own.kind.startswith(BOTH) else table)
    return np.where(np.isnan(logit), np.nan, scores)


def _rows(shared: SequenceModel, sequences: ConsumerSequences, config: RunConfig) -> list[_Rows]:
    """The rows of one part at each moment at which they are asked, the judged one last."""
    targets = row_targets(config, sequences)
    assert targets is not None
    return [
        _Rows(sequences, at, intent_table(sequences, at), logits(shared, sequences, at))
        for at in targets.moments()
    ]


def _grown(kind: str, parts: list[list[_Rows]]) -> Trees:
    """Trees of the judged moments, or of every moment, of several parts."""
    taken = [rows for part in parts for rows in (part if kind.endswith(EVERY) else part[-1:])]
    table = np.concatenate([rows.read(kind)[rows.known] for rows in taken])
    labels = np.concatenate([rows.labels[rows.known] for rows in taken])
    fitted, columns = fitted_trees(table, labels)
    return Trees.of(fitted, columns, float(labels.mean()) if len(labels) else 0.5)


def _asked(kind: str, network: SequenceModel, learnt: list[list[_Rows]], rows: _Rows) -> Table:
    """Probability of a purchase of each row: by a network, or by trees grown on other rows."""
    if kind == NETWORK:
        return _probability(logits(network, rows.sequences, rows.targets))
    return _grown(kind, learnt).probability(rows.read(kind))


def _probability(logit: Table) -> Table:
    return np.asarray(1 / (1 + np.exp(-np.nan_to_num(logit))))


def auc_verdict(scores: dict[str, Table], labels: Table, words: str) -> Verdict:
    """Area under the ROC curve of each party, and the paired difference with its error.

    Source: DeLong, DeLong, Clarke-Pearson 1988.
    """
    figures = {who: _auc_figure(*_placements(values, labels)) for who, values in scores.items()}
    gain = auc_gain(scores[PERSONAL], scores[ALONE], labels)
    return Verdict("intent_auc", len(labels), figures, gain, words)


def _placements(scores: Table, labels: Table) -> tuple[Table, Table]:
    """For each buyer the share of others below, for each other the share of buyers above."""
    yes, no = scores[labels == 1], scores[labels == 0]
    if not len(yes) or not len(no):
        return np.zeros(0), np.zeros(0)
    below, above = np.sort(no), np.sort(yes)
    of_yes = (np.searchsorted(below, yes, "left") + np.searchsorted(below, yes, "right")) / (2 * len(no))
    of_no = 1 - (np.searchsorted(above, no, "left") + np.searchsorted(above, no, "right")) / (2 * len(yes))
    return of_yes, of_no


def _auc_figure(of_yes: Table, of_no: Table) -> Figure:
    if len(of_yes) < 2 or len(of_no) < 2:
        return Figure(math.nan, math.nan)
    error = math.sqrt(of_yes.var(ddof=1) / len(of_yes) + of_no.var(ddof=1) / len(of_no))
    return Figure(float(of_yes.mean()), error)
