"""What the tests of a hostile kit do to one: put a file into it, and change what its site.toml says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w

from common.deployment import SiteKit


def write(path: Path, text: str = "x = 1\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def point(kit: SiteKit, **facts: str) -> None:
    tree = tomllib.loads(kit.settings.read_text())
    tree["site"] |= facts
    kit.settings.write_text(tomli_w.dumps(tree))
