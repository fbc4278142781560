"""``open_model``: the shared model at work on your own events. Nothing leaves this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import BadInputError, ConfigError
from fedcart.events import local_log
from fedcart.places import Place, optional_path, path_of

if TYPE_CHECKING:
    import polars as pl

    from client.scoring.forecast import SharedSalesModel
    from client.scoring.model import SharedModel
    from client.scoring.stream import StreamScorer


class BehaviourModel:
    """A model of next behaviour or purchase intent. Results carry pseudonyms unless ``with_ids``."""

    def __init__(self, shared: SharedModel) -> None:
        self.shared = shared

    def __repr__(self) -> str:
        return f"BehaviourModel({', '.join(self.heads)})"

    @property
    def heads(self) -> tuple[str, ...]:
        """What it was trained for."""
        return self.shared.heads

    def predict(
        self,
        events: Any,
        *,
        top: int = 20,
        what: str | Sequence[str] = (),
        exclude_known: bool = False,
        format: str = "",  # noqa: A002 the word of the command line
        with_ids: bool = False,
    ) -> pl.DataFrame:
        """What each consumer does next: consumer, what, rank, choice, category, probability.

        ``what``: item, category, event; left out: all that the model has. Raises: BadInputError.
        """
        import polars as pl

        from client.scoring.tables import NextQuestion, next_table

        kinds = tuple(what) if isinstance(what, list | tuple | set) else (str(what),)
        asked = NextQuestion(kinds if kinds != ("",) else (), top, exclude_known=exclude_known)
        return pl.DataFrame(next_table(self.shared, local_log(events, format, with_ids=with_ids), asked)[0])

    def intent(
        self,
        events: Any,
        *,
        threshold: float | None = None,
        format: str = "",  # noqa: A002
        with_ids: bool = False,
    ) -> pl.DataFrame:
        """Whether each consumer will buy: consumer, probability, will_buy.

        ``threshold`` left out: chosen on one half of the log's past. Raises: BadInputError without that head.
        """
        import polars as pl

        from client.scoring.tables import intent_table

        log = local_log(events, format, with_ids=with_ids)
        return pl.DataFrame(intent_table(self.shared, log, threshold=threshold)[0])

    def detect(
        self,
        events: Any,
        *,
        threshold: str = "adaptive",
        at: float = 1.0,
        reference: Any = None,
        format: str = "",  # noqa: A002
        with_ids: bool = False,
    ) -> pl.DataFrame:
        """Anomalous behaviour, a line per consumer: score (0 usual, 1 as odd as the oddest hundredth), anomaly, when.

        ``reference``: earlier events that count as usual. Raises: BadInputError for too little to compare with.
        """
        import polars as pl

        from client.anomalies.detection import Thresholding, detect
        from client.anomalies.tables import score_table

        log = local_log(events, format, with_ids=with_ids)
        usual = None if reference is None else local_log(reference, format, with_ids=False).log
        detection = detect(self.shared, log.log, Thresholding(threshold, at), reference=usual)
        return pl.DataFrame(score_table(log, detection, {}, per_window=False))

    def stream(self, *, consumers: int = 100_000) -> StreamScorer:
        """Score one event after another: ``scorer.push(scorer.event(consumer, time, kind, item=...))``.

        ``consumers``: how many are remembered. Raises: BadInputError without a head of the next behaviour.
        """
        from client.scoring.consumers import local_key, state_folder
        from client.scoring.stream import StreamScorer

        return StreamScorer(self.shared, consumers, local_key(state_folder(None)))

    def forecast(self, *_: Any, **__: Any) -> pl.DataFrame:
        """Raises: BadInputError always, for this model reads behaviour; a sales model forecasts."""
        raise BadInputError(
            f"this model was trained for {', '.join(self.heads)}, it does not forecast sales",
            hint="simulate a sales run: fedcart.simulate(scenario='sales')",
        )


class SalesForecaster:
    """A model of sales series: the next days or weeks of your own, per category."""

    def __init__(self, shared: SharedSalesModel) -> None:
        self.shared = shared

    def __repr__(self) -> str:
        return f"SalesForecaster({self.shared.config.sales.horizon} {self.shared.spec.granularity}s ahead)"

    def forecast(
        self,
        events: Any,
        *,
        category: str = "",
        format: str = "",  # noqa: A002
    ) -> pl.DataFrame:
        """Quantity, revenue, mean price and their 80 % and 95 % intervals, a line per category and period.

        Raises: BadInputError for a log that is too short, or a category that the model does not know.
        """
        import polars as pl

        from client.scoring.forecast import forecast, forecast_table, own_series

        series, spec = own_series(self.shared, local_log(events, format, with_ids=False).log)
        ahead = forecast(self.shared, series, spec)
        if category and category not in ahead.categories:
            raise BadInputError(
                f"the model knows no category {category!r}", hint=f"known: {', '.join(ahead.categories[:20])}"
            )
        return pl.DataFrame(forecast_table(ahead, category))

    def predict(self, *_: Any, **__: Any) -> pl.DataFrame:
        """Raises: BadInputError always: a sales model reads series, not consumers."""
        raise BadInputError(
            "this model forecasts sales, it does not read consumers", hint="use model.forecast(events)"
        )


def open_model(
    model: Place, *, catalogue: Place | None = None, site: str | int = ""
) -> BehaviourModel | SalesForecaster:
    """Open the model of a run, a run folder, a model's file, or the one that a site's kit works with.

    ``site``: only items that this site stocks. A personal model on top of it (``fedcart personalize``) answers where there is
    one. Raises: BadInputError for a missing, damaged or foreign model.

    Example:
        >>> open_model("runs/latest").predict("shop.csv", top=5)  # doctest: +SKIP
    """
    from client.personal.file import PERSONAL_FILE, personal_folder
    from client.scoring import model as scoring
    from client.scoring.forecast import open_sales_model
    from client.scoring.place import model_place

    place = model_place(path_of(model), site=str(site))
    path, name = place.folder, place.site
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise BadInputError(f"no such model: {path}", hint="name a run folder, or its model.safetensors")
    if _forecasts(folder):
        return SalesForecaster(open_sales_model(path))
    own = personal_folder(place.home, folder) / PERSONAL_FILE
    names = optional_path(catalogue)
    return BehaviourModel(
        scoring.open_model(path, catalogue=names, site=name, personal=own if own.is_file() else None)
    )


def _forecasts(folder: Path) -> bool:
    """Whether a model's own metadata say that it forecasts sales; what is wrong with them is said on opening it."""
    from common.model import load_model
    from common.run import RunPlan
    from common.strict_json import one_line

    try:
        return RunPlan.from_json(one_line(load_model(folder)[2]["plan"])).task.network == "sales"
    except (KeyError, ConfigError):
        return False
