"""Predictions as tables, one list per column: for the command line, files, and the front door for Python."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import client.scoring.predict as scoring
from client.scoring.consumers import LocalLog
from client.scoring.model import SharedModel
from common.data import ConsumerSequences
from common.errors import BadInputError, ConfigError
from common.model import asked_now, row_targets
from common.tasks import INTENT

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class NextQuestion:
    """What is to be predicted: ``kinds`` of item, category, event, other heads (none: all the model has), ``top`` of each."""

    kinds: tuple[str, ...] = ()
    top: int = 20
    exclude_known: bool = False
    consumer: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.top, int) or self.top < 1:
            raise ConfigError(f"the top {self.top!r} of the choices cannot be shown", hint="1 or more")


def next_table(shared: SharedModel, log: LocalLog, asked: NextQuestion) -> tuple[Columns, dict[str, Any]]:
    """Consumer, what, rank, choice, category, probability; and what was asked. Raises: BadInputError."""
    kinds = _kinds(shared, asked.kinds)
    sequences = _sequences(shared, log, asked.consumer)
    columns: Columns = {n: [] for n in ("consumer", "what", "rank", "choice", "category", "probability")}
    for kind in kinds:
        predicted = scoring.predict_next(shared, sequences, kind, asked.top, exclude_known=asked.exclude_known)
        for who, choices, shares in zip(
            predicted.consumers, predicted.choices, predicted.probabilities, strict=True
        ):
            name = log.shown(int(who))
            for rank, (choice, share) in enumerate(zip(choices, shares, strict=True), start=1):
                if choice == 0:
                    break
                category = shared.category_of(int(choice)) if kind == "item" else ""
                row = (name, kind, rank, scoring.class_name(shared, kind, int(choice)), category, float(share))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    facts = {"consumers": len(sequences), "what": list(kinds), "exclude_known": asked.exclude_known}
    return columns, {"task": "next"} | facts


def intent_table(
    shared: SharedModel, log: LocalLog, *, threshold: float | None = None, consumer: str = ""
) -> tuple[Columns, dict[str, Any]]:
    """Consumer, probability, whether they will buy; and how the model does on this log's own past.

    ``threshold`` None: chosen on one half of the log's past. Raises: BadInputError for a model without the head.
    """
    shared.need_head(INTENT)
    past = shared.sequences(log.log, cut=shared.plan.config.intent.cut_us)
    targets = row_targets(shared.plan.config, past)
    assert targets is not None
    check = scoring.check_intent(shared, past, targets, log.key)
    used = check.threshold if threshold is None else threshold
    sequences = _sequences(shared, log, consumer)
    now = asked_now(shared.plan.config, sequences, int(past.timestamps.max(initial=0)))
    scores: NDArray[np.float64] = scoring.intent_scores(shared, sequences, now)
    columns: Columns = {
        "consumer": [log.shown(int(who)) for who in sequences.consumers],
        "probability": scores.tolist(),
        "will_buy": [bool(score >= used) for score in scores],
    }
    question = shared.plan.config.intent.model_dump(mode="json")
    facts = {"task": "intent", "consumers": len(sequences), "question": question, "threshold": used}
    return columns, facts | {"check": asdict(check)}


def _kinds(shared: SharedModel, wanted: tuple[str, ...]) -> tuple[str, ...]:
    possible = scoring.answerable(shared)
    meant: dict[str, tuple[str, ...]] = {head: (what,) for what, head in scoring.WHAT.items()}
    if shared.plan.task.name not in possible:
        meant[shared.plan.task.name] = possible
    kinds = tuple(kind for word in wanted for kind in meant.get(word, (word,))) or possible
    for kind in kinds:
        if kind not in possible:
            raise BadInputError(
                f"this model cannot predict the next {kind!r}",
                hint=f"it can: {', '.join(possible) or 'nothing next'}",
            )
    if not kinds:
        raise BadInputError(
            f"this model was trained for {', '.join(shared.heads)} only",
            hint="use --task intent, or another model",
        )
    return kinds


def _sequences(shared: SharedModel, log: LocalLog, consumer: str) -> ConsumerSequences:
    return shared.sequences(log.at(log.find(consumer)) if consumer else log.log)
