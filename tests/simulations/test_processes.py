"""A federation of real processes on this machine: who counts as connected."""

from __future__ import annotations

import pytest

from client.runtime.last_session import remember
from common.errors import WorkFailedError
from simulations.processes import LocalFederation


def test_a_site_that_was_stopped_and_started_is_there_when_it_has_been_let_in_again(tmp_path, monkeypatch):
    local = LocalFederation(tmp_path)
    monkeypatch.setattr(LocalFederation, "_start", lambda *_: None)
    monkeypatch.setattr(LocalFederation, "_online", lambda _: {"north": True, "south": True})
    for name in ("north", "south"):
        local.site(name).state.mkdir(parents=True)
    remember(local.site("north"), 7)
    local.start_site("north")
    local.wait_online(["south"], 0)
    with pytest.raises(WorkFailedError, match="north"):
        local.wait_online(["north", "south"], 0)
    remember(local.site("north"), 8)
    local.wait_online(["north", "south"], 0)
