"""Which of a consumer's last events led to an answer, asked of the live state."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from client.serving.live import LiveModel
from common.data import value_name
from common.errors import BadInputError
from common.strict_json import finite

METHODS = ("gradients", "occlusion")


def explained(live: LiveModel, consumer: int, about: str, choice: str, method: str) -> dict[str, Any]:
    """The explanation, event by event, oldest first. Raises: BadInputError for what cannot be explained."""
    from client.scoring.explain import explain

    row = live.known(consumer)
    if row is None:
        raise BadInputError("nothing is known of this consumer", hint="send its events first")
    rows, shared = live.sequences(consumer, row), live.shared
    found = explain(shared, rows, about, choice, method, now_us=live.asked_at(row))
    kinds, items = rows.column("event"), rows.column("item")
    events = [
        {
            "time": datetime.fromtimestamp(int(stamp) / 1e6, UTC).replace(tzinfo=None).isoformat(),
            "event": value_name(shared.spec, "event", int(kinds[place])),
            "item": shared.item_name(int(items[place])),
            "contribution": round(float(found.contributions[place]), 6),
            "attention": None if found.attention is None else round(float(found.attention[place]), 6),
        }
        for place, stamp in enumerate(rows.timestamps.tolist())
    ]
    told = {
        "about": found.about, "choice": found.choice, "probability": found.probability, "method": found.method,
        "total": found.total, "empty": found.empty, "events": events, "earlier": row.position - len(events),
    }  # fmt: skip
    return finite(told)  # type: ignore[no-any-return]
