"""The table of docs/quality.md from the lines of ``benchmarks.tasks``: no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.atomic import write_atomic

BEGIN, END = "<!-- benchmarks.tasks: begin -->", "<!-- benchmarks.tasks: end -->"
Line = Mapping[str, Any]

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "next behaviour": {
        "recall@20": "Recall@20",
        "mrr@20": "MRR@20",
        "event_accuracy": "event accuracy",
        "category_accuracy": "category accuracy",
    },
    "purchase intent": {
        "intent_auc": "AUC",
        "intent_ap": "AP",
        "intent_f1": "F1",
        "intent_calibration": "calibration error",
        "loss": "log loss",
    },
    "multi-task": {
        "recall@20": "Recall@20",
        "mrr@20": "MRR@20",
        "event_accuracy": "event accuracy",
        "intent_auc": "intent AUC",
        "intent_ap": "intent AP",
    },
    "anomalies": {
        "mean": "mean AUC of the kinds",
        "account-takeover": "takeover",
        "takeover-50": "takeover, 50+ past events",
        "bot": "bot",
        "brushing": "brushing",
        "fake-reviews": "fake reviews",
        "f1": "F1, all",
    },
    "sales": {"wape": "WAPE", "revenue_wape": "revenue WAPE", "mase": "MASE", "rmse": "RMSE"},
}
TRIVIAL = (
    "popularity",
    "markov",
    "item-knn",
    "repeat-last",
    "majority",
    "buys-again",
    "seasonal-naive",
    "mean-of-four",
)
_LOWER_IS_BETTER = ("wape", "rmse", "mase")


def write_table(path: Path, lines: Sequence[Line]) -> None:
    """Replace what lies between the two marks of a document; a document without them gets them at its end."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if BEGIN not in text or END not in text:
        text = f"{text}\n{BEGIN}\n{END}\n"
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_atomic(path, f"{before}{BEGIN}\n{markdown(lines)}\n{END}{after}".encode())


def markdown(lines: Sequence[Line]) -> str:
    """One table per task, a row per data set and scheme, the remarks on privacy, and what it took."""
    parts = []
    for task, columns in COLUMNS.items():
        rows = [line for line in lines if line.get("task") == task]
        used = {key: title for key, title in columns.items() if any(key in row for row in rows)}
        if not rows:
            continue
        parts += [f"### {task.capitalize()} (oracle)", "", _row(["data", "scheme", *used.values()])]
        parts.append(_row(["---", "---", *("---:" for _ in used)]))
        parts += [_row([row["data"], row["scheme"], *(_cell(row.get(key)) for key in used)]) for row in rows]
        parts.append("")
    parts += ["### Where privacy costs more than it gives", "", *_below(lines), ""]
    took = [line for line in lines if line.get("task") == "all"]
    if took:
        minutes, cpu = (sum(line[key] for line in took) / 60 for key in ("seconds", "cpu_s"))
        parts.append(
            f"Timed parts of `python -m benchmarks.tasks`: {minutes:.0f} minutes, {cpu:.0f} minutes of CPU time."
        )
    return "\n".join(parts).strip()


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "–"


def _below(lines: Sequence[Line]) -> list[str]:
    """A sentence for every private federation that a baseline or a site alone beats."""
    found = []
    for line in lines:
        if "epsilon" not in str(line.get("scheme", "")) or line.get("task") not in COLUMNS:
            continue
        same = [other for other in lines if (other.get("task"), other.get("data")) == (line["task"], line["data"])]
        for metric in [key for key in COLUMNS[line["task"]] if isinstance(line.get(key), float)][:1]:
            found += [_beaten(line, other, metric) for other in same if _beats(other, line, metric)]
    return found or [
        "Nowhere in these tables: the private federation is above every trivial baseline and local-only."
    ]


def _beats(other: Line, line: Line, metric: str) -> bool:
    value = other.get(metric)
    if other["scheme"] not in (*TRIVIAL, "local-only") or not isinstance(value, float):
        return False
    return bool(value < line[metric] if metric in _LOWER_IS_BETTER else value > line[metric])


def _beaten(line: Line, other: Line, metric: str) -> str:
    title = COLUMNS[line["task"]][metric]
    return (
        f"- {line['task'].capitalize()}, {line['data']}: {other['scheme']} has {title} {other[metric]:.3f}, "
        f"{line['scheme']} {line[metric]:.3f}."
    )
