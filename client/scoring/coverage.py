"""How much of a log a model knows at all: said before its predictions, which are worth nothing where it knows nothing."""

from __future__ import annotations

from dataclasses import dataclass

from client.scoring.model import SharedModel
from common.data import EventLog
from common.errors import BadInputError
from common.tasks.sales_series import SalesSpec

FLOOR = 0.01  # below, a log is of another shop, or its items are named in another way
FEW = 0.5


@dataclass(frozen=True)
class Coverage:
    """``events`` that name an item (``purchases`` that name a category), and how many of these the model knows."""

    events: int
    known: int
    what: str = "events are about items"

    @property
    def share(self) -> float:
        """Of the events that name an item; 1 where none does."""
        return self.known / self.events if self.events else 1.0

    @property
    def remark(self) -> str:
        """What a reader must be told; empty where the model knows most of it."""
        if not self.events:
            return "no event of this log names an item: what the model says of items is what is likely for anybody"
        return f"{self.words} that the model knows" if self.share < FEW else ""

    @property
    def words(self) -> str:
        """The share in words: never rounded to more than there is."""
        shown = f"{int(100 * self.share)} %" if self.known == 0 or self.share >= FLOOR else "less than 1 %"
        return f"{shown} of these {self.events:,} {self.what}"


def coverage_of(shared: SharedModel, log: EventLog) -> Coverage:
    """Compare a log's items with those that the model can predict; hashed buckets count as known."""
    items = log.frame["item"].drop_nulls()
    if shared.catalogue is None or shared.spec.item_buckets:
        return Coverage(len(items), len(items))
    known = shared.rows.translate(shared.catalogue.item_index(items)) > 0
    return Coverage(len(items), int(known.sum()))


def require_known(shared: SharedModel, log: EventLog) -> str:
    """The remark on a log, empty for none. Raises: BadInputError for one that the model knows nothing of."""
    found = coverage_of(shared, log)
    if found.share < FLOOR:
        raise BadInputError(
            f"{found.words} that the model knows: its predictions would be about other things",
            hint="is it the log of this site, with the item ids of the catalogue? fedcart data check FILE shows the "
            "columns that were read; a mapping may name another one for the item",
        )
    return found.remark


def require_known_sales(spec: SalesSpec, log: EventLog) -> str:
    """The same for a model of sales, by the categories of the purchases. Raises: BadInputError."""
    from client.tasks.purchases import categories_of

    bought = log.frame.filter(log.frame["event"] == "purchase")
    known = int((categories_of(bought, spec) >= 0).sum())
    found = Coverage(len(bought), known, "purchases are in categories")
    if found.share < FLOOR:
        raise BadInputError(
            f"{found.words} that the model knows: {', '.join(spec.categories[:8])}",
            hint="map your categories to those names, see docs/data.md",
        )
    return f"{found.words} that the model knows; the others are left out" if found.share < FEW else ""


def cut_remark(log: EventLog, what: str, cap: float) -> str:
    """That a quantity or price of some purchases is above the largest that counts; empty where none is."""
    bought = log.frame.filter(log.frame["event"] == "purchase")
    above = int((bought[what].fill_null(0.0) > cap).sum())
    return (
        f"{above:,} of {len(bought):,} purchases have a {what} above {cap:,g}: they count as that" if above else ""
    )


def unpriced_remark(log: EventLog) -> str:
    """That some purchases say no price; empty where all do."""
    bought = log.frame.filter(log.frame["event"] == "purchase")
    without = bought["price"].null_count()
    return f"{without:,} of {len(bought):,} purchases have no price" if without else ""
