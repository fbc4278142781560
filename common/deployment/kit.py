"""The folders of a federation of real sites: what a kit holds, and where.

A **site kit** (``FEDCART_SITE`` names its folder for ``client/app.py``):

    site.toml       who this site is, where its events are, which server it trusts (the operator's)
    policy.toml     what it allows (the operator's)
    roster.json     every party and its public key, the coordinator among them
    ca.crt          the federation's certificate authority
    catalogue.json  the public catalogue, where the federation has one
    identity.key    Ed25519, signs (0600)
    node.key        EC P-384, logs in (0600)
    state/          ledger, outbox, journal, runtime files, log: never leaves the site

Nothing else may lie in it but ``README.txt``, ``NAME.keys.json`` and the data that ``site.toml`` names: see ``kit_files``.

A **coordinator kit** (``FEDCART_COORDINATOR`` for ``server/app.py``) has ``coordinator.toml`` in place of the
first two, ``server.crt`` and ``server.key``, ``control.token``, ``bundle/``, ``nodes/NAME.pub`` and ``runs/``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from common.deployment.settings import CoordinatorFile, SiteFile, read_settings
from common.errors import BadInputError
from common.processes import child_environment
from common.run import CATALOGUE_FILE
from common.trust import CONSUMERS_KEY, IDENTITY_KEY, NODE_KEY, ROSTER_FILE

SITE_VARIABLE = "FEDCART_SITE"
COORDINATOR_VARIABLE = "FEDCART_COORDINATOR"
LEDGER_FILE = "ledger.jsonl"
ACCOUNT_FILE = "account.head.json"  # in a kit: the signed end of the shared ledger that it uses
USER_LEDGER = "user"  # for ``ledger`` in site.toml: in the user's state directory


def user_ledgers() -> Path:
    """Where shared ledgers lie that are named ``user``: one folder per scope."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # empty, or relative: the base directory specification says to ignore it
        home = str(Path.home() / ".local" / "state")
    return Path(home) / "fedcart" / "ledgers"


@dataclass(frozen=True)
class Kit:
    """Paths common to both kinds of kit."""

    path: Path

    @property
    def roster(self) -> Path:
        """Every party's public key."""
        return self.path / ROSTER_FILE

    @property
    def authority(self) -> Path:
        """Certificate of the federation's authority."""
        return self.path / "ca.crt"

    @property
    def identity_key(self) -> Path:
        """Ed25519 signing key, 0600."""
        return self.path / IDENTITY_KEY

    @property
    def state(self) -> Path:
        """Everything the programs write."""
        return self.path / "state"

    @property
    def catalogue(self) -> Path:
        """The public catalogue that provisioning put there, if it was given one."""
        return self.path / CATALOGUE_FILE

    @property
    def flower_home(self) -> Path:
        """Flower's own files, apart from any other Flower on the machine."""
        return self.state / "flower"

    @property
    def work(self) -> Path:
        """Where the programs of the kit stand: made anew, empty, at every start."""
        return self.state / "work"

    @property
    def models(self) -> Path:
        """Of a site: the models that it was given."""
        return self.state / "models"

    @property
    def session(self) -> Path:
        """Which process was let in last, and as which node: another content is another connection."""
        return self.state / "session.json"

    @property
    def log(self) -> Path:
        """The local log, without personal data."""
        return self.state / "log.txt"

    @property
    def pid(self) -> Path:
        """Process id of the running program."""
        return self.state / "running.pid"


@dataclass(frozen=True)
class SiteKit(Kit):
    """Paths of a site kit."""

    @property
    def settings(self) -> Path:
        """Who the site is."""
        return self.path / "site.toml"

    @property
    def policy(self) -> Path:
        """What the site allows."""
        return self.path / "policy.toml"

    @property
    def ledger(self) -> Path:
        """The kit's own ledger; a shared one stands elsewhere, as ``site.toml`` says."""
        return self.state / LEDGER_FILE

    @property
    def consumers_key(self) -> Path:
        """The key of the hold-out and of the pseudonyms; a shared ledger has its own beside it."""
        return self.state / CONSUMERS_KEY

    @property
    def node_key(self) -> Path:
        """EC P-384 key for Flower's node authentication, 0600."""
        return self.path / NODE_KEY

    @property
    def secrets(self) -> tuple[Path, ...]:
        """What only the site may read."""
        return (self.identity_key, self.node_key, self.consumers_key)

    def read(self) -> SiteFile:
        """The checked content of ``site.toml``. Raises: ConfigError."""
        return read_settings(SiteFile, self.settings)

    def resolve(self, name: str) -> Path:
        """A path of ``site.toml``: relative ones start at the kit."""
        return (self.path / name).resolve()


@dataclass(frozen=True)
class CoordinatorKit(Kit):
    """Paths of a coordinator kit."""

    @property
    def settings(self) -> Path:
        """Who the coordinator is."""
        return self.path / "coordinator.toml"

    @property
    def certificate(self) -> Path:
        """TLS certificate of the server."""
        return self.path / "server.crt"

    @property
    def certificate_key(self) -> Path:
        """TLS key of the server, 0600."""
        return self.path / "server.key"

    @property
    def control_token(self) -> Path:
        """Secret of the control interface, 0600."""
        return self.path / "control.token"

    @property
    def secrets(self) -> tuple[Path, ...]:
        """What only the coordinator may read."""
        return (self.identity_key, self.certificate_key, self.control_token)

    @property
    def bundle(self) -> Path:
        """The thin app bundle."""
        return self.path / "bundle"

    @property
    def nodes(self) -> Path:
        """EC public keys of the sites, NAME.pub."""
        return self.path / "nodes"

    @property
    def runs(self) -> Path:
        """Run folders."""
        return self.path / "runs"

    def read(self) -> CoordinatorFile:
        """The checked content of ``coordinator.toml``. Raises: ConfigError."""
        return read_settings(CoordinatorFile, self.settings)


@dataclass(frozen=True)
class Kits:
    """The kits of one federation in one folder: what provisioning writes, and what a simulation keeps in its run."""

    folder: Path

    @property
    def coordinator(self) -> CoordinatorKit:
        """The coordinator's."""
        return CoordinatorKit(self.folder / "coordinator")

    def site(self, name: str) -> SiteKit:
        """The kit of a site."""
        return SiteKit(self.folder / "sites" / name)


def open_site_kit(path: Path) -> SiteKit:
    """The site kit in a folder. Raises: BadInputError if it is not one."""
    kit = SiteKit(path.resolve())
    if not kit.settings.is_file():
        raise BadInputError(f"{path} is not a site kit: no site.toml", hint="name the folder you were given")
    return kit


def open_coordinator_kit(path: Path) -> CoordinatorKit:
    """The coordinator kit in a folder. Raises: BadInputError if it is not one."""
    kit = CoordinatorKit(path.resolve())
    if not kit.settings.is_file():
        raise BadInputError(
            f"{path} is not a coordinator kit: no coordinator.toml", hint="name KITS/coordinator of `provision`"
        )
    return kit


def flower_environment(kit: Kit, variable: str) -> dict[str, str]:
    """Settings for a Flower process of a kit: no calls home, nothing installed, own home folder, no foreign code."""
    return child_environment(
        {
            variable: str(kit.path),
            "FLWR_HOME": str(kit.flower_home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }
    )
