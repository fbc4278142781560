"""The oracle's half of tasks on consumers: exact metrics on all hold-outs, baselines, reference runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import BadInputError
from common.run import RoundRecord, RunFolder, RunPlan

if TYPE_CHECKING:
    from common.data import Catalogue, ConsumerSequences, FeatureSpec
    from common.model import SequenceModel
    from common.run import RunConfig
    from simulations.partition import Partition

NOISED_REFERENCE = True
_NEXT_ITEM = "recall@20"


def fill_in(config: RunConfig, _dealt: Any, _known: Any) -> RunConfig:
    """Nothing is left to the log."""
    return config


def encoded(
    config: RunConfig, dealt: Partition, spec: FeatureSpec, catalogue: Catalogue | None
) -> dict[str, ConsumerSequences]:
    """The consumers of each site as the model sees them."""
    from common.data import build_sequences

    longest, cut = config.features.max_events, config.cut_us
    rows = {
        site.name: build_sequences(site.log, spec, catalogue, max_events=longest, cut=cut) for site in dealt.sites
    }
    if not any((one.lengths > 1).any() for one in rows.values()):
        raise BadInputError(
            "no consumer has two events: nothing follows anything, so there is nothing to learn",
            hint="give a longer log, or one in which a consumer keeps the same id",
        )
    return rows


def store(kit_state: Path, plan: RunPlan, _part: Any, rows: ConsumerSequences, mask: Any) -> None:
    """Leave a simulated site's encoded consumers in its state folder."""
    from client.prepared import prepared_path, split_of, store_sequences
    from common.deployment import SiteKit

    kit = SiteKit(kit_state.parent)
    store_sequences(prepared_path(kit, plan), [rows], mask, split_of(plan.config, kit.consumers_key.read_bytes()))


def hold_out_sums(kit: str, plan: RunPlan, vector: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
    """Exact metric sums of a model on those held-out consumers of one site on whom the run reports."""
    from client.models import measured_of
    from client.site import load_site
    from client.training.evaluation import metric_sums
    from common.contribution import EVALUATE

    sums = metric_sums(*measured_of(load_site(Path(kit), simulated=True), plan, vector, EVALUATE))
    return [float(value) for value in sums]


def baselines(kits: list[str], plan: RunPlan) -> dict[str, dict[str, float]]:
    """Popularity, Markov, item-kNN, repeat-last and majority, fitted on all training rows of all sites."""
    from client.models import make_batcher
    from common.data import FeatureSpec
    from common.model.baselines import evaluate_baselines, fit
    from common.privacy import HOLDOUT_SIDE

    if "next-item" not in plan.config.model.heads:
        return {}
    sizes = FeatureSpec.from_json(json.loads(plan.features)).sizes
    train, held = joined_parts(kits, plan)
    return evaluate_baselines(fit(train, sizes["item"]), make_batcher(held, plan.config, HOLDOUT_SIDE))


def train_alone(kits: list[str], plan: RunPlan, noise_multiplier: float) -> list[float]:
    """Train on the pooled training rows of some sites; exact metric sums over those sites' hold-outs."""
    from client.models import make_batcher, make_engine
    from client.site import load_site
    from client.training.trainer import local_plan, seeded_stream, train_locally
    from common.trust.randomness import PrivateStream
    from server.state import ServerState
    from server.strategy import apply

    private = noise_multiplier > 0
    privacy = plan.config.privacy.model_copy(update={"enabled": private})
    config = plan.config.model_copy(update={"privacy": privacy})
    names = "+".join(Path(kit).name for kit in kits)
    train = joined_rows([load_site(Path(kit), simulated=True).prepared(plan).sides.train for kit in kits])
    population = sum(plan.population(Path(kit).name) for kit in kits)
    constants = local_plan(config, population, 1, noise_multiplier, plan.signal)
    engine = make_engine(whole_model(plan), make_batcher(train, config), config, "fast", 256)
    state = ServerState.initial(RunFolder(Path(kits[0]).parents[1]).initial(), b"")
    for number in range(1, config.training.rounds + 1):
        stream = PrivateStream() if private else seeded_stream(config.seed, names, number)
        update = train_locally(engine, state.parameters, constants, stream).update
        state = apply(state, update, config.strategy, constants.steps)
    sums = np.sum([hold_out_sums(kit, plan, state.average) for kit in kits], axis=0)
    return [float(value) for value in sums]


def expectation(plan: RunPlan, _signal: float = 0.0, _steps: int = 0) -> str:
    """The task's forecast, a line each."""
    return "\n".join(plan.task.forecast(plan))


def assumptions(_config: RunConfig) -> list[str]:
    """None of its own."""
    return []


_SAME = 5e-4  # what nobody sees at three digits is no difference


def remarks(record: RoundRecord, others: dict[str, dict[str, float]]) -> list[str]:
    """A note where a trivial baseline is better than the model."""
    model = record.oracle.get(_NEXT_ITEM, math.nan)
    better = {n: m[_NEXT_ITEM] for n, m in others.items() if m.get(_NEXT_ITEM, -1.0) > model + _SAME}
    if not better:
        return []
    best = max(better, key=better.__getitem__)
    return [f"the model ({_NEXT_ITEM} {model:.3f}) is below the trivial baseline {best} ({better[best]:.3f})"]


def whole_model(plan: RunPlan) -> SequenceModel:
    """The shared sequence model with every item row, at its initial parameters."""
    from common.data import FeatureSpec
    from common.model import ModelShape, build_model

    config = plan.config
    shape = ModelShape(FeatureSpec.from_json(json.loads(plan.features)).sizes)
    return build_model(config.model, shape, config.seed)


def joined_parts(kits: list[str], plan: RunPlan) -> tuple[ConsumerSequences, ConsumerSequences]:
    """Training and held-out rows of several sites."""
    from client.site import load_site

    parts = [load_site(Path(kit), simulated=True).prepared(plan).sides for kit in kits]
    return joined_rows([part.train for part in parts]), joined_rows([part.holdout for part in parts])


def joined_rows(parts: list[ConsumerSequences]) -> ConsumerSequences:
    """Rows of several sites one after another; a consumer seen at two sites is two rows."""
    from common.data import ConsumerSequences

    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("consumers", "integers", "numeric", "timestamps")
    }
    return ConsumerSequences(offsets=offsets, **joined)
