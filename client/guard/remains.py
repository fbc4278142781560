"""What is left of a lost ledger: everything readable that bounds from below what it had charged.

The server's highest attestation, the anchor beside the ledger, and the intact beginning of every old ledger
file. Each was true once, and a ledger only grows, so the largest of each number is charged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

from common.errors import VerificationError
from common.privacy import Attestation, Losses, Open, anchor_of, parse_line, read_head, replay_lines, split_lines


@dataclass(frozen=True)
class Remains:
    """An entry that a ledger has reached, and what it had charged by then."""

    sequence: int
    head: str
    losses: Losses
    order: float | None = None
    adaptive: bool = True


def gather(ledger: Path, known: Attestation, keys: Collection[bytes]) -> Remains:
    """The latest end, and the largest charges, of all that is known about a lost ledger.

    ``known``: an attestation whose signature was checked. ``keys``: those with which this site has signed.
    Guarantee: every setting is charged with at least the steps that any of the sources shows.
    """
    sources = [Remains(known.sequence, known.head, Losses.of(known.totals), known.order, known.adaptive)]
    sources += _of_anchor(anchor_of(ledger), known, keys)
    for path in (ledger, *sorted(ledger.parent.glob(f"{ledger.stem}.lost-*{ledger.suffix}"))):
        sources += _of_ledger(path, known, keys)
    last = max(sources, key=lambda remains: remains.sequence)
    losses = reduce(or_, (remains.losses for remains in sources))
    return Remains(
        last.sequence,
        last.head,
        losses,
        next((r.order for r in sources if r.order), None),
        any(r.adaptive for r in sources),
    )


def _of_anchor(path: Path, known: Attestation, keys: Collection[bytes]) -> Iterator[Remains]:
    for key in keys:
        try:
            signed = read_head(path)
            signed.verify(key)
        except VerificationError:  # missing or damaged: it says nothing
            continue
        if (signed.head.site, signed.head.scope) == (known.site, known.scope):
            yield Remains(
                signed.head.sequence,
                signed.head.head,
                Losses.of(signed.head.totals),
                signed.head.order,
                signed.head.adaptive,
            )


def _of_ledger(path: Path, known: Attestation, keys: Collection[bytes]) -> Iterator[Remains]:
    """The state after the last entry that is intact, with every entry before it."""
    lines, _ = split_lines(path.read_bytes()) if path.exists() else ([], b"")
    last = None
    try:
        header = parse_line(lines[0]).body if lines else None
        if not isinstance(header, Open) or (header.site, header.scope) != (known.site, known.scope):
            return
        key = bytes.fromhex(header.public_key)
        for _, _, state in replay_lines(lines, key) if key in keys else ():
            last = Remains(
                state.sequence - 1, state.head, state.spent, state.order, state.adaptive_order is not None
            )
    except VerificationError:  # nothing from here on can be believed
        pass
    if last is not None:
        yield last
