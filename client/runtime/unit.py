"""``fedcart site unit``: the systemd unit of a site, written on its own machine with this machine's paths.

A unit that was delivered would be code: it says what is run, and as whom.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from client.site import Site, load_site
from common.deployment import SiteKit
from common.systemd import Unit, word


def systemd_unit(kit: SiteKit, user: str = "") -> str:
    """The text of a unit that starts this kit as ``user`` (this one if empty), able to write its state only.

    Raises: BadInputError, ConfigError, VerificationError for a damaged kit, or a path that no unit can name.
    """
    from common.processes import python_command

    site = load_site(kit.path)
    shared = site.shared_ledger()
    written = [kit.state, *([shared.folder] if shared else [])]
    return Unit(
        name=f"fedcart-{site.name}",
        description=f"fedcart site {site.name}",
        user=user or getpass.getuser(),
        command=python_command("cli.main", "site", "start", str(kit.path)),
        reads=[kit.path, *_events(site), Path(sys.executable)],
        writes=written,
        more=_secret(site),
    ).text()


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
EnvironmentFile={word(place)}
"""
