"""What operators write of a federation: ``federation.toml``, ``site.toml``, ``coordinator.toml``, each with its schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.errors import ConfigError
from common.run import read_toml
from common.source_settings import SourceSettings

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
