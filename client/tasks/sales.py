"""The site's half of sales forecasts: one noised release of its series, then training on nothing but that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from client.site import Question, Site
from common.contribution import EVALUATE, METRICS, STATISTICS, TRAIN, UPDATE, Release
from common.privacy import PrivacyEvent

_FREE: tuple[PrivacyEvent, ...] = ()  # post-processing of what was released and charged in round 0


def release_series(site: Site, question: Question) -> Sequence[Release]:
    """The site's sales series, bounded per consumer and noised: the one answer of a run that reads consumers."""
    from client.tasks.series import noised_series, purchases_at
    from common.trust.randomness import PrivateStream

    return [noised_series(purchases_at(site, question.plan), question.plan, PrivateStream())]


def train(site: Site, question: Question) -> Sequence[Release]:
    """Update and accuracy of the sales model, from nothing but the series that this site has released."""
    from client.tasks.sales_training import SalesData, flat_model, measure, train_sales
    from client.tasks.series import kept_release, noise_floor

    plan, config = question.plan, question.plan.config
    data = SalesData.of(kept_release(site, plan), config, noise_floor(plan))
    model, flat = flat_model(config)
    flat.load(question.model)
    accuracy = Release(METRICS, measure(model, data, config), _FREE)
    if question.query.kind == EVALUATE:
        return [accuracy]
    seed = f"fedcart/sales/1\0{config.seed}\0{site.name}\0{question.query.round}".encode()
    update = train_sales(flat, model, data, question.model, config, seed)
    return [Release(UPDATE, update.astype(np.float64), _FREE).scaled(plan.weight(site.name)), accuracy]


def row_targets(_config: Any, _sequences: Any) -> None:
    """No consumer is a row of this task."""


ANSWERS = {STATISTICS: release_series, TRAIN: train, EVALUATE: train}
