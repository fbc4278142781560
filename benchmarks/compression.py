"""What a small model costs: size, time per event and quality lost, by int8, by pruning, and by both.

    python -m benchmarks.compression [--smoke]

One JSON line per variant, on one thread, variants in turn (A B A B ...). The model is trained without noise on the made-up market for a
few rounds, then compared on events of the same market; ONNX variants only where the extra ``onnx`` is installed. One seed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path

from client.scoring.export import export, onnx_available
from client.scoring.model import SharedModel, open_model
from common.data import EventLog
from common.run import RunConfig, build_config
from common.strict_json import finite
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate

SHARES = (0.3, 0.5, 0.7, 0.9)


def main(*, smoke: bool) -> None:
    """Print all figures."""
    config = _config(smoke=smoke)
    with tempfile.TemporaryDirectory(prefix="fedcart-compression-") as passing:
        simulate(config, Path(passing) / "run")
        shared, log = open_model(Path(passing) / "run"), _log(config)
        for number, share in enumerate(SHARES[:1] if smoke else SHARES):
            for row in _measured(shared, log, Path(passing) / f"{share:g}", share):
                if number == 0 or "pruned" in row["variant"]:
                    print(json.dumps(finite(row), allow_nan=False), flush=True)


def _measured(shared: SharedModel, log: EventLog, folder: Path, share: float) -> list[dict[str, object]]:
    variants, names = export(shared, folder, shared.sequences(log), onnx=onnx_available(), prune=share)
    files = [
        folder / name for name in names if name.endswith((".safetensors", ".onnx"))
    ]  # in the order of the variants
    packed = [None, *(len(gzip.compress(file.read_bytes())) for file in files)]
    return [
        {
            "variant": one.name,
            "bytes": one.size_bytes,
            "gzip": small,
            "median_us": round(one.median_us, 1),
            "nats_lost": round(one.nats - variants[0].nats, 4),
            "recall@20": round(one.recall, 4),
        }
        for one, small in zip(variants, packed, strict=True)
    ]


def _config(*, smoke: bool) -> RunConfig:
    sizes = (
        {"consumers": 400, "items": 60, "sites": 3} if smoke else {"consumers": 12_000, "items": 2_000, "sites": 4}
    )
    training = {"rounds": 1, "local_steps": 2} if smoke else {"rounds": 8, "local_steps": 40}
    return build_config(
        {
            "data": sizes,
            "privacy": {"enabled": False},
            "training": training,
            "aggregation": {"mode": "plain"},
            "performance": {"workers": 1},
        }
    )


def _log(config: RunConfig) -> EventLog:
    data = config.data
    return generate(SyntheticSpec(sites=data.sites, consumers=data.consumers, items=data.items), config.seed).log


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    main(smoke=parser.parse_args().smoke)
