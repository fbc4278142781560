"""A hash tree over the entries of a dealing, so that each holder checks its own without the others.

Source: Merkle, "A digital signature based on a conventional encryption function", 1987. Leaves are digests of 32
bytes, filled up to a power of two with zeros; inner nodes are hashed under a label of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.trust import sha256

_NODE = b"fedcart/tree-node/1"
_EMPTY = bytes(32)
NODE_BYTES = 32


def depth(leaves: int) -> int:
    """Number of nodes on the path from a leaf to the root."""
    return (leaves - 1).bit_length()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All nodes, from the filled-up leaves to the root alone."""
    rows = [[*leaves, *[_EMPTY] * ((1 << depth(len(leaves))) - len(leaves))]]
    while len(rows[-1]) > 1:
        below = rows[-1]
        rows.append([sha256(_NODE, below[i], below[i + 1]) for i in range(0, len(below), 2)])
    return rows


def path(rows: Sequence[Sequence[bytes]], index: int) -> bytes:
    """The siblings on the way up from one leaf, joined."""
    return b"".join(row[(index >> level) ^ 1] for level, row in enumerate(rows[:-1]))


def root(leaf: bytes, index: int, siblings: bytes) -> bytes:
    """The root over a leaf and the siblings on its way up."""
    node = leaf
    for level, start in enumerate(range(0, len(siblings), NODE_BYTES)):
        pair = (node, siblings[start : start + NODE_BYTES])
        node = sha256(_NODE, *(pair[::-1] if index >> level & 1 else pair))
    return node
