"""What a site was told at the close of a run, kept at the site: the coordinator's signature under the end of the record.

A record that is rewritten afterwards, all signed anew and the sites' last word thrown away, shows from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from common.errors import FedcartError
from common.run.plan import FAREWELL, Closing
from common.strict_json import fields_of, one_line

CLOSINGS_FILE = "closings.jsonl"
MOST_OF_A_RUN = 50  # a run is closed once in each of its lives


def noted_closings(folder: Path, run: str, coordinator: bytes) -> list[Closing]:
    """The ends of a run's record that lie in a site's state folder under the coordinator's signature."""
    return [
        closing
        for closing, signature in _read(folder / CLOSINGS_FILE)
        if closing.run == run and _holds(closing, signature, coordinator)
    ]


def line_of(closing: Closing, signature: bytes) -> bytes:
    """One line of the file, with its end."""
    return (one_line(fields_of(closing) | {"signature": signature.hex()}) + "\n").encode()


def worth_noting(folder: Path, closing: Closing) -> bool:
    """Whether a closing, which has been verified, says something new; of one run a file keeps so many."""
    known = [other for other, _ in _read(folder / CLOSINGS_FILE) if other.run == closing.run]
    return closing not in known and len(known) < MOST_OF_A_RUN


def _read(path: Path) -> Iterator[tuple[Closing, bytes]]:
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            plain = json.loads(line)
            signature = bytes.fromhex(plain.pop("signature"))
            yield Closing(**plain), signature
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, FedcartError):
            continue  # half a line of a crash; what is false has no signature


def _holds(closing: Closing, signature: bytes, coordinator: bytes) -> bool:
    from common.trust import verify_signature

    try:
        verify_signature(coordinator, closing.statement(FAREWELL), signature)
    except FedcartError:
        return False
    return True
