"""Which gradient engine a run uses: plain without privacy; the fast tape, or stock Opacus hooks, with it."""

from __future__ import annotations

from client.training.gradients import GradientEngine, PlainEngine
from common.config import RunConfig
from common.model.batch import Batcher
from common.model.network import SequenceModel


def make_engine(
    model: SequenceModel, batcher: Batcher, config: RunConfig, trainer: str, micro_batch: int
) -> GradientEngine:
    """Make the engine over a site's training consumers. ``trainer`` and ``micro_batch`` change speed only."""
    if not config.privacy.enabled:
        return PlainEngine(model, batcher, micro_batch)
    if trainer == "opacus":
        from client.training.dpsgd.opacus_path import OpacusEngine

        return OpacusEngine(model, batcher, config.privacy.clip, micro_batch)
    from client.training.dpsgd.engine import TapeEngine

    return TapeEngine(model, batcher, config.privacy.clip, micro_batch)
