"""What a log needs that the settings leave open: how many sites it makes, and how its items are written down.

Only defaults are changed, each with a word about it: what a user has chosen stays, and is refused where it cannot be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.errors import BadInputError
from common.run import RunConfig
from common.tasks import STEP_HEADS, task_named

if TYPE_CHECKING:
    from common.data import EventLog
    from simulations.partition import Partition

MANY = 0.01
"""Share of consumers at several sites from which a run says so."""

_OTHER_SPLITS = ("consumers", "items")


def needed_sites(config: RunConfig) -> int:
    """How many sites a run of these settings needs at least."""
    return max(config.aggregation.min_sites, 3 if config.aggregation.mode == "secure" else 1)


def dealt(config: RunConfig, log: EventLog) -> tuple[Partition, tuple[str, ...]]:
    """The log at its sites, and what must be said about them.

    Where the settings leave it open and too few sites would be left, small sites stay as they are, and a log of one or two
    sites is dealt by consumer.
    Raises: BadInputError if there are too few sites or consumers.
    """
    by, said = _split_of(config, log)
    whole = _parted(config, log, by, config.data.min_population)
    if whole is not None and len(whole.sites) >= needed_sites(config):
        return whole, said
    if "min_population" not in config.data.model_fields_set:
        small = _parted(config, log, by, 1)
        if small is not None and len(small.sites) >= needed_sites(config):
            return small, (*said, f"sites of fewer than {config.data.min_population} consumers stay as they are, or "
                           f"fewer than {needed_sites(config)} sites would be left: expect little of so few")  # fmt: skip
        if by == "column" and "split_by" not in config.data.model_fields_set:
            mixed = _parted(config, log, "consumers", 1)
            if mixed is not None and len(mixed.sites) >= needed_sites(config):
                found = len(small.sites) if small else 0
                return mixed, (
                    *said,
                    f"the log has {found} sites, {needed_sites(config)} are needed: consumers are dealt to "
                    f"{config.data.sites} equal sites instead",
                )
    raise BadInputError(
        f"{len(whole.sites) if whole else 0} sites are left after the split, {needed_sites(config)} are needed",
        hint="lower data.min_population, split by another column, or use --sites N --split-by consumers",
    )


def _split_of(config: RunConfig, log: EventLog) -> tuple[str, tuple[str, ...]]:
    """How the consumers are dealt to sites, in a word of ``partition``; and what must be said about it.

    Raises: BadInputError for a column that made-up events do not have.
    """
    wanted = config.data.split_by
    if wanted in _OTHER_SPLITS:
        return wanted, ()
    if wanted != "site" and not (config.data.events or config.data.source):
        raise BadInputError(
            f"synthetic events have no column {wanted!r} to split by",
            hint="their sites are their merchants: leave --split-by out, or deal consumers or items",
        )
    if config.data.events and "site" not in log.frame.columns:
        return "consumers", (
            f"no column of the log names a site: consumers are dealt to {config.data.sites} equal sites; "
            "--split-by COLUMN makes natural ones",
        )
    return "column", ()


def _parted(config: RunConfig, log: EventLog, by: str, min_population: int) -> Partition | None:
    """None where a smaller limit may help. Raises: BadInputError."""
    from simulations.partition import partition

    try:
        return partition(
            log,
            by=by,  # type: ignore[arg-type]
            column="site",
            sites=config.data.sites,
            seed=config.seed,
            min_population=min_population,
            small=config.data.small_sites,
        )
    except BadInputError:
        if min_population == 1 or "min_population" in config.data.model_fields_set:
            raise
        return None


def overlap_note(config: RunConfig, parts: Partition) -> tuple[str, ...]:
    """A word where many consumers are at several sites: each of these answers for them, and epsilons add up."""
    import numpy as np

    if not config.data.events:
        return ()
    homes = np.unique(np.concatenate([part.log.consumers for part in parts.sites]), return_counts=True)[1]
    share = float(np.mean(homes > 1))
    if share < MANY:
        return ()
    return (
        f"{share:.1%} of the consumers are at more than one site: epsilon is per consumer at each site, and theirs adds up "
        "over sites",
    )


def without_items(config: RunConfig, log: EventLog) -> tuple[RunConfig, tuple[str, ...]]:
    """The settings for a log that names no item: nothing about items is learnt. Raises: BadInputError."""
    if log.frame["item"].count() or not config.data.events:
        return config, ()
    said = "no column of the log names an item"
    features = _changed(config.features, {"item_buckets": 1})
    if not task_named(config.task).looks_up_items:
        return _changed(config, {"features": features}), (f"{said}: sales need none",)
    heads = _heads_without_items(config, log)
    if not any(head in STEP_HEADS for head in heads):
        raise BadInputError(
            f"{said}, and model.heads asks for nothing else",
            hint="fedcart simulate sales forecasts sales without items; or --map item=COLUMN",
        )
    changed = {"features": features, "model": _changed(config.model, {"heads": heads})}
    return _changed(config, changed), (
        f"{said}: the model learns {' and '.join(heads)} only; sales can be forecast, and anomalies found, all the same",
    )


def _heads_without_items(config: RunConfig, log: EventLog) -> dict[str, float]:
    heads = {name: weight for name, weight in config.model.heads.items() if name != "next-item"}
    if "next-event" in heads and "next-item" in config.model.heads:
        heads["next-event"] = 1.0
    if not log.frame["category"].count():
        heads.pop("next-category", None)
    return heads


def with_dates(config: RunConfig, parts: Partition) -> tuple[RunConfig, tuple[str, ...]]:
    """The settings with the dates of a split in time that they leave open: days behind four fifths and nine tenths of the events.

    A deployment declares them. Raises: BadInputError for a log of less than three days.
    """
    import numpy as np

    if config.training.split != "time" or config.training.dates_us is not None:
        return config, ()
    times = np.sort(np.concatenate([part.log.frame["timestamp"].to_physical().to_numpy() for part in parts.sites]))
    first, then = (
        np.datetime64(int(np.quantile(times, share)), "us").astype("datetime64[D]") + 1 for share in (0.8, 0.9)
    )
    then = max(then, first + 1)
    if not np.datetime64(int(times[0]), "us") < first or not then <= np.datetime64(int(times[-1]), "us"):
        raise BadInputError(
            "the log is too short to be cut in time: nothing is left to learn from, or to report on",
            hint="name training.validation_from and training.test_from, or leave training.split = consumer",
        )
    dates = {"validation_from": str(first), "test_from": str(then)}
    return _changed(config, {"training": _changed(config.training, dates)}), (
        f"cut in time: learnt is what comes before {first}, the run chooses by what comes from then to {then} and reports on what "
        "comes from then on, each of other consumers",
    )


def _changed(section: Any, values: dict[str, Any]) -> Any:
    return section.model_copy(update=values)
