"""Personalizing models that read consumers: own network, tuned shared network, own counts beside each; the best serves.

    alone    a network of the site's own and its own counts, mixed
    joined   the shared network or the one tuned on own consumers, with own counts, mixed
    personal joined where it is clearly better than alone on the choosing slice, else alone

Everything is chosen by the consumers by whom the run has chosen, or by a slice of the training consumers; those on whom the run
reports are looked at once, for the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import client.personal.tuning as tuning
from client.models import localize, make_batcher
from client.personal.counts import OwnCounts, count
from client.personal.mixture import Shares, best_shares, install
from client.personal.start import OwnConsumers, SharedStart
from client.personal.tuning import Say, Scores, measured
from client.personal.verdict import ALONE, PERSONAL, SHARED, Verdict, clearly_better, compare
from common.data import ConsumerSequences
from common.model import STEP_HEADS, Batcher, FlatParameters, SequenceModel, StockedModel, Vector
from common.tasks import metric_names

TUNED = "tuned"
COMPARED = ("recall@20", "mrr@20", "event_accuracy", "category_accuracy")
HEAD_METRICS = {"next-item": "recall@20", "next-event": "event_accuracy", "next-category": "category_accuracy"}
RANK_COUNTS = (
    0.1  # of a hit: at 1 a site of purchases gave up four points of hits for the ranks of its transitions
)
MOST_TO_CHOOSE = 1_000  # consumers for whom mixtures are tried


@dataclass(frozen=True)
class Personal:
    """What a site makes for itself. ``network: float32[d']`` with the item rows ``mask: bool[V]``; ``base``: shared, tuned or
    alone; ``trained``: rows of them that the network knows; ``shares`` and ``counts`` of each step head."""

    base: str
    network: Vector
    mask: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    shares: dict[str, Shares] = field(default_factory=dict)
    counts: dict[str, OwnCounts] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What it is made of."""
        mixed = ", ".join(
            f"{s.counts:.0%} own counts for the {head.replace('-', ' ')}"
            for head, s in self.shares.items()
            if s.counts
        )
        names = {
            ALONE: "alone: a network of its own",
            SHARED: "the shared network as it is",
            TUNED: "the shared network, tuned",
        }
        return names[self.base] + (f", {mixed}" if mixed else "")


@dataclass(frozen=True)
class Candidate:
    """A network with its mixtures, and how each consumer of the slice fares under it: ``scores: float64[N]``."""

    base: str
    vector: Vector
    trained: NDArray[np.bool_]
    shares: dict[str, Shares]
    scores: Scores


class Workshop:
    """One site's work: rows in the item ids of its personal model, and candidates measured on the same consumers."""

    def __init__(self, start: SharedStart, own: OwnConsumers, say: Say) -> None:
        from common.privacy import TRAIN_SIDE, VALIDATION_SIDE

        self.start, self.say, self.config = start, say, start.plan.config
        self.mask = start.rows_with(_joined(*own.train))
        self.rows, self.model = start.network(self.mask, start.vector)
        self.fit, self.choose, self.holdout = (
            localize(part, self.rows) for part in (own.fit, own.choose, own.holdout)
        )
        self.chosen_by = VALIDATION_SIDE if own.validation else TRAIN_SIDE
        self.steps = [head for head in self.config.model.heads if head in STEP_HEADS]
        self.names = metric_names(list(self.config.model.heads))
        known = np.zeros(len(self.rows.rows), dtype=np.bool_)
        known[:] = start.trained[self.rows.rows]
        self.known, self.all = known, np.ones(len(known), dtype=np.bool_)

    def batcher(self, rows: ConsumerSequences, side: str = "") -> Batcher:
        """Rows with the targets by which the run's metrics are measured; ``side``: of those to choose by, left out."""
        return make_batcher(rows, self.config, side or self.chosen_by)

    def every_step(self, rows: ConsumerSequences) -> Batcher:
        """Rows to learn from: every step is a lesson, whatever is measured."""
        every = self.config.model.model_copy(update={"targets": "every"})
        return make_batcher(rows, self.config.model_copy(update={"model": every}))

    def score(self, table: Scores, head: str = "") -> Scores:
        """What decides, of each consumer that has an answer: hits and, between equals, their rank for items, else right answers
        and the loss. The verdict is on hits: what serves is chosen by them too."""
        answered = table[table[:, 0] > 0]
        column = {name: answered[:, place] for place, name in enumerate(self.names)}
        deciding = head or next((name for name in HEAD_METRICS if name in self.config.model.heads), "")
        if deciding == "next-item":
            return column["recall@20"] + RANK_COUNTS * column["mrr@20"]
        right = column[HEAD_METRICS[deciding]] if deciding else np.zeros(len(answered))
        return np.asarray(right - 0.1 * column["loss"], dtype=np.float64)

    def trained(self, base: str) -> Vector:
        """Parameters of the shared network, the tuned one, or one of the site's own."""
        if base == SHARED:
            return FlatParameters(self.start.network(self.mask, self.start.vector)[1]).numpy()
        model = self.start.network(self.mask, None if base == ALONE else self.start.vector)[1]
        data = self.every_step(self.fit), self.batcher(self.choose)
        schedule = tuning.ALONE if base == ALONE else tuning.TUNE
        return tuning.tuned(
            model, data, lambda table: float(self.score(table).mean()), schedule, self._saying(base)
        )

    def _saying(self, base: str) -> Say:
        what = {ALONE: "own network", TUNED: "tuning the shared network"}[base]
        return lambda _what, done, total: self.say(what, done, total)

    def candidate(self, base: str, vector: Vector) -> Candidate:
        """The best mixture of a network with own counts for each head, on the choosing slice."""
        known = self.known if base == SHARED else self.all
        model = self.with_network(vector)
        rows = self.batcher(self.choose.take(np.arange(min(len(self.choose), MOST_TO_CHOOSE))))
        counts = self.counts(self.fit)
        shares: dict[str, Shares] = {}
        for done, head in enumerate(self.steps):
            self.say(f"mixing own counts into the {base} network", done, len(self.steps))

            def measure(share: Shares, head: str = head) -> Scores:
                install(model, head, counts[head], share, _barred(head, known))
                return self.score(measured(model, rows), head)

            shares[head] = best_shares(measure, counts[head].likeness is not None)[0]
            install(model, head, counts[head], shares[head], _barred(head, known))
        return Candidate(base, vector, known, shares, self.score(measured(model, self.batcher(self.choose))))

    def with_network(self, vector: Vector) -> SequenceModel:
        """A network at these parameters ``float32[d']``, with plain heads."""
        model = self.start.network(self.mask, None)[1]
        FlatParameters(model).load(vector)
        return model

    def counts(self, rows: ConsumerSequences) -> dict[str, OwnCounts]:
        """Own counts of each step head."""
        sizes = self.start.sizes | {"item": len(self.rows.rows)}
        return {head: count(rows, head, sizes[STEP_HEADS[head]]) for head in self.steps}

    def finished(self, candidate: Candidate) -> Personal:
        """A candidate with counts over all training consumers, the slice among them."""
        counts = self.counts(_joined(self.fit, self.choose))
        used = {head: counts[head] for head, share in candidate.shares.items() if share.counts}
        return Personal(candidate.base, candidate.vector, self.mask, candidate.trained, candidate.shares, used)

    def served(self, personal: Personal) -> SequenceModel:
        """The model that answers."""
        return mixed_model(self.with_network(personal.network), personal)

    def holdout_table(self, model: SequenceModel) -> Scores:
        """Metrics of each held-out consumer."""
        from common.privacy import HOLDOUT_SIDE

        return measured(model, self.batcher(self.holdout, HOLDOUT_SIDE))


@dataclass(frozen=True)
class Made:
    """The personal model, its verdicts on the hold-out, and the other two models for who wants to go on with them."""

    personal: Personal
    verdicts: tuple[Verdict, ...]
    alone: Personal
    joined: Personal
    workshop: Workshop


def personalize(start: SharedStart, own: OwnConsumers, say: Say) -> Made:
    """Make a site's personal model of next behaviour. Nothing of it leaves; nothing is charged."""
    shop = Workshop(start, own, say)
    alone = shop.candidate(ALONE, shop.trained(ALONE))
    joined = [shop.candidate(base, shop.trained(base)) for base in (SHARED, TUNED)]
    best = max(joined, key=lambda one: float(one.scores.mean()) if len(one.scores) else 0.0)
    chosen = best if clearly_better(best.scores, alone.scores) else alone
    made = {ALONE: shop.finished(alone), PERSONAL: shop.finished(chosen)}
    plain = Candidate(SHARED, shop.trained(SHARED), shop.known, dict.fromkeys(shop.steps, Shares()), best.scores)
    made[SHARED] = replace(shop.finished(plain), counts=shop.counts(shop.fit))
    tables = {who: shop.holdout_table(shop.served(one)) for who, one in made.items()}
    return Made(
        made[PERSONAL], _verdicts(shop, tables, made[PERSONAL].words), made[ALONE], shop.finished(best), shop
    )


def _verdicts(shop: Workshop, tables: dict[str, Scores], words: str) -> tuple[Verdict, ...]:
    there = tables[ALONE][:, 0] > 0
    compared = [name for name in COMPARED if name in shop.names]
    return tuple(
        compare(name, {who: table[there, shop.names.index(name)] for who, table in tables.items()}, words)
        for name in compared
    )


def mixed_model(model: SequenceModel, personal: Personal) -> SequenceModel:
    """Put the mixtures of a personal model into a network with its parameters."""
    for head, share in personal.shares.items():
        if head in personal.counts:
            install(model, head, personal.counts[head], share, _barred(head, personal.trained))
    return model


def _barred(head: str, known: NDArray[np.bool_]) -> torch.Tensor | None:
    """Item rows that the network never learnt; row 0 is barred anyway."""
    if head != "next-item" or known[1:].all():
        return None
    return torch.from_numpy(~known)


def _joined(first: ConsumerSequences, second: ConsumerSequences) -> ConsumerSequences:
    lengths = np.concatenate([first.lengths, second.lengths])
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("consumers", "integers", "numeric", "timestamps")
    }
    return replace(first, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), **parts)


def rows_of(personal: Personal, start: SharedStart) -> StockedModel:
    """How the personal model's item ids lie in the catalogue."""
    return start.network(personal.mask, None)[0]
