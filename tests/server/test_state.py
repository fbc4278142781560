"""Checkpoints: what was saved comes back, and damage is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import BadInputError
from common.run import model_digest
from server.state import ServerState, latest_checkpoint, load_checkpoint, save_checkpoint


def _state() -> ServerState:
    rng = np.random.default_rng(1)
    vector = rng.normal(size=50).astype(np.float32)
    start = ServerState.initial(vector, b"\x01" * 32)
    return replace(
        start, round=3, moments={"velocity": vector * 2}, losses=(1.5, 1.25), stopped={"a": "budget"}, record="{}"
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    state = _state()
    found = load_checkpoint(save_checkpoint(tmp_path, state))
    assert np.array_equal(found.parameters, state.parameters)
    assert np.array_equal(found.moments["velocity"], state.moments["velocity"])
    assert (found.round, found.losses, found.stopped, found.plan) == (3, (1.5, 1.25), {"a": "budget"}, state.plan)


def test_any_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, _state())
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(BadInputError, match="damaged"):
            load_checkpoint(path)


def test_the_newest_checkpoint_counts_and_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no checkpoint"):
        latest_checkpoint(tmp_path)
    for number in (9, 10, 11):
        save_checkpoint(tmp_path, replace(_state(), round=number))
    assert latest_checkpoint(tmp_path).round == 11


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, _state())
    for size in (0, 4, 100):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(BadInputError):
            load_checkpoint(path)


def test_a_state_knows_the_digests_of_its_own_vectors_and_of_no_other() -> None:
    state = _state()
    apart = replace(state, average=state.average + 1)
    assert apart.digests == (model_digest(apart.parameters), model_digest(apart.average))
    assert apart.digests[0] != apart.digests[1]
    assert apart.digest_of(apart.parameters) == apart.digests[0]
    assert apart.digest_of(apart.average) == apart.digests[1]
    other = apart.parameters + 2
    assert apart.digest_of(other) == model_digest(other)
    assert replace(apart, parameters=other).digests[0] == model_digest(other)
