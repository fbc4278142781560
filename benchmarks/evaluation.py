"""Metrics of a large catalogue in one fused pass, against logits made whole; a step's privacy loss, against dp-accounting's.

    python -m benchmarks.evaluation [--smoke]

One thread, one run, variants in turn (A B A B ...), CPU seconds. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from torch.nn import functional

from common.data import ConsumerSequences
from common.model import Batcher, ModelShape, SequenceModel, build_model
from common.model.metrics import consumer_metrics, expected_ranks
from common.privacy.divergence import pld_epsilon
from common.privacy.sampled_loss import losses_of_step
from common.run import ModelSettings
from common.strict_json import finite


def main(*, smoke: bool) -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    items, consumers, repeats = (200, 50, 1) if smoke else (5_000, 1_600, 5)
    holdout, model = Batcher(_sequences(consumers, items)), _model(items)
    passes = {"fused": lambda: _fused(model, holdout, items), "whole": lambda: _whole(model, holdout, items)}
    _report({"claim": "metric-pass", "items": items, "consumers": consumers}, passes, repeats)
    for rate, sigma in ((0.1, 0.54),) if smoke else ((1 / 16, 1.0), (0.1, 0.54), (0.01, 0.8)):
        _losses(rate, sigma, 1e-3 if smoke else 1e-4, repeats)


def _losses(rate: float, sigma: float, grid: float, repeats: int) -> None:
    made: dict[str, Callable[[], Any]] = {
        "arrays": lambda: losses_of_step(rate, sigma, grid),
        "library": lambda: from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=grid),
    }
    ours = pld_epsilon(made["arrays"]().repeated(50), 1e-5)
    theirs = made["library"]().self_compose(50).get_epsilon_for_delta(1e-5)
    _report(
        {"claim": "privacy-loss", "rate": rate, "sigma": sigma, "difference": abs(ours / theirs - 1)},
        made,
        repeats,
    )


def _report(facts: Mapping[str, Any], variants: Mapping[str, Callable[[], Any]], repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, run in variants.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    medians = {name: round(statistics.median(times[1:]), 4) for name, times in seconds.items()}
    quick, slow = medians.values()
    print(
        json.dumps(finite({**facts, **medians, "ratio": round(slow / max(quick, 1e-9), 2)}), allow_nan=False),
        flush=True,
    )


def _fused(model: SequenceModel, holdout: Batcher, items: int) -> None:
    for batch in holdout.pieces(items):
        consumer_metrics(model, batch)


def _whole(model: SequenceModel, holdout: Batcher, items: int) -> None:
    """The same numbers with all logits of a piece made at once: what the pass was before."""
    with torch.no_grad():
        for batch in holdout.pieces(items):
            hidden = model.hidden_states(batch)
            for name, head in model.heads.items():
                asked = batch.target_steps(name, hidden)
                logits, target = head.logits(asked.hidden, asked.batch).flatten(0, -2), asked.target.reshape(-1)
                functional.cross_entropy(logits, target, ignore_index=0, reduction="none")
                expected_ranks(logits, target)


def _sequences(consumers: int, items: int) -> ConsumerSequences:
    """Short histories over a catalogue with a long tail, some items seen again."""
    rng = np.random.default_rng(1)
    lengths = np.minimum(2 + rng.geometric(1 / 4, consumers), 50)
    events = int(lengths.sum())
    item = np.minimum(rng.zipf(1.3, events), items - 1)
    integers = np.stack([item, rng.integers(1, 4, events)], axis=1).astype(np.int32)
    return ConsumerSequences(
        np.arange(consumers, dtype=np.uint64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        integers,
        np.zeros((events, 0), dtype=np.float32),
        np.arange(events, dtype=np.int64),
        ("item", "event"),
    )


def _model(items: int) -> SequenceModel:
    settings = ModelSettings.model_validate({"heads": {"next-item": 1.0, "next-event": 0.3}, "copy_bonus": 2.0})
    return build_model(settings, ModelShape({"item": items, "event": 4}), 1).eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    sys.exit(main(smoke=parser.parse_args().smoke))
