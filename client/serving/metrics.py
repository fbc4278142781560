"""What is measured while serving, in Prometheus' text form. No label carries anything of a consumer."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict

from client.serving.service import Service

EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_WORDS = {
    "events": "events scored",
    "alarms": "alarms raised",
    "repeated_ids": "events whose id had been answered",
    "repeated_lines": "events that said the same as one before",
    "late": "events older than the latest of their consumer",
    "left_out": "events that a cleaning rule dropped",
    "refused": "events that could not be read",
}


class Clock:
    """Seconds of requests, by route and status."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0] * (len(EDGES_S) + 1))
        self._sums: dict[str, float] = defaultdict(float)
        self._answers: dict[tuple[str, int], int] = defaultdict(int)

    def add(self, route: str, status: int, seconds: float) -> None:
        """One request more. ``route`` is a template, never a path as it came."""
        self._counts[route][bisect_left(EDGES_S, seconds)] += 1
        self._sums[route] += seconds
        self._answers[route, status] += 1

    def lines(self) -> list[str]:
        """A histogram for each route, and the answers by status."""
        name, found = "fedcart_request_seconds", ["# HELP fedcart_request_seconds time to answer"]
        found.append(f"# TYPE {name} histogram")
        for route, counts in sorted(self._counts.items()):
            total = 0
            for edge, count in zip((*EDGES_S, "+Inf"), counts, strict=True):
                total += count
                found.append(f'{name}_bucket{{route="{route}",le="{edge}"}} {total}')
            found += [
                f'{name}_sum{{route="{route}"}} {self._sums[route]:.6f}',
                f'{name}_count{{route="{route}"}} {total}',
            ]
        found += ["# HELP fedcart_answers_total requests by status", "# TYPE fedcart_answers_total counter"]
        found += [
            f'fedcart_answers_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self._answers.items())
        ]
        return found


def exposition(service: Service, clock: Clock) -> str:
    """Everything, as text."""
    lines = []
    for name, value in service.counters.of.items():
        metric = f"fedcart_{name}_total"
        lines += [f"# HELP {metric} {_WORDS[name]}", f"# TYPE {metric} counter", f"{metric} {value}"]
    live = service.parts.live
    gauges: list[tuple[str, str, float]] = [("event_ids", "event ids remembered", len(service.parts.repeats))]
    if live is not None:
        gauges += [
            ("consumers", "consumers held", len(live.store)),
            ("consumers_forgotten", "consumers let go because the memory is full", live.store.forgotten),
            ("state_bytes", "memory of consumers", live.store.size_bytes()),
        ]
    if service.kept_at is not None:
        gauges.append(
            ("snapshot_age_seconds", "since the last snapshot was written", time.time() - service.kept_at)
        )
    for name, words, measured in gauges:
        metric = f"fedcart_{name}"
        lines += [f"# HELP {metric} {words}", f"# TYPE {metric} gauge", f"{metric} {measured:.10g}"]
    return "\n".join([*lines, *clock.lines()]) + "\n"
