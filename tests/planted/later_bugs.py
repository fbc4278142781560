"""Planted bugs of what came later: single steps under momentum, an item's bias, context, constants, personal models, moved ledgers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

import client.guard.ledger as ledgers
import client.guard.shared_ledger as shared
import client.training.dpsgd.engine as engine
import client.training.dpsgd.norms as norms
import common.data as data
import common.data.sequences as sequences
import common.model_files as model_files
import common.privacy.replay as replay
from client.training.dpsgd.records import Outer, Picked
from common.privacy.mechanism import Losses
from tests.planted.bug import CLIPPED, DRAWS, Bug, Patch

MOVED = "tests/attacks/test_moved_and_copied_ledgers.py"


def item_bias_out_of_the_norm(patch: Patch) -> None:
    true, begun, biases = norms._SQUARES[Outer], engine.TapeEngine.__init__, set[int]()

    def watched(self: Any, model: Any, *rest: Any, **named: Any) -> None:
        begun(self, model, *rest, **named)
        head = next((head for name, head in model.heads.items() if name == "next-item"), None)
        biases.add(id(getattr(getattr(head, "linear", None), "bias", None)))

    def without(record: Any) -> Any:
        return true(replace(record, biases=tuple(b for b in record.biases if id(b) not in biases)))

    patch.setattr(engine.TapeEngine, "__init__", watched)
    patch.setitem(norms._SQUARES, Outer, without)


def context_counted_by_its_scale_twice(patch: Patch) -> None:
    """The records hold the gradient as it is, scale and all."""
    true, begun, scales = norms._SQUARES[Picked], engine.TapeEngine.__init__, dict[int, float]()

    def watched(self: Any, model: Any, *rest: Any, **named: Any) -> None:
        begun(self, model, *rest, **named)
        for table in getattr(model, "context", {}).values():
            scales[id(table.weight)] = float(model.settings.context_scale)

    def twice(record: Any) -> Any:
        square, row = true(record)
        factor = scales.get(id(record.table), 1.0) ** 2
        return square * factor, row * factor

    patch.setattr(engine.TapeEngine, "__init__", watched)
    patch.setitem(norms._SQUARES, Picked, twice)


def constants_taken_from_the_log(patch: Patch) -> None:
    """A feature that is the same in every event of this site is left out, until somebody comes who is different."""
    true = sequences.build_sequences

    def seen(*given: Any, **named: Any) -> Any:
        rows = true(*given, **named)
        varies = (rows.integers != rows.integers[:1]).any(axis=0) if len(rows.integers) else np.array(True)
        return replace(rows, integers=(rows.integers * varies).astype(rows.integers.dtype))

    for module in (sequences, data):
        patch.setattr(module, "build_sequences", seen)


def momentum_before_the_noise(patch: Patch) -> None:
    """Sums of earlier single steps ride in a later round, without noise of their own."""
    true, velocity = engine.TapeEngine.clipped_sum, dict[int, torch.Tensor]()

    def carried(self: Any, rows: Any) -> Any:
        total, seen = true(self, rows)
        before = velocity.get(len(total))
        moved = total if before is None else total + 0.9 * before
        velocity[len(total)] = moved.clone()
        return moved, seen

    patch.setattr(engine.TapeEngine, "clipped_sum", carried)


def rounds_beyond_a_hundred_not_charged(patch: Patch) -> None:
    true = replay.Replay._apply_body

    def tired(self: Any, entry: Any) -> None:
        before = self.spent
        true(self, entry)
        if isinstance(entry.body, replay.Reserve) and len(self.reservations) > 100:
            self.spent = before

    patch.setattr(replay.Replay, "_apply_body", tired)


def a_personal_model_passes_for_a_shared_one(patch: Patch) -> None:
    patch.setattr(model_files, "is_personal", lambda _weights: False)


def a_kit_of_the_same_name_taken_for_the_same(patch: Patch) -> None:
    true = shared._charge_of

    def by_name(state: Any, now: Any, key: str, *, same_key: bool) -> Any:
        known = {charge.site for charge in now.charges}
        return None if state.header.site in known else true(state, now, key, same_key=same_key)

    patch.setattr(shared, "_charge_of", by_name)


def a_copy_that_went_on_charged_with_the_rest_only(patch: Patch) -> None:
    true = shared._charge_of

    def trusting(state: Any, now: Any, key: str, *, same_key: bool) -> Any:
        charge = true(state, now, key, same_key=same_key)
        for known in now.former(key) if charge is not None else ():
            left = Losses.of(charge.events).beyond(Losses.of(known.events))
            charge = charge.model_copy(update={"events": left.events})
        return charge

    patch.setattr(shared, "_charge_of", trusting)


def another_account_is_as_good(patch: Patch) -> None:
    patch.setattr(ledgers.Ledger, "_refuse_other_account", lambda _self: None)
    patch.setattr(shared.SharedLedger, "refuse_copy", lambda _self, _state: None)
    patch.setattr(ledgers.Ledger, "_anchors", lambda self: [self.anchor_path])


def another_sites_rounds_taken_for_its_own(patch: Patch) -> None:
    patch.setattr(
        replay.Replay, "charged_for",
        lambda self, config, _by="": Losses.of(e for r in self.reservations.values() if r.body.config == config and
                                               r.state != "void" for e in r.body.events),
    )  # fmt: skip


BUGS = (
    Bug(item_bias_out_of_the_norm, CLIPPED, "sensitivity"),
    Bug(context_counted_by_its_scale_twice, CLIPPED, "sensitivity"),
    Bug(constants_taken_from_the_log, DRAWS, "whole answer"),
    Bug(momentum_before_the_noise, DRAWS, "whole answer"),
    Bug(rounds_beyond_a_hundred_not_charged, DRAWS, "ledger"),
    Bug(a_personal_model_passes_for_a_shared_one, DRAWS, "rules"),
    Bug(a_kit_of_the_same_name_taken_for_the_same, MOVED, "rules"),
    Bug(a_copy_that_went_on_charged_with_the_rest_only, MOVED, "rules"),
    Bug(another_account_is_as_good, MOVED, "rules"),
    Bug(another_sites_rounds_taken_for_its_own, MOVED, "rules"),
)
