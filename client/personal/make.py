"""``fedcart personalize``: from a shared model and a site's own events to its personal model and the verdict, all at the site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import client.personal.behaviour as behaviour
import client.personal.tuning as tuning
from client.personal.file import (
    PersonalFile,
    Reference,
    personal_folder,
    save_method,
    save_personal,
    shared_digest,
)
from client.personal.intent import PersonalIntent, personalize_intent
from client.personal.start import OwnConsumers, SharedStart
from client.personal.tuning import Say
from client.personal.verdict import Verdict, Verdicts
from client.scoring.consumers import LocalLog
from client.scoring.model import SharedModel, open_model, open_start, with_own
from client.scoring.place import ModelPlace
from common.data import EventLog, build_sequences
from common.errors import ConfigError
from common.model import INTENT, STEP_HEADS, load_model
from common.run import RunPlan
from common.strict_json import one_line

HOLDOUT = 0.1  # where the run had none
MOST_WINDOWS = 4_000


@dataclass(frozen=True)
class Done:
    """``path`` of the personal model, and what it is worth."""

    path: Path
    made_of: str
    verdicts: Verdicts


def personalize(
    place: ModelPlace,
    log: LocalLog,
    say: Say,
    catalogue: Path | None = None,
    remark: Callable[[str], None] = print,
) -> Done:
    """Make and keep the personal model of a place from a site's own log; what was there before stays until it is whole.

    Raises: BadInputError for a log that is too small, or that the model knows next to nothing of.
    """
    from client.prepared import split_of
    from client.scoring.coverage import require_known

    shared = open_model(place.folder, catalogue=catalogue, site=place.site)
    if words := require_known(shared, log.log):
        remark(words)
    start, names, _ = open_start(_folder(place.folder), catalogue, place.site)
    config = start.plan.config
    encoded = build_sequences(
        log.log, shared.spec, names, max_events=config.features.max_events, cut=config.cut_us
    )
    split = split_of(config, log.key)
    sides = replace(split, holdout=split.holdout or HOLDOUT).of(encoded)
    own = OwnConsumers.of(sides, log.key)
    made, intent, verdicts = made_of(start, own, say)
    facts = {"verdicts": [verdict.to_json() for verdict in verdicts]}
    file = PersonalFile(shared_digest(place.folder), made.personal, intent, None, facts)
    say("what is usual here", 0, 1)
    file = replace(file, reference=_reference(with_own(shared, start, file), log.log, sides.holdout.consumers))
    path = save_personal(file, personal_folder(place.home, place.folder))
    return Done(path, made.personal.words, Verdicts(place.site, config.task, len(sides.train), verdicts))


def forecasts_sales(model: Path) -> bool:
    """Whether a model is one of sales, by its own words. Raises: BadInputError for a model that is none."""
    try:
        plan = RunPlan.from_json(one_line(load_model(_folder(model))[2]["plan"]))
    except (KeyError, ConfigError):
        return False  # whoever opens it says what is wrong
    return plan.task.network == "sales"


def personalize_sales(place: ModelPlace, log: LocalLog, remark: Callable[[str], None] = print) -> Done:
    """The same for a model of sales. Raises: BadInputError for a log that is too short, or of other categories."""
    import client.personal.sales as sales
    from client.scoring.coverage import require_known_sales
    from client.scoring.forecast import open_sales_model, own_series

    shared = open_sales_model(place.folder)
    if words := require_known_sales(shared.spec, log.log):
        remark(words)
    method, verdict = sales.personalize_sales(shared, *own_series(shared, log.log))
    facts = {"verdicts": [verdict.to_json()]}
    path = save_method(method, shared_digest(place.folder), facts, personal_folder(place.home, place.folder))
    found = Verdicts(place.site, shared.config.task, len(log.log.consumers), (verdict,))
    return Done(path, verdict.chosen, found)


def made_of(
    start: SharedStart, own: OwnConsumers, say: Say
) -> tuple[behaviour.Made, PersonalIntent | None, tuple[Verdict, ...]]:
    """The personal model and its verdicts, the one that decides first; nothing is written."""
    with tuning.one_thread():
        return _made_of(start, own, say)


def _made_of(
    start: SharedStart, own: OwnConsumers, say: Say
) -> tuple[behaviour.Made, PersonalIntent | None, tuple[Verdict, ...]]:
    made = behaviour.personalize(start, own, say)
    if INTENT not in start.plan.config.model.heads:
        return made, None, made.verdicts
    say("trees of your own", 0, 1)
    intent, verdict = personalize_intent(made, start.plan.config)
    decides = start.plan.task.primary == verdict.metric
    return made, intent, (verdict, *made.verdicts) if decides else (*made.verdicts, verdict)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _reference(shared: SharedModel, log: EventLog, held: NDArray[np.uint64]) -> Reference | None:
    """What anomalies are told from later: stretches of the held-out consumers, whom the personal model has not learnt."""
    from client.anomalies.detectors import FEWEST_WINDOWS, profile_log
    from client.anomalies.windows import habits

    if not any(head in STEP_HEADS for head in shared.heads):
        return None
    scored = profile_log(shared, log)
    profile = scored.windows.profile[np.isin(scored.sequences.consumers[scored.windows.row], held)]
    if len(profile) < FEWEST_WINDOWS:
        return None
    if len(profile) > MOST_WINDOWS:
        profile = profile[np.sort(np.random.default_rng(0).choice(len(profile), MOST_WINDOWS, replace=False))]
    return Reference(scored.windows.names, profile, habits(scored.sequences).shares)
