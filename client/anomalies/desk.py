"""What the pages of review show: alarms filtered and joined with their verdicts, figures with bars, the way of the threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from client.anomalies.alarms import Alarm, AlarmBook, Reason
from client.anomalies.evidence import Figure, Verdict, judged_quality, moves, standing, weighed
from client.anomalies.verdicts import VerdictBook
from client.anomalies.words import KINDS, beyond_words, moment, reason_words, what_words

STATES = (("open", "open"), ("judged", "judged"), ("all", "all"))
SPANS = (("", "any time"), ("1", "last day"), ("7", "last 7 days"), ("30", "last 30 days"))
PER_PAGE = 50
_HEADLINES = {
    "bot": "Looks like a bot",
    "account-takeover": "Looks like an account takeover",
    "brushing": "Looks like brushing",
    "fake-reviews": "Looks like fake reviews",
}
_DAY_US = 86_400_000_000
NONE_LEFT = "Every judged alarm is below the moved threshold: take verdicts back if that is not what you want."


@dataclass(frozen=True)
class Filters:
    """Which alarms are listed. ``days`` are counted back from the newest alarm; ``who``: how a pseudonym begins."""

    state: str = "open"
    kind: str = ""
    days: str = ""
    who: str = ""
    page: int = 1

    @staticmethod
    def of(query: Mapping[str, str]) -> Filters:
        """From the query of an address; what is none of the choices is left out."""
        page = query.get("page", "1")
        return Filters(
            query.get("state", "") if query.get("state") in dict(STATES) else "open",
            query.get("kind", "") if query.get("kind") in KINDS else "",
            query.get("days", "") if query.get("days") in dict(SPANS) else "",
            query.get("who", "").strip()[:100],
            int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        )

    def query(self, **changed: Any) -> str:
        """As the query of an address."""
        fields = {name: str(value) for name, value in (asdict(self) | changed).items()}
        return urlencode({name: value for name, value in fields.items() if value})

    def keep(
        self, alarms: Sequence[Alarm], judged: Mapping[str, Verdict], named: Sequence[int] = ()
    ) -> list[Alarm]:
        """The alarms that pass; ``named``: pseudonyms that ``who`` stands for, if it is an original id."""
        since = max((one.time for one in alarms), default=0) - int(self.days or 0) * _DAY_US
        return [
            one
            for one in alarms
            if (self.state == "all" or (one.id in judged) == (self.state == "judged"))
            and (not self.kind or one.kind == self.kind)
            and (not self.days or one.time >= since)
            and (not self.who or f"{one.consumer:016x}".startswith(self.who.lower()) or one.consumer in named)
        ]


class Desk:
    """Alarms and verdicts of one site."""

    def __init__(self, home: Path) -> None:
        self.alarms, self.verdicts = AlarmBook(home), VerdictBook(home)

    def listed(self, filters: Filters, named: Sequence[int] = ()) -> dict[str, Any]:
        """What the list shows."""
        alarms, said = self.alarms.alarms(), self.verdicts.said()
        counting = standing(said)
        judged = {one.alarm: one for one in counting if one.alarm}
        kept = filters.keep(alarms, judged, named)
        pages = max(1, math.ceil(len(kept) / PER_PAGE))
        filters = replace(filters, page=min(max(filters.page, 1), pages))
        part = kept[(filters.page - 1) * PER_PAGE :][:PER_PAGE]
        return {
            "rows": [_row(one, judged) for one in part],
            "total": len(alarms),
            "open_count": sum(one.id not in judged for one in alarms),
            "filters": filters,
            "back": filters.query(),
            "pages": pages,
            "page_links": [(n, f"/?{filters.query(page=n)}") for n in range(1, pages + 1)],
            "states": STATES,
            "kinds": tuple(KINDS.items()),
            "spans": SPANS,
            **_figures(said, counting),
        }

    def opened(self, name: str) -> dict[str, Any] | None:
        """What the page of one alarm shows; None if there is none of this name."""
        from client.anomalies.picture import sequence_picture

        alarms, said = self.alarms.alarms(), self.verdicts.said()
        place = next((i for i, one in enumerate(alarms) if one.id == name), None)
        if place is None:
            return None
        alarm, judged = alarms[place], {one.alarm: one for one in standing(said) if one.alarm}
        others = [one for one in alarms if one.consumer == alarm.consumer and one.id != name][:10]
        return {
            "row": _row(alarm, judged),
            "home": "/",
            "earlier": alarms[place - 1].id if place else "",
            "later": alarms[place + 1].id if place + 1 < len(alarms) else "",
            "picture": sequence_picture(alarm),
            "reasons": [_reason(one) for one in alarm.reasons],
            "others": [_row(one, judged) for one in others],
            "history": [_said_words(one) for one in said if one.alarm == name],
        }

    def judge(self, name: str, word: str) -> bool:
        """Say yes or no of an alarm, or take the last word on it back; whether there is such an alarm."""
        alarm = next((one for one in self.alarms.alarms() if one.id == name), None)
        if alarm is None:
            return False
        if word == "undo":
            said = next((one for one in self.verdicts.standing() if one.alarm == name), None)
            if said is not None:
                self.verdicts.undo(said.number)
        else:
            self.verdicts.say([Verdict(alarm.consumer, word == "yes", alarm.score, alarm.base, alarm.time, name)])
        return True


def _row(alarm: Alarm, judged: Mapping[str, Verdict]) -> dict[str, Any]:
    said = judged.get(alarm.id)
    first = sorted(alarm.events, key=lambda one: -one.drove)[:3]
    kind = KINDS.get(alarm.kind, alarm.kind)
    return {
        "id": alarm.id,
        "kind": alarm.kind if alarm.kind in KINDS else "unclear",
        "kind_words": kind,
        "headline": _HEADLINES.get(alarm.kind, "Odd, but like nothing known"),
        "when": moment(alarm.time / 1e6),
        "who": f"{alarm.consumer:016x}",
        "score": f"{alarm.score:.2f}",
        "threshold": f"{alarm.threshold:.2f}",
        "limit": alarm.limit,
        "distance": f"{alarm.distance:.2f}",
        "count": len(alarm.events),
        "why": reason_words(alarm.reasons[0]) if alarm.reasons else "",
        "driven": ", ".join(f"{one.event} {one.item or one.category}".strip() for one in first),
        "verdict": "" if said is None else "anomaly" if said.anomaly else "normal",
        "said": "" if said is None else f"said {moment(said.said)} UTC",
    }


def _reason(one: Reason) -> dict[str, str]:
    return {
        "what": what_words(one).capitalize(),
        "value": f"{one.value:.2f}",
        "usual": f"{one.usual:.2f}",
        "beyond": beyond_words(one).capitalize(),
    }


def _said_words(one: Verdict) -> str:
    word = "anomaly" if one.anomaly else "ordinary"
    return f"{moment(one.said)} UTC: {word}{', taken back' if one.undone else ''}"


def _figures(said: Sequence[Verdict], counting: Sequence[Verdict]) -> dict[str, Any]:
    move = weighed(counting)
    quality = judged_quality(counting, move.factor)
    known = quality.right + quality.wrong + quality.missed
    return {
        "tiles": [
            {"label": "Judged", "value": f"{len(counting):,}", "low": None, "text": f"{len(said):,} words in all"},
            _tile("Precision", quality.precision, "of judged alarms are right"),
            _tile("Recall", quality.recall, "of known anomalies are alarms"),
            _tile("F1", quality.f1, "both in one"),
        ],
        "remark": quality.few if known else "",
        "warning": NONE_LEFT if known and not quality.right + quality.wrong else "",
        "move_words": move.words[:1].upper() + move.words[1:],
        "moved": _moved(said),
    }


def _tile(label: str, figure: Figure, text: str) -> dict[str, Any]:
    if not math.isfinite(figure.value):
        return {"label": label, "value": "–", "low": None, "text": "nothing judged yet"}
    return {
        "label": label,
        "value": f"{figure.value:.2f}",
        "low": f"{100 * figure.low:.1f}",
        "width": f"{max(100 * (figure.high - figure.low), 1):.1f}",
        "at": f"{min(100 * figure.value, 98.5):.1f}",
        "text": f"{figure.low:.2f} to {figure.high:.2f}, {text}",
    }


def _moved(said: Sequence[Verdict]) -> Any:
    from common.pages.charts import Axis, Series, line_chart

    path = moves(said)
    if len(path) < 2:
        return ""
    points = [(float(place), factor) for place, (_, factor) in enumerate(path, start=1)]
    axis = Axis(x="verdicts", digits=2)
    return line_chart(
        [Series("threshold", "public", points)],
        axis,
        references=[("as without verdicts", 1.0)],
        label="how the threshold moved",
    )
