"""The in-process Grid: real messages, isolated contexts, losses as scripted."""

from __future__ import annotations

from typing import Any

import pytest

from common import flower
from common.run import build_config
from simulations import grid as grids
from simulations.engines import random_losses
from simulations.grid import InProcessGrid, Node
from simulations.workers import Done, Failure

NODES = [Node(100, {"site": "a"}), Node(101, {"site": "b"})]


def _counting(
    message: bytes,
    context: bytes,
    node_config: dict[str, Any],
    _run: dict[str, Any],
    names: tuple[str, ...] = (),
    *large: bytes,
) -> tuple[bytes, bytes, dict[str, bytes]]:
    """A ClientApp that counts its messages in its own state."""
    request = flower.message_from(message)
    here = flower.new_context(1, request.metadata.dst_node_id, node_config, {})
    if context:
        flower.restore_state(here, context)
    seen = int(here.state.config_records["count"]["n"]) if "count" in here.state else 0  # type: ignore[arg-type]
    here.state["count"] = flower.body({"n": seen + 1}).config_records["body"]
    reply = flower.reply(request, {"seen": seen, "site": node_config["site"]})
    back = {"back": b"".join(large)} if names else {}
    return flower.message_bytes(reply), flower.state_bytes(here), back


class _DyingPool:
    """A pool whose worker dies with every job."""

    def __init__(self) -> None:
        self.jobs: list[int] = []

    def submit(self, *_: object, home: str = "") -> int:
        self.jobs.append(len(self.jobs) + 1)
        return self.jobs[-1]

    def collect(self, _timeout_s: float) -> list[Done]:
        done = [Done(job, failure=Failure("worker-died")) for job in self.jobs]
        self.jobs = []
        return done


def _ask(grid: InProcessGrid, kind: str = "query.hello", group: str = "1.1") -> dict[int, Any]:
    messages = [flower.instruction(node, kind, {"x": b"1"}, group) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=5)
    return {r.metadata.src_node_id: r for r in replies}


def test_every_node_keeps_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "answer", _counting)
    grid = InProcessGrid(1, NODES)
    for expected in range(3):
        found = {n: flower.parts_of(r.content) for n, r in _ask(grid).items()}
        assert found == {100: {"seen": expected, "site": "a"}, 101: {"seen": expected, "site": "b"}}


def test_large_values_travel_beside_the_message_and_are_in_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def counting(message: bytes, *rest: Any) -> Any:
        sent.append(len(message))
        return _counting(message, *rest)

    monkeypatch.setattr(grids, "answer", counting)
    grid, model = InProcessGrid(1, NODES), bytes(range(256)) * 1_000
    messages = [
        flower.instruction(n, "query.hello", {"x": b"1", "model": model}, "1.1") for n in grid.get_node_ids()
    ]
    found = [flower.parts_of(reply.content)["back"] for reply in grid.send_and_receive(messages, timeout=5)]
    assert found == [model, model] and max(sent) < 1_000


def test_the_client_app_sees_large_values_and_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import client.app

    model = bytes(range(256)) * 1_000

    def echo(request: Any, _context: Any) -> Any:
        return flower.reply(request, {"back": flower.parts_of(request.content)["model"], "small": 1})

    monkeypatch.setattr(client.app, "app", echo)
    grid = InProcessGrid(1, NODES)
    messages = [flower.instruction(n, "query.hello", {"model": model}, "1.1") for n in grid.get_node_ids()]
    for reply in grid.send_and_receive(messages, timeout=5):
        assert flower.parts_of(reply.content) == {"back": model, "small": 1}


def test_a_lost_node_gets_an_error_reply_and_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "answer", _counting)
    grid = InProcessGrid(
        1, NODES, loss=lambda node, group, kind: node == 101 and group == "2.1" and "mask" in kind
    )
    assert not any(reply.has_error() for reply in _ask(grid, "query.mask", "1.1").values())
    by_node = {reply.has_error(): reply for reply in _ask(grid, "query.mask", "2.1").values()}
    assert set(by_node) == {True, False}
    assert by_node[True].error.code == grids.NODE_LOST


def test_a_worker_that_dies_costs_the_message_and_nothing_else() -> None:
    grid = InProcessGrid(1, NODES, pool=_DyingPool())  # type: ignore[arg-type]
    replies = list(_ask(grid).values())
    assert [reply.error.code for reply in replies] == [grids.APP_FAILED] * len(replies)
    assert {reply.error.reason for reply in replies} == {"worker-died"}


def test_scripted_losses_follow_the_seed_and_the_asked_share() -> None:
    losses = random_losses(build_config({}, ["drop=0.2", "seed=4"]))
    lost = [losses(node, f"{r}.1", "query.unmask") for r in range(200) for node in range(100, 110)]
    assert 0.15 < sum(lost) / len(lost) < 0.25  # by the last phase every site that is to be lost is lost
    again = random_losses(build_config({}, ["drop=0.2", "seed=4"]))
    assert lost == [again(node, f"{r}.1", "query.unmask") for r in range(200) for node in range(100, 110)]


def test_a_site_once_lost_stays_lost_for_the_round() -> None:
    losses = random_losses(build_config({}, ["drop=0.5"]))
    phases = [f"query.{p}" for p in ("advertise", "share", "mask", "confirm", "unmask")]
    for number in range(50):
        states = [losses(105, f"{number}.1", phase) for phase in phases]
        assert states == sorted(states)
        assert not losses(105, f"{number}.1", "query.hello")
