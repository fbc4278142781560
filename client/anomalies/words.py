"""Alarms in words: what a terminal and a page say of them."""

from __future__ import annotations

from collections.abc import Iterator

from client.anomalies.alarms import Alarm, Reason
from client.anomalies.record import moment

__all__ = ["KINDS", "beyond_words", "moment", "one_alarm", "reason_words", "what_words"]

KINDS = {
    "bot": "bot",
    "account-takeover": "account takeover",
    "brushing": "brushing",
    "fake-reviews": "fake reviews",
    "unclear": "unclear",
}
_WHAT = {
    "pause": "mean logarithm of pauses",
    "pause_spread": "unevenness of pauses",
    "fast": "pauses of 2 s at most",
    "faster": "pauses of 15 s at most",
    "repeats": "the same item at once again",
    "distinct": "different items",
    "top_item": "share of one item",
    "variety": "variety of event types",
}


def reason_words(reason: Reason) -> str:
    """One reason, against the reference."""
    return f"{what_words(reason)} {reason.value:.2f}, usual {reason.usual:.2f}; {beyond_words(reason)}"


def beyond_words(reason: Reason) -> str:
    """How rare a number is in the reference."""
    share = "none" if reason.beyond == 0 else f"{reason.beyond:.1%}"
    return f"{share} of the reference has this or {'more' if reason.value > reason.usual else 'less'}"


def what_words(reason: Reason) -> str:
    """What a number of a profile is."""
    name = reason.what
    for begin, words in (("mean_next-", "mean surprise of the {}"), ("max_next-", "largest surprise of the {}")):
        if name.startswith(begin):
            return words.format(name.removeprefix(begin))
    if name.startswith("unlike_own_"):
        return f"{name.removeprefix('unlike_own_')}, nats unlike the own past"
    return _WHAT.get(name, f"share of {name}")


def one_alarm(alarm: Alarm) -> Iterator[str]:
    """An alarm for a terminal: what and who, against what, why, and the events that drove it most."""
    yield (
        f"{moment(alarm.time / 1e6)}  {KINDS.get(alarm.kind, alarm.kind):<16}  consumer {alarm.consumer:016x}  "
        f"score {alarm.score:.2f}, alarm from {alarm.threshold:.2f}"
    )
    if alarm.reasons:
        yield f"    {reason_words(alarm.reasons[0])}"
    first = sorted(alarm.events, key=lambda one: -one.drove)[:3]
    yield "    driven by " + ", ".join(f"{one.event} {one.item or one.category}".strip() for one in first)
