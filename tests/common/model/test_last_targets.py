"""Targets at the last step only: which step is asked, that nothing else is computed, and that it is the same number."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from client.models import make_batcher
from common.data.sequences import ConsumerSequences
from common.model.batch import Batch, Batcher
from common.model.heads import ItemHead
from common.model.metrics import consumer_metrics, mean_over_steps
from common.model.network import ModelShape, build_model
from common.run import ModelSettings, RunConfig, build_config
from common.tasks import metric_names
from tests.common.model.tiny_market import sequences_of
from tests.dpsgd_samples import batcher_of, model_of

EVENTS = [3, 9, 0, 6, 2, 8, 1]
ROWS = np.arange(len(EVENTS))
HEADS = {"next-item": 1.0, "next-event": 0.3}


def last_known(batch: Batch, head: str) -> dict[int, int]:
    """Consumer of the batch -> its last step with a known target, read off the targets of every step."""
    target = batch.targets[head].reshape(-1)
    found: dict[int, int] = {}
    for row in torch.nonzero(target > 0).flatten().tolist():
        who, step = int(batch.consumer_of_row[row]), int(batch.step_of_row[row])
        found[who] = max(step, found.get(who, -1))
    return found


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("head", ["next-item", "next-event"])
def test_each_consumer_is_asked_at_its_last_known_target_and_nowhere_else(layout: str, head: str) -> None:
    for seed in range(5):
        every = getattr(batcher_of(EVENTS, seed), layout)(ROWS)
        last = getattr(batcher_of(EVENTS, seed, targets="last"), layout)(ROWS)
        want = last_known(every, head)
        assert last_known(last, head) == want
        assert int((last.targets[head] > 0).sum()) == len(want)
        for who, row in enumerate(last.target_rows[head].tolist()):
            if every.lengths[who]:
                assert int(every.consumer_of_row[row]) == who
            if who in want:
                assert int(every.step_of_row[row]) == want[who]
                assert float(last.weights[head].reshape(-1)[row]) == 1.0


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("negatives", [0, 7])
def test_loss_and_metrics_are_those_of_the_last_known_step(layout: str, negatives: int) -> None:
    for seed in range(3):
        every = getattr(batcher_of(EVENTS, seed), layout)(ROWS)
        batch = getattr(batcher_of(EVENTS, seed, targets="last"), layout)(ROWS)
        model = model_of(torch.float32, seed, heads=HEADS, sampled_negatives=negatives).eval()
        hidden, want = model.hidden_states(batch), torch.zeros(batch.size)
        for name, weight in HEADS.items():
            losses = model.heads[name].step_losses(hidden, every.targets[name], every).reshape(-1)
            for who, step in last_known(every, name).items():
                row = int(torch.nonzero((every.consumer_of_row == who) & (every.step_of_row == step))[0])
                want[who] += weight * losses[row]
        torch.testing.assert_close(model.losses(batch), want)
        found = consumer_metrics(model, batch)
        accuracy = found[:, metric_names(list(model.settings.heads)).index("event_accuracy")]
        logits = model.heads["next-event"].logits(hidden, every)
        right = (logits.argmax(-1) == every.targets["next-event"]).double().reshape(-1, 1)
        np.testing.assert_allclose(accuracy, mean_over_steps(right, batch, "next-event")[:, 0])


def test_packed_and_padded_rows_agree_on_every_number() -> None:
    batcher, model = batcher_of(EVENTS, 2, targets="last"), model_of(torch.float32, 3, heads=HEADS).eval()
    a, b = batcher.packed(ROWS), batcher.padded(ROWS)
    torch.testing.assert_close(model.losses(a), model.losses(b))
    np.testing.assert_allclose(consumer_metrics(model, a), consumer_metrics(model, b), atol=1e-6)


def test_logits_exist_for_the_target_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = ItemHead.logits

    def watched(self: ItemHead, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        seen.append(tuple(hidden.shape))
        return plain(self, hidden, batch)

    in_pieces = ItemHead.logits_in_pieces

    def watched_pieces(self: ItemHead, states: torch.Tensor, batch: Batch) -> Iterator[tuple[slice, torch.Tensor]]:
        seen.append(tuple(states.shape))
        return in_pieces(self, states, batch)

    monkeypatch.setattr(ItemHead, "logits", watched)
    monkeypatch.setattr(ItemHead, "logits_in_pieces", watched_pieces)
    model, batch = model_of(torch.float32, 1, heads=HEADS), batcher_of(EVENTS, 1, targets="last").packed(ROWS)
    model.losses(batch)
    consumer_metrics(model, batch)
    assert seen == [(len(EVENTS), 6)] * 2


def test_a_run_asks_where_its_settings_say() -> None:
    integers = np.array([[1, 1], [1, 2], [1, 3], [2, 2], [2, 1]], dtype=np.int32)
    sequences = ConsumerSequences(
        np.arange(2, dtype=np.uint64),
        np.array([0, 3, 5]),
        integers,
        np.zeros((5, 0), np.float32),
        np.arange(5),
        ("event", "item"),
        (),
    )
    for targets, asked in (("every", 3), ("last", 2)):
        config = build_config({}, [f"model.targets={targets}"])
        batch = make_batcher(sequences, config).packed(np.arange(2))
        assert int((batch.targets["next-item"] > 0).sum()) == asked


def test_the_model_reads_the_features_it_is_told_to() -> None:
    shape = ModelShape({"item": 5_001, "event": 9, "category": 11, "hour": 25})
    settings = ModelSettings(dim=64, hidden=64, tied=False, context=(), heads={"next-item": 1.0})
    count = sum(p.numel() for p in build_model(settings, shape, 1).parameters())
    assert count == 5_001 * 64 + 4 * 64 * (64 + 64 + 2) + 5_001 * 65  # embedding, one LSTM layer, linear
    some = build_model(settings.model_copy(update={"context": ("event", "hour")}), shape, 1)
    assert list(some.context) == ["event", "hour"]
    with pytest.raises(ValidationError, match="no feature named colour"):
        ModelSettings(context=("colour",))
    assert RunConfig().model.context == ModelSettings(context=RunConfig().model.context[::-1]).context


@pytest.mark.parametrize("targets", ["every", "last"])
@pytest.mark.parametrize("bonus", [0.0, 3.0])
def test_sampled_losses_and_gradients_do_not_need_the_logits_of_all_items(targets: Any, bonus: float) -> None:
    batch = batcher_of(EVENTS, 2, targets=targets).padded(ROWS)
    found = []
    for whole in (False, True):
        model = model_of(torch.float32, 3, sampled_negatives=7, copy_bonus=bonus, heads={"next-item": 1.0})
        model.heads["next-item"].whole_logits = whole
        losses = model.losses(batch)
        losses.sum().backward()
        found.append((losses.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0], found[1])


def test_where_only_the_last_step_is_asked_the_last_category_is_that_of_this_step():
    rows = sequences_of([[1, 2, 3, 4], [1, 2, 3]], category=[[2, 1, 0, 2], [1, 2, 0]])
    batcher = Batcher(rows, ["next-item", "next-category"], targets="last")
    for batch in (batcher.packed(np.arange(2)), batcher.padded(np.arange(2))):
        asked = batch.target_steps("next-category", torch.zeros(*batch.inputs["item"].shape, 4))
        assert asked.batch.category.tolist() == [1, 1]  # behind [2, 1, 0] and, as only 1 -> 2 is known, behind [1]
