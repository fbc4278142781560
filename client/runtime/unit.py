"""``fedcart site unit``: the systemd unit of a site, written on its own machine with this machine's paths.

A unit that was delivered would be code: it says what is run, and as whom.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from client.site import Site, load_site
from common.deployment import SiteKit
from common.errors import BadInputError

HIDDEN = ("/home", "/root", "/run/user")  # what ProtectHome=yes hides
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  what PrivateTmp=yes hides


def systemd_unit(kit: SiteKit, user: str = "") -> str:
    """The text of a unit that starts this kit as ``user`` (this one if empty), able to write its state only.

    Raises: BadInputError, ConfigError, VerificationError for a damaged kit, or a path that no unit can name.
    """
    from common.processes import python_command

    site = load_site(kit.path)
    shared = site.shared_ledger()
    written = [kit.state, *([shared.folder] if shared else [])]
    read = [kit.path, *_events(site), Path(sys.executable), *written]
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
{_secret(site)}Restart=on-failure
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


def _events(site: Site) -> list[Path]:
    """The files that hold the events, as far as settings name them, and that of a password."""
    from common.source_settings import sqlite_name

    source = site.file.source
    if source is None:
        return [site.kit.resolve(site.file.site.events)]
    names = [one for named in source.files.values() for one in ([named] if isinstance(named, str) else named)]
    if source.driver == "sqlite" and source.uri:
        names.append(sqlite_name(source.uri))
    return [site.kit.resolve(name) for name in (*names, source.query_file, source.password_file) if name]


def _secret(site: Site) -> str:
    """Lines of a unit that bring the variable with the password of [source]; none where there is no such variable."""
    source = site.file.source
    if source is None or not source.password_env:
        return ""
    place = f"/etc/fedcart-{site.name}.env"
    return f"""\
# The password of [source]: a line {source.password_env}=... in {place}, of root, mode 0600. systemd reads it before it takes
# the rights of root away; without the file the unit does not start.
EnvironmentFile={_word(place)}
"""


def _any_below(paths: list[Path], places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for path in paths for place in places)


def _word(text: str) -> str:
    """One word of a unit's line, quoted: systemd.syntax(7), systemd.service(5). Raises: BadInputError."""
    if not text.isprintable():
        raise BadInputError(f"{text!a} cannot stand in a unit", hint="move the kit to a plain path")
    plain = text.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return plain if plain == text and " " not in text and "'" not in text and ";" not in text else f'"{plain}"'
