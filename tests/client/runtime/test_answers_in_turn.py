"""A run that is stopped while a site takes a message of it leaves nothing behind that passes for a later answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from client.runtime import node_link
from common.flower import private


def internal() -> Any:
    return private("start_client_internal")


class Local:
    """Stands in for the SuperNode's state: gives answers in the order in which its workers finish."""

    def __init__(self, *finished: str) -> None:
        self.finished = list(finished)

    def get_messages_legacy(self, *, is_reply: bool) -> list[Any]:
        assert is_reply
        to = self.finished.pop(0)
        metadata = SimpleNamespace(
            reply_to_message_id=to, message_id=f"answer to {to}", run_id=1, group_id="", message_type="query"
        )
        return [SimpleNamespace(metadata=metadata)]

    def get_message_processing_duration(self, message_id: str) -> float:
        return 0.0

    def delete_messages(self, *, message_ids: list[str]) -> None: ...


class Objects:
    def get_object_tree(self, _: str) -> Any:
        return None

    def delete(self, _: str) -> None: ...


@pytest.mark.parametrize("late", [[], ["old"], ["old", "older"]])
def test_the_answer_to_this_message_is_waited_for_whatever_else_is_answered_first(
    monkeypatch: pytest.MonkeyPatch, late: list[str]
) -> None:
    monkeypatch.setattr(internal(), "_push_messages", internal()._push_messages)  # put back afterwards
    turn = node_link.Turn("new")
    node_link._answer_in_turn(turn)
    sent: list[str] = []

    def send(message: Any, _tree: Any, _duration: float) -> tuple[set[str], str]:
        sent.append(message.metadata.reply_to_message_id)
        if sent[-1] != "new":
            raise private("RunNotRunningException")
        return set(), ""

    state = Local(*late, "new", "of the next turn")
    internal()._push_messages(state=state, object_store=Objects(), send=send, push_object=None)
    assert sent == [*late, "new"]


@pytest.mark.parametrize("ends_at", ["pull", "confirm"])
def test_a_message_of_a_run_that_ends_meanwhile_is_dropped_with_its_task(ends_at: str) -> None:
    over: type[BaseException] = private("RunNotRunningException")
    told: list[str] = []

    def ending(*_: Any) -> None:
        raise over

    def going(*_: Any) -> bytes:
        return b""

    @contextlib.contextmanager
    def connect() -> Iterator[tuple[Any, ...]]:
        pull, confirm = (ending, going) if ends_at == "pull" else (going, ending)
        yield 5, None, going, going, going, pull, going, confirm

    guarded = node_link._guarded(connect, lambda *_: None, told.append)
    with guarded() as connection:
        pull, confirm = connection[5], connection[7]
        call: Callable[..., Any] = pull if ends_at == "pull" else confirm
        with pytest.raises(Exception, match="the run is over"):  # Flower cleans up after an Exception only
            call(1, "message")
    assert not told
