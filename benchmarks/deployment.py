"""Seconds to the first round, seconds per round with next to no training, memory per site, on loopback.

    python -m benchmarks.deployment [--smoke] [--sites 4 10 30] [--rounds 3] [--variants]

Real processes over TLS on one machine: all sites share its cores, so the figures are upper bounds for sites with
machines of their own. ``--variants`` also runs without preloading, to say what it brings. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from common.run import RunFolder, load_config
from common.strict_json import finite
from server.planning import prepare_run
from server.runtime.control import open_control, submit
from simulations.demo import site_names, write_demo
from simulations.processes import LocalFederation

LIMIT_S = 1_800.0
SETTINGS = ("training.local_steps=1", "privacy.holdout=0", "privacy.noise_multiplier=2.0", "features.max_events=5")


def measure(sites: int, rounds: int, *, preload: bool) -> dict[str, object]:
    """One federation, one run: times and memory."""
    os.environ["FEDCART_PRELOAD"] = "1" if preload else "0"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_demo(folder / "data", sites=sites, consumers=150 * sites, rounds=rounds)
        with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as local:
            began = time.monotonic()
            local.provision(files.sites)
            provisioned = time.monotonic()
            local.start_server()
            for site in site_names(files):
                local.start_site(site)
            local.wait_online(site_names(files), timeout_s=LIMIT_S)
            online = time.monotonic()
            config = load_config(files.run, SETTINGS)
            run = prepare_run(local.coordinator, config, base=files.run.parent)
            submitted = time.monotonic()
            with open_control(local.coordinator) as control:
                submit(local.coordinator, control, run.path.name)
            first = wait_for_rounds(run, 1)
            wait_for_rounds(run, rounds)
            records = [record for record in run.metrics() if record.kind == "train"]
            memory = [memory_of(local.site_process(site).pid) for site in site_names(files)]
    later = [record.seconds for record in records[1:]] or [records[0].seconds]
    return {
        "sites": sites,
        "rounds": rounds,
        "preload": preload,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "provision_s": round(provisioned - began, 2),
        "start_to_online_s": round(online - provisioned, 2),
        "submit_to_first_round_done_s": round(first - submitted, 2),
        "first_round_s": records[0].seconds,
        "later_rounds_s": round(statistics.median(later), 2),
        "answered": [record.answered for record in records],
        "memory_per_site_mb": round(statistics.median(memory)),
    }


def wait_for_rounds(run: RunFolder, rounds: int) -> float:
    """The time at which that many rounds were on record."""
    end = time.monotonic() + LIMIT_S
    while len(run.metrics()) < rounds:
        summary = run.summary()
        if (summary and summary.status == "interrupted") or time.monotonic() > end:
            raise SystemExit(f"the run did not come to round {rounds}: {summary}")
        time.sleep(0.05)
    return time.monotonic()


def memory_of(pid: int) -> float:
    """Proportional set size of a process and all its descendants, in MB: shared pages count once."""
    own = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(int(line.split()[1]) for line in own.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return kib / 1024 + sum(memory_of(int(child)) for child in children)


def main(
    *, smoke: bool = False, sites: tuple[int, ...] = (4, 10, 30), rounds: int = 3, variants: bool = True
) -> None:
    """Run and print; ``variants`` repeats the first size without preloading."""
    sizes, rounds = ((3,), 1) if smoke else (sites, rounds)
    for size in sizes:
        for preload in (True, False) if variants and size == sizes[0] and not smoke else (True,):
            print(
                json.dumps(
                    finite({"benchmark": "deployment", **measure(size, rounds, preload=preload)}), allow_nan=False
                ),
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="three sites, one round")
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 10, 30])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", action="store_true", help="the first size also without preloading")
    chosen = parser.parse_args()
    main(smoke=chosen.smoke, sites=tuple(chosen.sites), rounds=chosen.rounds, variants=chosen.variants)
