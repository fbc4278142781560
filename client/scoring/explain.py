"""Which of a consumer's events led to a prediction or an alarm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.anomalies.likelihood import surprise
from client.scoring.model import SharedModel
from client.scoring.predict import WHAT, class_name, last_logits, predict_next
from common.data import ConsumerSequences
from common.errors import BadInputError
from common.model import INTENT, Batch, Batcher, ClassHead, RowHead, asked_now, history_at

GRADIENTS, OCCLUSION = "gradients", "occlusion"
INTENT_WORD, ALARM = "intent", "alarm"
_PATH = 64  # points between nothing and the events


@dataclass(frozen=True)
class Explanation:
    """Contribution of each event to an answer.

    Shapes: ``contributions: float64[L]`` in nats (log-probability, or logit for intent; surprise for an alarm),
    positive where the event speaks for the answer; ``attention: float64[L]`` shares, or None for a model without.
    ``total`` is the answer with all events, ``empty`` without any, where the method has such a thing (else NaN).
    """

    about: str
    choice: str
    probability: float
    method: str
    contributions: NDArray[np.float64]
    attention: NDArray[np.float64] | None
    total: float
    empty: float


@dataclass(frozen=True)
class _Question:
    """A head and, for several classes, which class."""

    head: str
    target: int
    now_us: int


def explain(
    shared: SharedModel,
    sequences: ConsumerSequences,
    about: str,
    choice: str = "",
    method: str = GRADIENTS,
    *,
    now_us: int | None = None,
) -> Explanation:
    """Explain one consumer's answer: about item, category, event (the best one, or ``choice``), intent, or alarm.

    ``gradients`` are integrated gradients from an empty row: contributions add up to the difference that the
    events make to the model's own score. The public copy bonus has no gradient; ``occlusion`` leaves each event
    out in turn and sees it. Counts of the past speak through the event that changed them. ``now_us`` is when a
    question about days is asked, at the consumer's last event if left out. An alarm's contributions are the events' own surprise, whatever the method.
    Raises: BadInputError for a model without the head, an unknown choice, or a consumer without two events.
    Source: Sundararajan, Taly, Yan 2017, section 3 (integrated gradients).
    """
    if len(sequences) != 1 or sequences.lengths[0] < 2:
        raise BadInputError("the consumer has fewer than two events", hint="there is nothing to attribute")
    if about == ALARM:
        return _alarm(shared, sequences)
    now = int(sequences.timestamps.max()) if now_us is None else now_us
    question, probability, name = _question(shared, sequences, about, choice, now)
    if method == OCCLUSION:
        parts, total = _occlusion(shared, sequences, question)
        empty = float("nan")
    else:
        parts, total, empty = _integrated(shared, sequences, question)
    share = _attention(shared, sequences) if about == INTENT_WORD else None
    return Explanation(about, name, probability, method, parts, share, total, empty)


def explain_choices(
    shared: SharedModel, sequences: ConsumerSequences, about: str, top: int, method: str = GRADIENTS
) -> list[Explanation]:
    """The ``top`` most probable answers about item, category or event, each explained: what speaks for one and not for another.

    Raises: BadInputError, also for a question that has no choices.
    """
    if about not in WHAT:
        raise BadInputError(f"{about} has no choices to compare", hint=f"--about one of: {', '.join(WHAT)}")
    likely = predict_next(shared, sequences, about, top).choices[0]
    names = [class_name(shared, about, int(one)) for one in likely if one]
    return [explain(shared, sequences, about, name, method) for name in names]


def _alarm(shared: SharedModel, sequences: ConsumerSequences) -> Explanation:
    nats = np.nansum(surprise(shared, sequences).nats.astype(np.float64), axis=1)
    mean = float(nats[1:].mean())
    return Explanation(ALARM, "surprise", float("nan"), "surprise", nats, None, mean, float("nan"))


def _whole(shared: SharedModel, sequences: ConsumerSequences, now_us: int) -> Batch:
    targets = asked_now(shared.plan.config, sequences, now_us)
    return Batcher(sequences, (), targets).packed(np.arange(len(sequences)))


def _question(
    shared: SharedModel, sequences: ConsumerSequences, about: str, choice: str, now_us: int
) -> tuple[_Question, float, str]:
    if about == INTENT_WORD:
        shared.need_head(INTENT)
        asked = _Question(INTENT, 0, now_us)
        share = torch.sigmoid(_scores(shared, _whole(shared, sequences, now_us), asked))
        return asked, float(share[0]), "will buy"
    head = WHAT.get(about)
    if head is None:
        raise BadInputError(
            f"nothing known about {about!r}", hint=f"one of: {', '.join([*WHAT, INTENT_WORD, ALARM])}"
        )
    shared.need_head(head)
    with torch.no_grad():
        shares = torch.softmax(last_logits(shared, _whole(shared, sequences, now_us), head)[0], dim=0)
    target = int(shares.argmax())
    if choice:
        names = {class_name(shared, about, i): i for i in range(1, len(shares))}
        if choice not in names:
            raise BadInputError(f"the model knows no {about} {choice!r}", hint="names are those of the catalogue")
        target = names[choice]
    return _Question(head, target, now_us), float(shares[target]), class_name(shared, about, target)


def _scores(shared: SharedModel, batch: Batch, question: _Question) -> Tensor:
    """Log-probability of the class, or logit of intent, for every consumer of a batch: ``[B]``, in batch order."""
    model = shared.model
    with torch.no_grad():
        if question.head == INTENT:
            return model.answers(INTENT, model.hidden_states(batch), batch)
        return torch.log_softmax(last_logits(shared, batch, question.head), dim=1)[:, question.target]


def _occlusion(
    shared: SharedModel, sequences: ConsumerSequences, question: _Question
) -> tuple[NDArray[np.float64], float]:
    """The answer with all events minus the answer without one of them."""
    length = int(sequences.lengths[0])
    total = float(_scores(shared, _whole(shared, sequences, question.now_us), question)[0])
    kept = np.array([[j for j in range(length) if j != i] for i in range(length)]).ravel()
    without = replace(
        sequences,
        consumers=np.arange(length, dtype=np.uint64),
        offsets=np.arange(length + 1, dtype=np.int64) * (length - 1),
        integers=sequences.integers[kept],
        numeric=sequences.numeric[kept],
        timestamps=sequences.timestamps[kept],
    )
    batch = _whole(shared, without, question.now_us)
    scores = np.empty(length)
    scores[batch.consumers.numpy()] = _scores(shared, batch, question).double().numpy()
    return total - scores, total


def _integrated(
    shared: SharedModel, sequences: ConsumerSequences, question: _Question
) -> tuple[NDArray[np.float64], float, float]:
    """Gradient of the answer along the straight path from an empty row, times the events' embeddings."""
    batch = _whole(shared, sequences, question.now_us)
    with torch.no_grad():
        x = shared.model.embed(batch.inputs)[None]  # [1, L, dim]; one consumer: packed order is time order
    # midpoints: the error of the sum shrinks with the square of their number
    share = (torch.arange(_PATH) + 0.5) / _PATH
    path = (share[:, None, None] * x).requires_grad_(True)  # [S, L, dim]
    answers = _answer(shared, path, batch, question)
    (gradient,) = torch.autograd.grad(answers.sum(), path)
    parts = (gradient.mean(0) * x[0]).sum(1)  # [L]
    with torch.no_grad():
        ends = _answer(shared, torch.cat([torch.zeros_like(x), x]), batch, question)
    counted = _counted(shared, sequences, question)
    return parts.double().numpy() + np.diff(counted, prepend=0.0), float(ends[1]) + counted[-1], float(ends[0])


def _counted(shared: SharedModel, sequences: ConsumerSequences, question: _Question) -> NDArray[np.float64]:
    """What the counts of the past say behind each event (intent only): an event adds the difference: ``[L]``."""
    head, length = shared.model.heads[question.head], int(sequences.lengths[0])
    counts = head.history if isinstance(head, RowHead) else None
    if counts is None:
        return np.zeros(length)
    copies = sequences.take(np.zeros(length, dtype=np.intp))
    config = shared.plan.config
    now = question.now_us if config.intent.ask == "days" else None
    known = torch.from_numpy(history_at(config, copies, np.arange(length), now))
    with torch.no_grad():
        said: NDArray[np.float64] = counts(known)[:, 0].double().numpy()
    return said


def _answer(shared: SharedModel, x: Tensor, batch: Batch, question: _Question) -> Tensor:
    """The model's answer from embedded events, many rows of one length at once. Shapes: ``[S, L, dim] -> [S]``."""
    model = shared.model
    hidden = model.encode(x)[0]  # [S, L, dim]
    head = model.heads[question.head]
    if isinstance(head, RowHead):
        if model.attention is None:
            return head.linear(hidden[:, -1])[:, 0]  # type: ignore[no-any-return]
        share = torch.softmax(model.attention(hidden)[..., 0], dim=1)
        return head.linear((hidden * share[..., None]).sum(1))[:, 0]  # type: ignore[no-any-return]
    assert isinstance(head, ClassHead)
    raw = head.linear(hidden[:, -1])  # [S, classes]
    bonus = torch.zeros(raw.shape[1])
    if question.head == "next-item":
        bonus[batch.seen_items] = shared.model.settings.copy_bonus
    elif question.head == "next-category":
        bonus[batch.category[batch.last_row]] = shared.model.settings.copy_bonus
    bonus[0] = float("-inf")
    return torch.log_softmax(raw + bonus, dim=1)[:, question.target]


def _attention(shared: SharedModel, sequences: ConsumerSequences) -> NDArray[np.float64] | None:
    if shared.model.attention is None:
        return None
    batch = _whole(shared, sequences, int(sequences.timestamps.max()))
    with torch.no_grad():
        share = shared.model.attention_weights(shared.model.hidden_states(batch), batch)
    return share.double().numpy()
