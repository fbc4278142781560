"""Something that is wrong at a site or at the server, for ``status --check``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """``name``: what it is about, one word or two; ``found``: how it stands; ``todo``: what to do."""

    name: str
    found: str
    todo: str

    def __str__(self) -> str:
        return f"{self.name}: {self.found}; {self.todo}"
