"""The files of a federation of real sites: what an operator writes, and what a kit folder holds.

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
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.errors import BadInputError, ConfigError
from common.processes import child_environment
from common.run import CATALOGUE_FILE, read_toml
from common.source_settings import SourceSettings
from common.trust import CONSUMERS_KEY, IDENTITY_KEY, NODE_KEY, ROSTER_FILE

SITE_VARIABLE = "FEDCART_SITE"
COORDINATOR_VARIABLE = "FEDCART_COORDINATOR"
LEDGER_FILE = "ledger.jsonl"
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of ``host:port``. Raises: ConfigError."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(f"address {address[:80]!r} is not HOST:PORT", hint="for example fl.example.org:9443")
    return match["host"].strip("[]"), int(match["port"])


def _checked_address(address: str) -> str:
    try:
        split_address(address)
    except ConfigError as error:
        raise ValueError(f"{error.message}, {error.hint}") from None
    return address


class SiteEntry(_Section):
    """One ``[[sites]]`` table of ``federation.toml``."""

    name: Name
    population: int = Field(ge=1, description="consumers declared, rounded by the operator; public")
    scope: Name | None = Field(None, description="consumer set the budget belongs to; default: the site's name")
    keys: str = Field(
        "", description="public key file of `fedcart site keygen`; empty: keys made here, for a trial"
    )
    events: str = Field("", description="event log, as the site will see it")
    source: SourceSettings | None = Field(
        None, description="where the events are instead: [sites.source], no secret"
    )
    format: str = Field("fedcart", description="preset of the event log")
    mapping: str = Field("", description="own column mapping instead of a preset")
    catalogue: str = Field("", description="public catalogue file")

    @model_validator(mode="after")
    def _events_are_in_one_place(self) -> SiteEntry:
        if self.events and self.source is not None:
            raise ValueError("give either events or a table [sites.source]")
        return self


class CoordinatorEntry(_Section):
    """The ``[coordinator]`` table of ``federation.toml``."""

    name: Name = "coordinator"
    address: str = Field(description="HOST:PORT at which sites reach the server")
    listen: str = Field(
        "", description="HOST:PORT the server binds; empty: the port of `address` on all addresses"
    )
    names: tuple[str, ...] = Field((), description="further host names or IP addresses for the certificate")
    certificate_days: int = Field(397, ge=1, le=3_650)

    _address = field_validator("address")(_checked_address)


class Federation(_Section):
    """``federation.toml``: all that provisioning needs to know."""

    name: Name
    coordinator: CoordinatorEntry
    sites: tuple[SiteEntry, ...] = Field(min_length=1, max_length=200)
    catalogue: str = Field("", description="public catalogue of all sites: checked, and put into every kit")
    stock: dict[str, str] = Field(
        default_factory=dict, description="name in the catalogue's column site -> name of the site"
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Federation:
        names = [self.coordinator.name, *(site.name for site in self.sites)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name used twice: {', '.join(twice)}")
        return self


class FederationPins(_Section):
    """What a kit believes about its federation, whatever the server says."""

    name: Name
    coordinator: Hex32 = Field(description="Ed25519 public key of the coordinator")
    bundle: Hex32 = Field(description="SHA-256 of the only app bundle that may run")


USER_LEDGER = "user"  # for ``ledger`` in site.toml: in the user's state directory


def user_ledgers() -> Path:
    """Where shared ledgers lie that are named ``user``: one folder per scope."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # empty, or relative: the base directory specification says to ignore it
        home = str(Path.home() / ".local" / "state")
    return Path(home) / "fedcart" / "ledgers"


class SiteSection(_Section):
    """The ``[site]`` table of ``site.toml``. Paths are relative to the kit folder unless absolute."""

    name: Name
    scope: Name
    population: int = Field(ge=1)
    events: str = Field("", description="event log; empty where a table [source] says where the events are")
    format: str = "fedcart"
    mapping: str = ""
    catalogue: str = ""
    ledger: str = Field("", description="folder of a ledger outside the kit, or user; empty: in the kit")


class ServerAddress(_Section):
    """The ``[server]`` table of ``site.toml``."""

    address: str

    _address = field_validator("address")(_checked_address)


class SiteFile(_Section):
    """``site.toml``. The events are in ``site.events``, or where ``[source]`` says."""

    federation: FederationPins
    site: SiteSection
    server: ServerAddress
    source: SourceSettings | None = None

    @model_validator(mode="after")
    def _events_are_somewhere(self) -> SiteFile:
        if bool(self.site.events) == (self.source is not None):
            raise ValueError("give either site.events or a table [source]")
        return self


class CoordinatorFacts(_Section):
    """The ``[coordinator]`` table of ``coordinator.toml``."""

    name: Name
    address: str
    listen: str

    _address = field_validator("address")(_checked_address)
    _listen = field_validator("listen")(_checked_address)


class CoordinatorFile(_Section):
    """``coordinator.toml``."""

    federation: FederationPins
    coordinator: CoordinatorFacts
    sites: dict[str, int] = Field(default_factory=dict, description="site -> declared population, public")


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


T = TypeVar("T", bound=BaseModel)


def read_settings(schema: type[T], path: Path) -> T:
    """Read and check one TOML file against its schema. Raises: ConfigError naming file and field."""
    return check_settings(schema, read_toml(path), path.name)


def check_settings(schema: type[T], tree: dict[str, Any], name: str) -> T:
    """Check parsed settings against a schema. Raises: ConfigError naming file and field."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{name}: {where}: {message[:1].lower()}{message[1:]}", hint="see docs/deploy.md for every field"
        ) from None


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
