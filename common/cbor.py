"""The shape of CBOR bytes, looked at before any object is made of them.

A decoder that builds first and judges later turns ten megabytes of empty lists into seven hundred of objects, and follows
nested ones until its stack ends. Our messages need little: lists, byte and text strings, numbers of at most 64 bits.

Source: RFC 8949, section 3.
"""

from __future__ import annotations

from common.errors import RemoteProtocolError

MAX_ITEMS = 4_096  # the largest message of ours, a session's evidence over 100 sites, has some 1,300
MAX_DEPTH = 8
HEAD_BYTES = 9  # of one item, at most

_BYTES, _TEXT, _LIST, _SIMPLE = 2, 3, 4, 7
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
_VALUES = frozenset((20, 21, 22, 25, 26, 27))  # false, true, null, and floats of 2, 4 and 8 bytes


def check_structure(data: bytes, *, items: int = MAX_ITEMS, depth: int = MAX_DEPTH) -> None:
    """Return if the bytes are one CBOR item of the kinds that we use, with so many items in it, nested so deep.

    Guarantee: time and memory follow from ``items``, not from what the bytes claim.
    Raises: RemoteProtocolError.
    """
    position, seen = 0, 0
    open_lists = [1]  # items still to come, of the whole and of each list that is not at its end
    while open_lists:
        if open_lists[-1] == 0:
            open_lists.pop()
            continue
        open_lists[-1] -= 1
        seen += 1
        if seen > items:
            raise RemoteProtocolError(f"message has more than {items} items")
        kind, value, position = _head(data, position)
        if kind in (_BYTES, _TEXT):
            position += value
        elif kind == _LIST:
            if len(open_lists) > depth:
                raise RemoteProtocolError(f"message is nested more than {depth} deep")
            open_lists.append(value)
        if position > len(data):
            raise RemoteProtocolError("message is cut off")
    if position != len(data):
        raise RemoteProtocolError(f"message has {len(data) - position} bytes after its end")


def _head(data: bytes, position: int) -> tuple[int, int, int]:
    """Kind and argument of the item at a position, and where its content begins."""
    if position >= len(data):
        raise RemoteProtocolError("message is cut off")
    kind, short = data[position] >> 5, data[position] & 31
    position += 1
    if kind in (5, 6) or (kind == _SIMPLE and short not in _VALUES) or short > 27:
        raise RemoteProtocolError("message holds an item of a kind that is not used here, or without an end")
    if short < 24:
        return kind, short, position
    end = position + _ARGUMENT_BYTES[short]
    if end > len(data):
        raise RemoteProtocolError("message is cut off")
    return kind, int.from_bytes(data[position:end], "big"), end
