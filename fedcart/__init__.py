"""fedcart for Python: simulate a federation, open what it left, use the model, verify the record.

    import fedcart

    run = fedcart.simulate("events.csv", epsilon=3, split_by="country")
    run.epsilon                          # a table: round x site
    model = fedcart.open_model(run)
    model.predict("events.csv")
    fedcart.verify(run).raise_if_broken()

Everything is imported when it is first used: ``import fedcart`` itself loads nothing heavy. Paths may be strings, and
events may be a path, or any data frame. docs/python.md is a tour.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import common


def _require_own_common() -> None:
    """A foreign package of that name cannot be asked anything, so this check is made here."""
    ours = Path(__file__).resolve().parent.parent
    place = Path(common.__file__ or next(iter(common.__path__), "")).resolve()
    if ours not in place.parents:
        raise ImportError(
            f"the package `common` comes from {place}, not from {ours}: unset PYTHONPATH, leave that folder, or give "
            "fedcart its own environment"
        )


_require_own_common()
__version__ = common.VERSION

_PLACES = {
    "common.audit.verdict": ("Finding", "LedgerReport", "VerifyReport"),
    "common.run": ("RunConfig", "RunPlan"),
    "common.data.cleaning": ("CleaningReport",),
    "common.data.events": ("EventLog",),
    "common.errors": (
        "BadInputError",
        "BudgetExhaustedError",
        "ConfigError",
        "FedcartError",
        "MechanismError",
        "PolicyRefusedError",
        "RefusedError",
        "RollbackError",
        "RoundAbortedError",
        "VerificationError",
        "WorkFailedError",
    ),
    "common.extensions": ("register_encoder", "register_head"),
    "common.model.encoders": ("on_rows",),
    "common.privacy.accountant": ("epsilon_of",),
    "common.privacy.calibration": ("calibrate_noise",),
    "common.privacy.mechanism": ("PrivacyEvent",),
    "common.run.observer": ("Observer",),
    "common.run.facts": ("RunFacts", "SiteFacts"),
    "common.run.records": ("RoundRecord", "SiteRound", "Summary"),
    "fedcart.comparison": ("Comparison", "compare"),
    "fedcart.events": ("load_events", "register_dataset"),
    "fedcart.model": ("BehaviourModel", "SalesForecaster", "open_model"),
    "fedcart.picture": ("Picture",),
    "fedcart.run": ("Run", "Sweep", "open_run"),
    "fedcart.settings": ("build_config", "load_config"),
    "fedcart.simulation": ("resume", "simulate"),
    "fedcart.strategies": ("register_strategy",),
    "fedcart.verification": ("verify", "verify_path"),
    "server.state": ("ServerState",),
    "simulations.jobs": ("scenario_names",),
}
_PLACE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BadInputError",
    "BehaviourModel",
    "BudgetExhaustedError",
    "CleaningReport",
    "Comparison",
    "ConfigError",
    "EventLog",
    "FedcartError",
    "Finding",
    "LedgerReport",
    "MechanismError",
    "Observer",
    "Picture",
    "PolicyRefusedError",
    "PrivacyEvent",
    "RefusedError",
    "RollbackError",
    "RoundAbortedError",
    "RoundRecord",
    "Run",
    "RunConfig",
    "RunFacts",
    "RunPlan",
    "SalesForecaster",
    "ServerState",
    "SiteFacts",
    "SiteRound",
    "Summary",
    "Sweep",
    "VerificationError",
    "VerifyReport",
    "WorkFailedError",
    "__version__",
    "build_config",
    "calibrate_noise",
    "compare",
    "epsilon_of",
    "load_config",
    "load_events",
    "on_rows",
    "open_model",
    "open_run",
    "register_dataset",
    "register_encoder",
    "register_head",
    "register_strategy",
    "resume",
    "scenario_names",
    "simulate",
    "verify",
    "verify_path",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'fedcart' has no attribute {name!r}")
    _require_own_rest()
    value = getattr(importlib.import_module(_PLACE_OF[name]), name)
    globals()[name] = value
    return value


def _require_own_rest() -> None:
    """Raises: BadInputError if another of our packages is a foreign one of the same name."""
    from common.house import require_own_packages

    require_own_packages()


def __dir__() -> list[str]:
    return sorted(__all__)
