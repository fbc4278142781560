"""``fedcart site unit``: the systemd unit of a site, written on its own machine with this machine's paths.

A unit that was delivered would be code: it says what is run, and as whom.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from client.site import load_site
from common.deployment import SiteKit
from common.errors import BadInputError
from common.processes import python_command

HIDDEN = ("/home", "/root", "/run/user")  # what ProtectHome=yes hides
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  what PrivateTmp=yes hides


def systemd_unit(kit: SiteKit, user: str = "") -> str:
    """The text of a unit that starts this kit as ``user`` (this one if empty), able to write its state only.

    Raises: BadInputError, ConfigError, VerificationError for a damaged kit, or a path that no unit can name.
    """
    site = load_site(kit.path)
    shared = site.shared_ledger()
    written = [kit.state, *([shared.folder] if shared else [])]
    events = [kit.resolve(site.file.site.events)] if site.file.site.events else []
    read = [kit.path, *events, Path(sys.executable), *written]
    command = " ".join(_word(part) for part in python_command("cli.main", "site", "start", str(kit.path)))
    home = "read-only" if _any_below(read, HIDDEN) else "yes"
    return f"""\
# For /etc/systemd/system/fedcart-{site.name}.service, then: systemctl enable --now fedcart-{site.name}
[Unit]
Description=fedcart site {site.name}
Wants=network-online.target
After=network-online.target

[Service]
User={_word(user or getpass.getuser())}
WorkingDirectory=/
ExecStart={command}
Restart=on-failure
RestartSec=30
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=yes
PrivateTmp={"no" if _any_below(read, TEMPORARY) else "yes"}
ProtectSystem=strict
ProtectHome={home}
ReadWritePaths={" ".join(_word(str(path)) for path in written)}

[Install]
WantedBy=multi-user.target
"""


def _any_below(paths: list[Path], places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for path in paths for place in places)


def _word(text: str) -> str:
    """One word of a unit's line, quoted: systemd.syntax(7), systemd.service(5). Raises: BadInputError."""
    if not text.isprintable():
        raise BadInputError(f"{text!a} cannot stand in a unit", hint="move the kit to a plain path")
    plain = text.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return plain if plain == text and " " not in text and "'" not in text and ";" not in text else f'"{plain}"'
