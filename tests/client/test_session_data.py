"""What is in a site's log changes nothing about the kind of its answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from client import session
from client.site import Site
from common.run import (
    PerformanceSettings,
    RunPlan,
)
from common.run.files import RunFolder
from tests.scripted_coordinator import Coordinator

SPEED = PerformanceSettings()


DAMAGED = {
    "a line of one consumer that is malformed": "x1,2024-01-01,view,item-1,too,many,fields\n",
    "a quote that never ends": 'x1,"2024-01-01,view,item-1\n',
    "a time from another age": "x1,0001-01-01,view,item-1\n",
    "binary rubbish": "\x00\x01\x02\n" * 50,
    "a price that is no number": "x1,2024-01-01,purchase,item-1\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_nothing_about_a_single_consumer_changes_the_kind_of_an_answer(
    name: str, tmp_path: Path, site: Site
) -> None:
    header = "consumer,timestamp,event,item\n"
    honest = header + "".join(f"c{i},2024-01-0{1 + i % 9},view,item-{i % 5}\n" for i in range(60))
    logs = []
    for text in (honest, honest + DAMAGED[name]):
        path = tmp_path / "log.csv"
        path.write_text(text)
        facts = site.file.site.model_copy(update={"events": str(path), "format": "fedcart"})
        opened = dataclasses.replace(site, file=site.file.model_copy(update={"site": facts}))
        logs.append(opened.event_log())
    known = set(logs[0].consumers.tolist())
    others = logs[1].frame.filter(logs[1].frame["consumer"].is_in(list(known)))
    assert others.equals(logs[0].frame)


NOTHING = ("", "\n\n", "consumer,timestamp,event,item\n", "consumer,timestamp,event,item\n,,,\n")


@pytest.mark.parametrize("text", NOTHING)
def test_a_started_site_without_a_usable_line_answers_with_noise(
    text: str, tmp_path: Path, site: Site, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty log is no error: that there is nobody, or nobody but one, must not be told."""
    from client import site as sites

    path = tmp_path / "log.csv"
    path.write_text(text)
    facts = site.file.site.model_copy(update={"events": str(path), "format": "fedcart"})
    opened = dataclasses.replace(site, file=site.file.model_copy(update={"site": facts}))
    monkeypatch.setattr(Site, "source_stamp", lambda _: text or "none")
    monkeypatch.setattr(sites, "prepared_path", lambda *_: tmp_path / "prepared.rows")
    monkeypatch.setattr(Site, "_encode", empty_encode)
    reply, _ = session.advertise(opened, coordinator.request(coordinator.query(20 + NOTHING.index(text))), SPEED)
    assert "attestation" in reply
    session.close(opened, coordinator.farewell())


def empty_encode(site: Site, plan: RunPlan) -> Any:
    """As the site's own, with the catalogue of the simulated run, which its kit does not name."""
    from common.data.catalogue import read_catalogue
    from common.data.features import FeatureSpec
    from common.data.sequences import build_sequences
    from common.data.store.rows import open_rows

    spec = FeatureSpec.from_json(json.loads(plan.features))
    catalogue = read_catalogue(RunFolder(site.kit.path.parents[1]).catalogue_file)
    sequences = build_sequences(site.event_log(), spec, catalogue, max_events=50)
    assert len(sequences) == 0
    return iter([sequences]), open_rows(next(site.kit.state.glob("consumers-*.rows"))).mask
