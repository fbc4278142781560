"""Clean events in the model's own ids, by the same public constants as the batch encoding; and back into a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from client.serving.cleaning import Cleaner, CleanEvent, mark_of
from client.serving.row import Encoded, Row
from common.data import EVENT_TYPES, ConsumerSequences, FeatureSpec, Mapping, hashed_bucket
from common.data.features import INTEGER_NAMES

if TYPE_CHECKING:
    from client.scoring.model import SharedModel
    from common.data import EventLog


class Encoder:
    """Cleans and encodes events for one model."""

    def __init__(self, shared: SharedModel, mapping: Mapping) -> None:
        spec, names = shared.spec, shared.catalogue
        self.cleaner, self._spec = Cleaner(mapping), spec
        self._items = {name: i for i, name in enumerate(names.items, start=1)} if names else {}
        self._categories = {name: i for i, name in enumerate(names.categories, start=1)} if names else {}
        self._events = {name: i for i, name in enumerate(EVENT_TYPES, start=1)}
        self._listed = names.item_category if names is not None else np.zeros(1, dtype=np.int64)
        self._local = shared.rows.translate(np.arange(spec.sizes["item"]))
        self._gaps, self._prices = (np.array(edges) for edges in (spec.gap_edges_s, spec.price_edges))

    def gap(self, pause_us: int | None) -> int:
        """Bucket of the pause to the event before; 0 for the first."""
        return 0 if pause_us is None else int(self._gaps.searchsorted(pause_us / 1e6, side="right")) + 1

    def local_item(self, name: str) -> int:
        """The model's own id of an item, 0 where it has none."""
        return int(self._local[self._catalogue_item(name)])

    def _catalogue_item(self, name: str) -> int:
        if not name:
            return 0
        spec = self._spec
        return self._items.get(name) or hashed_bucket(name, spec.catalogue_items, spec.item_buckets)

    def encode(self, clean: CleanEvent) -> Encoded:
        """One event."""
        spec, item, own = self._spec, self._catalogue_item(clean.item), 0
        if clean.category:
            own = self._categories.get(clean.category) or hashed_bucket(
                clean.category, spec.catalogue_categories, spec.category_buckets
            )
        listed = int(self._listed[item]) if item <= spec.catalogue_items else 0
        price = np.float32(np.nan if clean.price is None else clean.price)
        bucket = 0 if clean.price is None else int(self._prices.searchsorted(price, side="right")) + 1
        quantity = float("nan") if clean.quantity is None else clean.quantity
        kind = self._events[clean.event]
        local = int(self._local[item])
        return Encoded(clean.time, clean.mark, local, listed or own, float(price), quantity, kind, bucket)

    def of_log(self, log: EventLog) -> Callable[[int], Encoded]:
        """What gives each event of a cleaned log by its place."""
        frame = log.frame
        columns = [frame[name].to_list() for name in ("event", "item", "category", "price", "quantity")]
        times = frame["timestamp"].to_physical().to_list()

        def at(place: int) -> Encoded:
            kind, item, category, price, quantity = (column[place] for column in columns)
            mark = mark_of((kind, item or "", category or "", price, quantity))
            return self.encode(
                CleanEvent("", times[place], kind, item or "", category or "", price, quantity, mark)
            )

        return at


def sequences_of(consumer: int, row: Row, spec: FeatureSpec, most: int) -> ConsumerSequences:
    """The last events of a row as the batch encoding gives them: at most ``most``."""
    table = row.table()
    pause = np.full(len(table), np.nan)
    pause[1:] = np.diff(table["time"]) / 1e6
    numeric = np.stack([table["price"], table["quantity"], pause.astype(np.float32)], axis=1)
    numeric = np.log1p(np.nan_to_num(numeric, nan=0.0)) / np.array(spec.numeric_scales, dtype=np.float32)
    at = table["time"].astype("datetime64[us]")
    days = at.astype("datetime64[D]")
    columns = {
        "event": table["event"], "item": table["item"], "category": table["category"], "price": table["bucket"],
        "gap": table["gap"], "hour": (at - days).astype("timedelta64[h]").astype(np.int64) + 1,
        "weekday": (days.astype(np.int64) + 3) % 7 + 1,  # the first of 1970 was a Thursday
        "month": at.astype("datetime64[M]").astype(np.int64) % 12 + 1,
    }  # fmt: skip
    integers = np.stack([columns[name].astype(np.int32) for name in INTEGER_NAMES], axis=1)[-most:]
    ends = np.array([0, len(integers)], dtype=np.int64)
    who = np.array([consumer], dtype=np.uint64)
    return ConsumerSequences(who, ends, integers, numeric.astype(np.float32)[-most:], table["time"][-most:].copy())
