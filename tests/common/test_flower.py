"""Flower keeps its private names where we think it does, and messages survive being bytes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from common import flower
from common.errors import WorkFailedError


@pytest.mark.parametrize("name", [*flower.PRIVATE, *flower.PRIVATE_MODULES])
def test_every_private_name_is_where_the_table_says(name: str) -> None:
    assert flower.private(name) is not None


def test_a_name_outside_the_table_cannot_be_imported() -> None:
    with pytest.raises(KeyError):
        flower.private("os")


def test_a_message_survives_being_bytes() -> None:
    flower.set_task_identity(7)
    message = flower.with_message_id(
        flower.instruction(5, "query.mask", {"a": b"\x00\xff", "n": 3, "s": "x"}, "2.1"), "id"
    )
    found = flower.message_from(flower.message_bytes(message))
    assert flower.parts_of(found.content) == {"a": b"\x00\xff", "n": 3, "s": "x"}
    assert (found.metadata.message_id, found.metadata.group_id, found.metadata.dst_node_id) == ("id", "2.1", 5)


def test_a_header_is_enough_for_an_error_reply() -> None:
    flower.set_task_identity(7)
    message = flower.with_message_id(flower.instruction(5, "query.mask", {"a": b"x" * 1000}, "2.1"), "id")
    header = flower.header_only(message)
    assert len(flower.message_bytes(header)) < 200
    assert flower.error_reply(header, 1, "lost").metadata.reply_to_message_id == "id"


def test_the_state_of_a_context_survives_being_bytes() -> None:
    context = flower.new_context(1, 5, {"site": "x"}, {})
    context.state["round"] = flower.body({"machine": b"\x01"}).config_records["body"]
    other = flower.new_context(1, 5, {}, {})
    flower.restore_state(other, flower.state_bytes(context))
    assert dict(other.state.config_records["round"]) == {"machine": b"\x01"}


def test_payload_is_counted_close_to_what_travels() -> None:
    flower.set_task_identity(7)
    parts = {"vector": b"x" * 100_000, "site": "north", "round": 3}
    travels = len(flower.message_bytes(flower.instruction(5, "query.mask", parts, "2.1")))
    assert 0 <= travels - flower.payload_bytes(parts) < 300


@pytest.mark.parametrize(("name", "attribute"), flower.PATCHED)
def test_what_we_replace_in_flower_is_there_with_the_parameters_we_count_on(name, attribute):
    assert callable(flower.patched(name, attribute))


@pytest.mark.parametrize(("name", "attribute"), [place for place in flower.PATCHED if place[1]])
def test_a_flower_that_has_it_otherwise_is_refused_by_name(monkeypatch, name, attribute):
    first, _, last = attribute.partition(".")
    monkeypatch.setattr(flower.private(name), first, SimpleNamespace())  # not of the module: others use it too
    with pytest.raises(WorkFailedError, match=f"another {name} {attribute}"):
        flower.patched(name, attribute)
    if flower.PATCHED[name, attribute]:
        other = SimpleNamespace(**{last: lambda something: something}) if last else lambda something: something
        monkeypatch.setattr(flower.private(name), first, other)
        with pytest.raises(WorkFailedError, match=f"another {name} {attribute}: something"):
            flower.patched(name, attribute)
