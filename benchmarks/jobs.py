"""Whole commands, start to end, with every process: the default run, the reference job against a pipeline of public tools, and
a large log of clicks against another checkout.

    python -m benchmarks.jobs start [--repeats N]
    python -m benchmarks.jobs reference [--pipeline FILE --python PYTHON] [--repeats N]
    python -m benchmarks.jobs clicks [--against CHECKOUT] [--consumers N] [--repeats N]

What is compared runs in turn (A B A B ...). Prints JSON lines: wall and CPU seconds, memory (PSS, MB), and ratios of medians.
CPU seconds hold on a busy machine too, to a third or so; wall seconds need an idle one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks._tree import Measured, measure
from common.strict_json import finite

HERE = Path(__file__).resolve().parents[1]
REFERENCE = ("--dp", "ghost", "--secagg", "legacy")
CLICKS, ITEMS = 700_000, 5_000
FIRST_RESULT = "    1  "  # how the line of round 1 begins


@dataclass(frozen=True)
class _Variant:
    """A command to be measured; ``OUT`` in it stands for a folder that is not there yet."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None, *, smoke: bool = False) -> None:
    """Measure what the command line names."""
    if smoke:
        arguments = ("clicks", "--consumers", "2000", "--repeats", "1")
    elif (
        arguments is None and Path(sys.argv[0]).name == "__main__.py"
    ):  # among all benchmarks: what needs nothing else
        arguments = ("start",)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("start", "reference", "clicks"))
    parser.add_argument("--pipeline", type=Path, help="the reference job in public tools")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the pipeline, with ray")
    parser.add_argument("--against", type=Path, help="another checkout of fedcart")
    parser.add_argument("--consumers", type=int, default=130_000)
    parser.add_argument("--repeats", type=int, default=2)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        _compare(chosen.job, _variants(chosen, Path(name)), chosen.repeats)


def _variants(chosen: argparse.Namespace, folder: Path) -> list[_Variant]:
    if chosen.job == "start":
        return [_ours("fedcart", HERE, ())]
    if chosen.job == "reference":
        peer = [_Variant("public tools", [chosen.python, str(chosen.pipeline), *REFERENCE, "--json"])]
        return [_ours("fedcart", HERE, ("reference",)), *(peer if chosen.pipeline else [])]
    log = write_clicks(folder / "clicks.csv", chosen.consumers)
    asked = (
        "--events",
        str(log),
        "--sites",
        "8",
        "--workers",
        "1",
        "--rounds",
        "2",
        "--set",
        "training.local_steps=2",
    )
    other = [_ours("other checkout", chosen.against.resolve(), asked)] if chosen.against else []
    return [_ours("fedcart", HERE, asked), *other]


def _ours(name: str, checkout: Path, arguments: Sequence[str]) -> _Variant:
    command = [sys.executable, "-m", "cli.main", "simulate", *arguments, "--out", "OUT"]
    return _Variant(name, command, {"PYTHONPATH": str(checkout)})


def _compare(job: str, variants: Sequence[_Variant], repeats: int) -> None:
    found: dict[str, list[Measured]] = {variant.name: [] for variant in variants}
    for _ in range(repeats):
        for variant in variants:
            with tempfile.TemporaryDirectory() as name:
                command = [str(Path(name) / "run") if part == "OUT" else part for part in variant.command]
                measured = measure(command, folder=Path(name), environment=variant.environment)
            if measured.code:
                sys.exit(f"{variant.name} failed ({measured.code}): {measured.lines[-3:]}")
            found[variant.name].append(measured)
            _say({"claim": job, "variant": variant.name, **_facts(measured)})
    middle = {name: _medians(runs) for name, runs in found.items()}
    if len(middle) == 2:
        first, second = middle.values()
        _say({"claim": job, "ratios": {key: round(second[key] / max(first[key], 1e-9), 2) for key in first}})


def _facts(measured: Measured) -> dict[str, float]:
    facts = {"wall": measured.wall, "cpu": measured.cpu, "pss_mb": measured.pss}
    first = next((at for at, line in measured.lines if line.startswith(FIRST_RESULT)), None)
    return facts if first is None else facts | {"first_result_line": round(first, 2)}


def _medians(runs: Sequence[Measured]) -> dict[str, float]:
    each = [{"wall": run.wall, "cpu": run.cpu, "pss_mb": float(run.pss)} for run in runs]
    return {key: statistics.median(one[key] for one in each) for key in each[0]}


def write_clicks(path: Path, consumers: int) -> Path:
    """A log of short visits over a long-tailed catalogue: ``CLICKS`` per 130,000 consumers, half of them in pairs that recur."""
    rng = np.random.default_rng(5)
    clicks = CLICKS * consumers // 130_000
    consumer = np.sort(rng.integers(0, consumers, clicks))
    item = rng.zipf(1.2, clicks) % ITEMS
    follows = np.flatnonzero((consumer[1:] == consumer[:-1]) & (rng.random(clicks - 1) < 0.5)) + 1
    item[follows] = (item[follows - 1] * 7 + 1) % ITEMS
    seconds = rng.integers(0, 30 * 86_400, clicks)
    seconds = seconds[np.lexsort((seconds, consumer))]  # in order for each consumer
    when = np.datetime_as_string(np.datetime64("2024-01-01T00:00:00") + seconds.astype("timedelta64[s]"))
    with path.open("w") as file:
        file.write("consumer,timestamp,event,item\n")
        for c, t, i in zip(consumer.tolist(), when.tolist(), item.tolist(), strict=True):
            file.write(f"c{c},{t}Z,view,i{i}\n")
    return path


def _say(line: Mapping[str, object]) -> None:
    print(json.dumps(finite(line), allow_nan=False), flush=True)


if __name__ == "__main__":
    main()
