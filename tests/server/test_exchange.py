"""One exchange: nobody waits for the dead, and nobody's words are taken for a number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import flower
from server import exchange as exchanges
from server.exchange import Exchange


class ScriptedGrid(Grid):
    """Nodes that answer, refuse, fail or stay silent, as told."""

    def __init__(self, script: dict[int, Any]) -> None:
        self.script = script
        self.sent: dict[str, Message] = {}
        flower.set_task_identity(1)

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return 1

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.script)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(f"m{len(self.sent)}")
            self.sent[ids[-1]] = flower.with_message_id(message, ids[-1])
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for identifier in message_ids:
            message = self.sent[identifier]
            answer = self.script[message.metadata.dst_node_id]
            if answer == "error":
                replies.append(flower.error_reply(message, 1, "/home/site/secret: boom"))
            elif answer is not None:
                replies.append(flower.reply(message, answer))
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


class Rival(ScriptedGrid):
    """All answers come from one sender."""

    def __init__(self, script: dict[int, Any], sender: int) -> None:
        super().__init__(script)
        self.sender = sender

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        for message in replies:
            message.metadata.__dict__["_src_node_id"] = self.sender
        return replies


def _ask(script: dict[int, Any]) -> tuple[dict[str, exchanges.Answer], Exchange]:
    nodes = {f"site-{node}": node for node in script}
    exchange = Exchange(ScriptedGrid(script), nodes)
    return exchange.ask("share", {s: {"x": 1} for s in nodes}, deadline_s=0.2, group="1.1"), exchange


def test_answers_are_mapped_to_the_sites_that_were_asked() -> None:
    answers, exchange = _ask({5: {"value": b"five"}, 6: {"value": b"six"}})
    assert {site: answer.parts["value"] for site, answer in answers.items()} == {
        "site-5": b"five",
        "site-6": b"six",
    }
    assert exchange.bytes_up > 0
    assert exchange.bytes_down > 0


def test_the_dead_the_silent_and_the_unwilling_are_told_apart() -> None:
    answers, _ = _ask({5: "error", 6: None, 7: {"error": "budget"}, 8: {"value": 1}})
    assert {site: answer.error for site, answer in answers.items()} == {
        "site-5": "lost",
        "site-6": "late",
        "site-7": "budget",
        "site-8": "",
    }


def test_no_text_of_a_failing_node_is_kept() -> None:
    answers, _ = _ask({5: "error"})
    assert "secret" not in repr(answers)


def test_the_exchange_ends_early_when_all_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "_POLL_S", 60.0)  # would be slept if it waited once more
    answers, _ = _ask({5: {"value": 1}})
    assert answers["site-5"].ok


def test_a_grid_that_waits_itself_is_asked_again_at_once_and_one_that_does_not_is_left_in_peace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(ScriptedGrid):
        waits, looks = True, 0

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            self.looks += 1
            clock[0] += 5.0 if self.waits else 0.0
            return super().pull_messages(message_ids) if self.looks > 3 else []

    clock, slept = [0.0], []
    monkeypatch.setattr(exchanges.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(exchanges.time, "sleep", slept.append)
    grid = Slow({5: {"value": 1}})
    assert Exchange(grid, {"a": 5}).ask("mask", {"a": {}}, deadline_s=100, group="1.1")["a"].ok
    assert sum(slept) == 0.0
    grid.waits, grid.looks = False, 0
    assert Exchange(grid, {"a": 5}).ask("mask", {"a": {}}, deadline_s=100, group="1.1")["a"].ok
    assert len(slept) == 6 and sum(slept) > 0.05


def test_messages_carry_the_round_and_the_kind() -> None:
    grid = ScriptedGrid({5: {"value": 1}})
    Exchange(grid, {"a": 5}).ask("mask", {"a": {"x": b"1"}}, deadline_s=1, group="3.2")
    message = grid.sent["m0"]
    assert (message.metadata.message_type, message.metadata.group_id) == ("query.mask", "3.2")
    assert isinstance(message.content, RecordDict)


class Unreadable(ScriptedGrid):
    """Its first look meets a message that Flower cannot read."""

    looks = 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.looks += 1
        if self.looks == 1:
            raise ValueError("not an inflatable object")
        return super().pull_messages(message_ids)


def test_a_message_that_flower_cannot_read_does_not_end_the_run() -> None:
    exchange = Exchange(Unreadable({5: {"value": 1}}), {"a": 5})
    assert exchange.ask("share", {"a": {"x": 1}}, deadline_s=2, group="1.1")["a"].ok


def test_what_a_site_says_of_its_error_is_a_word_or_nothing() -> None:
    answers, _ = _ask({5: {"error": "budget"}, 6: {"error": "\x1b[2J"}, 7: {"error": 5}, 8: {"error": "x" * 99}})
    assert [answer.error for answer in answers.values()] == ["budget", "failed", "failed", "failed"]


def test_an_answer_of_another_node_than_the_one_that_was_asked_is_not_taken() -> None:
    """Which site a node is, it has proved with the roster's key; a rival's answer under the right number is nothing."""
    script = {5: {"value": b"five"}, 6: {"value": b"six"}}
    exchange = Exchange(Rival(script, sender=6), {"a": 5, "b": 6})
    answers = exchange.ask("share", {"a": {"x": 1}, "b": {"x": 1}}, deadline_s=0.2, group="1.1")
    assert (answers["a"].error, answers["b"].parts["value"]) == ("late", b"six")


@pytest.mark.parametrize(("answer", "error"), [("error", "lost"), ({"value": b"five"}, "late")])
def test_of_the_server_itself_only_the_word_that_a_node_is_gone_is_taken(answer: Any, error: str) -> None:
    """Without it a round would wait for a site that was killed until its deadline."""
    exchange = Exchange(Rival({5: answer}, sender=flower.SERVER_NODE_ID), {"a": 5})
    assert exchange.ask("share", {"a": {"x": 1}}, deadline_s=0.2, group="1.1")["a"].error == error
