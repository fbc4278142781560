"""``fedcart server unit``: the systemd unit of a coordinator, written on its own machine with this machine's paths."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from common.deployment import CoordinatorKit
from common.processes import python_command
from common.systemd import Unit


def systemd_unit(kit: CoordinatorKit, user: str = "") -> str:
    """The text of a unit that starts this kit's server as ``user`` (this one if empty), able to write its state and runs only.

    Raises: BadInputError, ConfigError for a damaged kit, or a path that no unit can name.
    """
    name = kit.read().federation.name
    return Unit(
        name=f"fedcart-{name}-coordinator",
        description=f"fedcart coordinator of {name}",
        user=user or getpass.getuser(),
        command=python_command("cli.main", "server", "start", str(kit.path)),
        reads=[kit.path, Path(sys.executable)],
        writes=[kit.state, kit.runs],
        more="LimitNOFILE=65536\n",
    ).text()
