"""A made-up run folder. Its numbers are test data, drawn from a formula; they are results of nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

from common.run import RunConfig
from common.run.facts import RunFacts, SiteFacts
from common.run.files import RunFolder
from common.run.records import (
    COMPLETED,
    RoundRecord,
    SiteRound,
    Summary,
)

BASELINES = {
    "popularity": {"recall@20": 0.121, "mrr@20": 0.031},
    "markov": {"recall@20": 0.402, "mrr@20": 0.171},
    "item-knn": {"recall@20": 0.431, "mrr@20": 0.180},
    "repeat-last": {"recall@20": 0.444, "mrr@20": 0.212},
    "majority": {"event_accuracy": 0.61},
}


def make_run(
    path: Path,
    *,
    sites: int = 8,
    rounds: int = 10,
    done: int | None = None,
    private: bool = True,
    secure: bool = False,
) -> Path:
    """Write a run folder; ``done`` < ``rounds`` leaves it interrupted, without a summary."""
    config = RunConfig.model_validate(
        {
            "name": "TEST-DATA",
            "training": {"rounds": rounds},
            "privacy": {"enabled": private},
            "data": {"sites": sites},
            "aggregation": {"mode": "secure" if secure else "plain"},
        }
    )
    folder = RunFolder.create(path)
    folder.write_settings(config)
    facts = make_facts(path, config, sites)
    folder.write_facts(facts)
    records = [make_record(r, facts, config) for r in range(1, (done or rounds) + 1)]
    if done is None:
        records.append(replace(make_record(rounds + 1, facts, config), kind="evaluate", seconds=0.8))
    for record in records:
        folder.append_round(record)
    if done is None:
        folder.write_summary(make_summary(path, records, config))
    return path


def make_facts(path: Path, config: RunConfig, sites: int) -> RunFacts:
    rng = random.Random(3)
    people = [2 ** max(7, 12 - i // 2) for i in range(sites)]
    return RunFacts(
        out=path,
        sites=tuple(
            SiteFacts(f"merchant-{i + 1}", people[i], rng.randint(300, 1000), "rest" if i == sites - 1 else "")
            for i in range(sites)
        ),
        rounds=config.training.rounds,
        local_steps=config.training.local_steps,
        private=config.privacy.enabled,
        aggregation=config.aggregation.mode,
        noise_multiplier=1.123,
        epsilon_target=config.privacy.epsilon,
        delta=config.privacy.delta,
        sampling_rate=config.privacy.sampling_rate,
        expected_signal=912.0 if config.privacy.enabled else math.inf,
        expectation="TEST DATA: near what counting gives",
        parameters=71_234,
        data={
            "source": "synthetic marketplace",
            "events": 336_000,
            "cleaning": {"lines": 340_000, "kept": 336_000, "status": "warn", "notes": ["format fedcart"]},
        },
        assumptions=(
            "declared populations are true counts rounded up to a power of two",
            "no consumer is at two sites; the audit also shows the composed figure",
        ),
        budget="enforced by every site's own ledger",
    )


def make_record(number: int, facts: RunFacts, config: RunConfig) -> RoundRecord:
    rng = random.Random(number)
    learnt = 1 - math.exp(-number / 4)
    before = 1 - math.exp(-(number - 1) / 4)
    spent = facts.epsilon_target * math.sqrt(number / (config.training.rounds + 1)) if facts.private else 0.0
    status = {}
    for index, site in enumerate(facts.sites):
        if rng.random() < 0.06:
            status[site.name] = SiteRound("lost", "timeout", "masked")
        elif index == 2 and number > 0.7 * config.training.rounds:
            status[site.name] = SiteRound("stopped", "budget")
        else:
            status[site.name] = SiteRound("ok")
    oracle = {"loss": 6.9 - 2.3 * learnt, "recall@20": 0.11 + 0.42 * learnt, "mrr@20": 0.03 + 0.21 * learnt}
    inside = {
        "clip_fraction": 0.97 - 0.02 * number / config.training.rounds,
        "signal_to_noise": 0.9 / math.sqrt(number),
    }
    noise = 0.015 if facts.private else 0.0
    return RoundRecord(
        round=number,
        released={
            "loss": 6.9 - 2.3 * before + rng.gauss(0, 6 * noise),
            "recall@20": 0.11 + 0.42 * before + rng.gauss(0, noise),
            "mrr@20": 0.03 + 0.21 * before + rng.gauss(0, noise),
        },
        oracle=oracle | (inside if facts.private else {}),
        sites=status,
        epsilon={site.name: spent * (1 - 0.01 * i) for i, site in enumerate(facts.sites)} if facts.private else {},
        bytes_up=facts.parameters * 4 * len(facts.sites),
        bytes_down=facts.parameters * 4 * len(facts.sites) + 20_000,
        seconds=3.1 + rng.random(),
        protocol_seconds=0.4,
        aggregation=config.aggregation.mode,
        private=facts.private,
        aborted="too-few-sites" if number == 5 and len(facts.sites) < 4 else "",
    )


def make_summary(path: Path, records: list[RoundRecord], config: RunConfig) -> Summary:
    last = records[-1]
    return Summary(
        status=COMPLETED,
        rounds=config.training.rounds,
        metrics={"released": last.released, "public": last.public, "oracle": last.oracle},
        baselines=BASELINES,
        epsilon=last.epsilon,
        aggregation=config.aggregation.mode,
        private=config.privacy.enabled,
        paths={"folder": str(path), "report.html": str(path / "report.html")},
        seconds=sum(record.seconds for record in records),
        notes=("TEST DATA: not the result of any training", "the model is below the trivial baseline TEST DATA"),
    )
