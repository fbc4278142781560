"""A federation of real sites as files: what operators write (``settings``) and what a kit folder holds (``kit``)."""

from common.deployment.kit import (
    ACCOUNT_FILE,
    COORDINATOR_VARIABLE,
    LEDGER_FILE,
    SITE_VARIABLE,
    USER_LEDGER,
    CoordinatorKit,
    Kit,
    Kits,
    SiteKit,
    flower_environment,
    open_coordinator_kit,
    open_site_kit,
    user_ledgers,
)
from common.deployment.settings import (
    Federation,
    FederationPins,
    SiteEntry,
    SiteFile,
    read_settings,
    split_address,
)

__all__ = [
    "ACCOUNT_FILE",
    "COORDINATOR_VARIABLE",
    "LEDGER_FILE",
    "SITE_VARIABLE",
    "USER_LEDGER",
    "CoordinatorKit",
    "Federation",
    "FederationPins",
    "Kit",
    "Kits",
    "SiteEntry",
    "SiteFile",
    "SiteKit",
    "flower_environment",
    "open_coordinator_kit",
    "open_site_kit",
    "read_settings",
    "split_address",
    "user_ledgers",
]
