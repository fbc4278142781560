"""Cost of privacy: ledger, accounting, cryptographic noise, verification.

``python -m benchmarks.privacy [--smoke]`` prints one JSON object per line:

* ``ledger``: one durable append (RESERVE, then COMMIT) under the lock, milliseconds; and a whole round of the
  guard without training: reserve with the budget gate, store, commit, close;
* ``accounting``: add one round and read epsilon by both accountants at rounds 1, 50, 500 (target 20 ms);
* ``noise``: ``fill_gaussian`` in float32 and float64, plain and hardened, against ``torch.normal``, taken in
  turn on one thread, the least of each (target: float32 at most 2x);
* ``rounding``: by how much more than the clipping norm one of many aligned consumers moves a float32 sum, beside
  ``trainer.rounding_slack``, by which the noise is larger for it (target: below the slack);
* ``verify``: ``verify_path`` on a ledger of 10,000 entries in a fresh process (target 5 s).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from client.guard import Guard, Proposal, SitePolicy, open_guard
from common.privacy import (
    HOLDOUT_SIDE,
    Commit,
    Open,
    PrivacyEvent,
    Replay,
    Reserve,
    ScopeAccountant,
    make_line,
    parse_line,
    round_up,
)
from common.strict_json import finite
from common.trust import Identity
from common.trust.randomness import PrivateStream

DELTA, ORDER = 1e-5, 8.0
TRAINING = PrivacyEvent(1.5, 0.04, 5)
EVALUATION = PrivacyEvent(20.0, 1.0, 1, HOLDOUT_SIDE)
VERIFY = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from common.audit.verify import verify_path
imported = time.perf_counter()
verdict = verify_path(Path(sys.argv[1]))
done = time.perf_counter()
print(json.dumps({"import_s": round(imported - start, 3), "verify_s": round(done - imported, 3), "ok": verdict.ok,
    "heavy_modules": [m for m in ("torch", "opacus", "flwr") if m in sys.modules]}))
"""


def main(smoke: bool = False) -> None:
    """Print the measurements as JSON lines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_ledger(folder / "ledger", 30 if smoke else 1_000)
        measure_rounds(folder / "rounds", 5 if smoke else 100)
        for number in (1, 50) if smoke else (1, 50, 500):
            measure_accounting(number, 3 if smoke else 11)
        for size in (100_000,) if smoke else (100_000, 1_000_000, 10_000_000):
            measure_noise(size, 3 if smoke else 9)
        for consumers in (2_000,) if smoke else (2_000, 20_000, 100_000):
            measure_rounding(consumers)
        measure_verify(folder, 200 if smoke else 10_000)


def measure_ledger(folder: Path, count: int) -> None:
    """Append RESERVE and COMMIT entries, each in its own transaction."""
    guard = _guard(folder)
    times = []
    for number in range(count // 2):
        start = time.perf_counter()
        with guard.ledger.transaction():
            sequence = guard.ledger.append(_reserve(number, first=number == 0))
        middle = time.perf_counter()
        with guard.ledger.transaction():
            guard.ledger.append(Commit(reserve=sequence, outbox="ef" * 32))
        times += [middle - start, time.perf_counter() - middle]
    _say("ledger", appends=len(times), median_ms=_ms(statistics.median(times)), p99_ms=_ms(_quantile(times, 0.99)))


def measure_rounds(folder: Path, count: int) -> None:
    """Whole rounds of the guard with a contribution of 1 MB, the import of the accountants left out."""
    guard = _guard(folder)
    guard.rounds_left([EVALUATION])
    times = []
    for number in range(count):
        start = time.perf_counter()
        grant = guard.reserve(_proposal(number))
        guard.store(grant, bytes(1_000_000), grant.attestation.attestation.events)
        guard.commit(grant)
        guard.close_round("benchmark", number)
        times.append(time.perf_counter() - start)
    later = times[1:]
    _say("guard_round", rounds=count, median_ms=_ms(statistics.median(later)), p99_ms=_ms(_quantile(later, 0.99)))


def measure_accounting(number: int, repeats: int) -> None:
    """Rounds ``number`` and the following: copy, add the round's events, read epsilon."""
    accountant = ScopeAccountant()
    accountant.add(TRAINING, number - 1)
    accountant.add(EVALUATION, number - 1)
    accountant.epsilon(DELTA)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        projected = accountant.copy()
        projected.add(TRAINING)
        projected.add(EVALUATION)
        epsilon = projected.epsilon(DELTA)
        times.append(time.perf_counter() - start)
        accountant = projected
    later = times[1:]  # the first one also composes the single round
    _say(
        "accounting", round=number, first_ms=_ms(times[0]), median_ms=_ms(statistics.median(later)),
        worst_ms=_ms(max(later)), epsilon=round_up(epsilon, 4), target_ms=20,
    )  # fmt: skip


def measure_noise(size: int, repeats: int) -> None:
    """Noise for ``size`` parameters, in turn with torch on one thread."""
    import torch

    from client.training.trainer import torch_turn

    torch.set_num_threads(1)
    stream, single, double = PrivateStream(), np.empty(size, np.float32), np.empty(size, np.float64)
    theirs = torch.empty(size)
    kinds: dict[str, Callable[[], object]] = {
        "torch_normal": lambda: torch.normal(0.0, 1.0, (size,), out=theirs),
        "float32": lambda: stream.fill_gaussian(single),
        "float64": lambda: stream.fill_gaussian(double),
        "training": lambda: stream.fill_gaussian(double, turn=torch_turn),
        "float32_hardened": lambda: stream.fill_gaussian(single, hardened=True),
    }
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(repeats):
        for name, fill in kinds.items():
            start = time.perf_counter()
            fill()
            best[name] = min(best[name], time.perf_counter() - start)
    ratios = {
        f"{name}_ratio": round(t / best["torch_normal"], 2) for name, t in best.items() if name != "torch_normal"
    }
    _say("noise", parameters=size, torch_normal_ms=_ms(best["torch_normal"]), **ratios, target_ratio=2.0)


def measure_rounding(consumers: int) -> None:
    """Everybody's row is the same, so that every gradient points the same way; the last one leaves."""
    import torch

    from client.training.dpsgd.engine import TapeEngine
    from client.training.trainer import rounding_slack
    from tests.dpsgd_samples import aligned_batcher, model_of

    clip, everybody = 1e-3, np.arange(consumers)
    engine = TapeEngine(model_of(torch.float32, 1), aligned_batcher(consumers), clip)
    whole = engine.clipped_sum(everybody)[0].clone()
    moved = float((whole - engine.clipped_sum(everybody[:-1])[0]).norm()) / clip
    slack = rounding_slack(consumers)
    _say(
        "rounding",
        consumers=consumers,
        above_the_norm=float(f"{moved - 1:.2g}"),
        target_below=float(f"{slack:.2g}"),
    )


def measure_verify(folder: Path, entries: int) -> None:
    """Write a ledger of so many entries, and verify it in a process of its own."""
    path = folder / "benchmark.jsonl"
    path.write_bytes(_long_ledger(entries))
    command = [sys.executable, "-c", VERIFY, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    _say("verify", entries=entries, size_bytes=path.stat().st_size, **json.loads(result.stdout), target_s=5)


def _long_ledger(entries: int) -> bytes:
    identity, state, lines = Identity.generate("benchmark"), Replay(), []
    header = Open(
        site="benchmark", scope="consumers", delta=DELTA, public_key=identity.public_key.hex(), simulated=False
    )
    for number in range(entries):
        body = (
            _reserve(number, first=number == 1)
            if number % 2
            else Commit(reserve=max(0, number - 1), outbox="ef" * 32)
        )
        line = make_line(
            body if number else header,
            sequence=number,
            previous=state.head,
            time="2026-01-01T00:00:00Z",
            identity=identity,
        )
        state.apply(parse_line(line[:-1]))
        lines.append(line)
    return b"".join(lines)


def _guard(folder: Path) -> Guard:
    policy = SitePolicy(epsilon_max=1_000.0)
    return open_guard(folder, Identity.generate("benchmark"), policy, "consumers", code="benchmark")


def _reserve(number: int, *, first: bool) -> Reserve:
    """One round of the same run; the first charge of a scope fixes the order at which it is accounted for."""
    return Reserve(
        run="benchmark", round=number, attempt=0, query="ab" * 32, config="cd" * 32, code="benchmark",
        events=(TRAINING, EVALUATION), order=ORDER if first else None,
    )  # fmt: skip


def _proposal(number: int) -> Proposal:
    return Proposal(
        run="benchmark", round=number, attempt=0, kind="train", task="next-behaviour", query="ab" * 32,
        config="cd" * 32, events=(TRAINING, EVALUATION), delta=DELTA, clip=1.0, cohort=8, threshold=6,
        population=5_000, min_stockists=3, secure=True,
    )  # fmt: skip


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def _ms(seconds: float) -> float:
    return round(1_000 * seconds, 3)


def _say(benchmark: str, **figures: object) -> None:
    print(json.dumps(finite({"benchmark": benchmark, **figures}), allow_nan=False), flush=True)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv[1:])
