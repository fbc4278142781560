"""From a model or a kit on disk to a service that is ready to answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.serving.service import Parts, Service
from client.serving.snapshot import SNAPSHOT_FILE, set_aside
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.place import ModelPlace
    from client.serving.live import LiveModel
    from client.serving.sales import SalesForecasts
    from common.data import EventLog, Mapping

FOLDER = "serving"


@dataclass(frozen=True)
class ServeOptions:
    """``consumers``, ``ids``: how many are remembered; ``rate``: share of recent behaviour to report; ``personal``: the file
    of a personal model; ``past``: an event log of what came before; ``sales``: a sales model beside."""

    consumers: int = 100_000
    ids: int = 100_000
    rate: float = 0.01
    catalogue: Path | None = None
    personal: Path | None = None
    past: Path | None = None
    sales: Path | None = None
    fresh: bool = False


def serving_folder(home: Path) -> Path:
    """Where a service keeps its state."""
    return home / FOLDER


def open_service(place: ModelPlace, options: ServeOptions) -> Service:
    """Open the model, restore the state, read what came before. The state must be held (``hold``).

    Raises: BadInputError for a model, log or snapshot that cannot be used.
    """
    from client.scoring.consumers import load_local, local_key
    from client.scoring.lines import DriftingLevel
    from client.serving.repeats import Repeats
    from client.serving.verdicts import KeptVerdicts

    key = local_key(place.state)
    past = load_local(options.past, place.format, key).log if options.past is not None else None
    sales = _forecasts_sales(place.folder)
    live = None if sales else _live(place, options, key)
    forecast = _forecast(options.sales or (place.folder if sales else None), past)
    path = serving_folder(place.home) / SNAPSHOT_FILE
    if options.fresh:
        set_aside(path)
    level = DriftingLevel(options.rate)
    repeats = Repeats(options.ids, key)
    parts = Parts(live, KeptVerdicts(place.home), level, repeats, _digest(place, options, key), path, forecast)
    service = Service(parts)
    if live is not None and not service.restore() and past is not None:
        for value in live.warm(past):
            level.add(float(value))
        service.changed = True
    return service


def _live(place: ModelPlace, options: ServeOptions, key: bytes) -> LiveModel:
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from client.scoring.model import open_model
    from client.serving.live import LiveModel
    from client.serving.loading import engine_of

    torch.set_num_threads(1)
    threadpool_limits(1)  # for good: a step is too small to be shared
    shared = open_model(place.folder, catalogue=options.catalogue, site=place.site, personal=options.personal)
    return LiveModel(
        shared, engine_of(shared), capacity=options.consumers, key=key, format_name=_words(place.format)
    )


def _words(format_name: str) -> Mapping | None:
    """The mapping whose words and units the shop's events have; None: ours."""
    from common.data import mappings_of

    return mappings_of(format_name)[0] if format_name not in ("", "auto") else None


def _forecasts_sales(folder: Path) -> bool:
    from client.scoring.forecast import open_sales_model

    try:
        open_sales_model(folder)
    except BadInputError:
        return False
    return True


def _forecast(model: Path | None, past: EventLog | None) -> SalesForecasts | None:
    if model is None:
        return None
    if past is None:
        raise BadInputError("a sales model needs the sales so far", hint="--events LOG")
    from client.serving.sales import SalesForecasts

    return SalesForecasts(model, past)


def _digest(place: ModelPlace, options: ServeOptions, key: bytes) -> str:
    """Of the model that answers (the shared one's description, whose items it has, the personal file) and of the key of the
    pseudonyms: with another of these the rows that are kept mean other items, or nobody.
    """
    from client.personal.file import shared_digest

    own = hashlib.sha256(options.personal.read_bytes()).hexdigest() if options.personal is not None else ""
    names = hashlib.blake2b(b"live state", key=key, digest_size=32).hexdigest()
    return hashlib.sha256(f"{shared_digest(place.folder)} {own} {names} {place.site}".encode()).hexdigest()
