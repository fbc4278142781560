"""How fast and how large: from an event file to consumer sequences, and from a seed to a marketplace.

    python -m benchmarks.data [--smoke]

One JSON line per case. Every case runs in a process of its own, because the peak of resident memory is
that of a process. ``peak_mib`` includes the interpreter and its libraries (the case ``imports`` alone);
``per_million`` is without them. Online Retail is read where ``FEDCART_DATA_DIR`` points.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.strict_json import finite

SIZES = (500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000)
SMOKE_SIZES = (20_000, 40_000)
RETAIL_TARGETS = {"seconds": 3.0, "peak_mib": 1024.0}
GENERATE_TARGET_S_PER_MILLION = 30.0


def main(smoke: bool = False) -> None:
    """Run all cases and print one JSON line each."""
    baseline = _in_own_process("imports")
    _print(baseline)
    if os.environ.get("FEDCART_DATA_DIR"):
        _print(_in_own_process("retail", "1" if smoke else "5") | {"targets": RETAIL_TARGETS})
    sizes = SMOKE_SIZES if smoke else SIZES
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("parquet", "csv"):
            loads = []
            for size in sizes:
                path = Path(folder) / f"events-{size}.{suffix}"
                made = _in_own_process("generate", str(size), str(path))
                if suffix == "parquet":
                    _print(_per_million(made, baseline) | {"target_s_per_million": GENERATE_TARGET_S_PER_MILLION})
                loads.append(_per_million(_in_own_process("load", str(path)), baseline))
                _print(loads[-1])
                path.unlink()
            _print(_growth(suffix, loads))


def _growth(suffix: str, loads: list[dict[str, Any]]) -> dict[str, Any]:
    """How the cost of a million events changes from the smallest to the largest log; 1 is linear."""
    first, last = loads[0], loads[-1]
    return {
        "case": f"growth-{suffix}",
        "events": [first["events"], last["events"]],
        "seconds_per_million_ratio": round(last["s_per_million"] / first["s_per_million"], 2),
        "mib_per_million_ratio": round(last["mib_per_million"] / max(first["mib_per_million"], 0.01), 2),
    }


def _per_million(result: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    millions = result["events"] / 1e6
    return result | {
        "s_per_million": round(result["seconds"] / millions, 3),
        "mib_per_million": round((result["peak_mib"] - baseline["peak_mib"]) / millions, 1),
    }


def _in_own_process(*case: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data", "--case", *case], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _imports() -> dict[str, Any]:
    import common.data.sequences  # noqa: F401

    return {}


def _retail(repeats: str) -> dict[str, Any]:
    """Median over repeats of load + clean and of catalogue + sequences; the peak is over all repeats."""
    from common.data import build_sequences, catalogue_from_events, feature_spec, load_events

    path = Path(os.environ["FEDCART_DATA_DIR"]) / "online_retail/online_retail.csv.gz"
    times = []
    for _ in range(int(repeats)):
        begin = time.perf_counter()
        log, report = load_events(path, "online-retail", secret=bytes(32))
        loaded = time.perf_counter()
        catalogue = catalogue_from_events(log)
        listed = time.perf_counter()
        rows = build_sequences(log, feature_spec(catalogue), catalogue)
        end = time.perf_counter()
        times.append((end - begin, loaded - begin, listed - loaded, end - listed))
    total, load, listing, sequences = sorted(times)[len(times) // 2]
    return {
        "lines": report.lines,
        "events": len(log),
        "rows": len(rows),
        "seconds": round(total, 3),
        "load_and_clean_s": round(load, 3),
        "catalogue_s": round(listing, 3),
        "sequences_s": round(sequences, 3),
    }


def _generate(size: str, path: str) -> dict[str, Any]:
    from common.data.writing import write_frame
    from simulations.synthetic import SyntheticSpec, generate

    spec = SyntheticSpec(consumers=max(8, round(int(size) / SyntheticSpec.events_per_consumer)))
    begin = time.perf_counter()
    market = generate(spec, seed=1)
    seconds = time.perf_counter() - begin
    peak = _peak_mib()
    write_frame(market.log.frame, Path(path))
    return {"events": len(market.log), "consumers": spec.consumers, "seconds": round(seconds, 3), "peak_mib": peak}


def _load(path: str) -> dict[str, Any]:
    from common.data import build_sequences, feature_spec, load_events

    spec = feature_spec(None, item_buckets=1_000, category_buckets=64)
    begin = time.perf_counter()
    log, report = load_events(Path(path), "fedcart", secret=bytes(32))
    loaded = time.perf_counter() - begin
    rows = build_sequences(log, spec)
    seconds = time.perf_counter() - begin
    return {
        "suffix": Path(path).suffix,
        "events": report.lines,
        "rows": len(rows),
        "seconds": round(seconds, 3),
        "load_and_clean_s": round(loaded, 3),
    }


def _peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _print(result: dict[str, Any]) -> None:
    print(json.dumps(finite({"benchmark": "data", **result}), allow_nan=False), flush=True)


_CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "imports": _imports,
    "retail": _retail,
    "generate": _generate,
    "load": _load,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="from an event file to consumer sequences")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case, *rest = arguments.case
        result = _CASES[case](*rest)
        # seconds are of the wall, median; CPU seconds are of the whole process, and know no other programs
        print(
            json.dumps(
                finite({"case": case, "peak_mib": _peak_mib(), **result, "cpu_s": round(time.process_time(), 2)}),
                allow_nan=False,
            )
        )
    else:
        main(arguments.smoke)
