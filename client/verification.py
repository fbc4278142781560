"""What a site verifies before it computes: who asks, whether query, plan, model and session belong together, and whether the
plan's public facts are the site's own. And the query in the words of its policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import common.wire as wire
from client.guard import Proposal
from client.site import Question, Site
from common.contribution import MAX_QUERY_BYTES, Query
from common.errors import ConfigError, PolicyRefusedError, RemoteProtocolError, VerificationError
from common.run import PerformanceSettings, RunPlan, model_digest
from common.secagg.messages import Params, PlainParams, invitation

T = TypeVar("T")
Values = Mapping[str, Any]
RECIPE_RATE = 1.0  # for the policy: a rate left to the recipe is this program's own, and below this


def part(request: Values, name: str, kind: type[T]) -> T:
    """A named value of a request. Raises: RemoteProtocolError if it is missing or of another type."""
    value = request.get(name)
    if type(value) is not kind:
        raise RemoteProtocolError(f"the request's {name} is missing, or no {kind.__name__}")
    return value


def verified_question(site: Site, request: Values, speed: PerformanceSettings) -> Question:
    """Check that the pinned coordinator signed this query, and that the model is the one it names.

    Raises: VerificationError, RemoteProtocolError.
    """
    query = wire.decode(Query, part(request, "query", bytes), MAX_QUERY_BYTES)
    site.roster.verify(site.roster.coordinator.name, query.digest(), part(request, "signature", bytes))
    plan = RunPlan.from_json(query.settings)
    model = _model(part(request, "model", bytes), plan)
    if model.digest != query.model_digest:
        raise VerificationError("the model beside the query is not the one that was signed")
    if plan.run != query.run or model.values.size != plan.parameters:
        raise RemoteProtocolError("query, plan and model do not belong together")
    if not plan.task.accepts(query.kind, query.round, plan.config.training.rounds):
        raise RemoteProtocolError(f"round {query.round} ({query.kind}) is not one of the plan")
    if not model.finite:
        raise RemoteProtocolError("the model holds a value that is not finite")
    check_plan(site, plan)
    if plan.config.privacy.enabled:
        plan.check_costs(query.kind)
    return Question(query, plan, model.values, speed)


@dataclass(frozen=True, eq=False)
class _Model:
    """A model as it came. Shape: ``values: float32[d]``, not to be written to: the sites of one process share them."""

    raw: bytes
    values: NDArray[np.float32]

    @cached_property
    def digest(self) -> bytes:
        return model_digest(self.values)

    @cached_property
    def finite(self) -> bool:
        return bool(np.isfinite(self.values).all())


# The last one: the sites of a simulation's worker are asked about the very same bytes, one after another.
_latest: list[_Model] = []


def _model(raw: bytes, plan: RunPlan) -> _Model:
    if len(raw) != 4 * plan.parameters:
        raise RemoteProtocolError(f"the model has {len(raw)} bytes, the plan says {plan.parameters} parameters")
    if not _latest or _latest[0].raw is not raw:
        _latest[:] = [_Model(raw, np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False))]
    return _latest[0]


def check_plan(site: Site, plan: RunPlan) -> None:
    """The plan's public facts must be the site's own: its population, its roster, its catalogue's encoding.

    A coordinator could otherwise make a site's weight drown the others', invent stockists, or choose an
    encoding with which training fails if some event exists.
    Raises: PolicyRefusedError naming the rule.
    """
    declared = site.file.site.population
    if plan.population(site.name) != declared:
        raise PolicyRefusedError(
            "population",
            f"the run states population {plan.population(site.name)}, site.toml {declared}",
            hint="coordinator and site must declare the same number",
        )
    pinned = {party.name for party in site.roster.sites}
    if len(set(plan.sites)) != len(plan.sites) or not set(plan.sites) <= pinned:
        raise PolicyRefusedError("roster", "the run names a site twice, or one that is not in this site's roster")
    if not site.simulated and plan.features != _expected_features(site, plan):
        raise PolicyRefusedError("features", "the run does not encode events as this site's catalogue asks")


def _expected_features(site: Site, plan: RunPlan) -> str:
    """The encoding that this site's own catalogue and the run's settings ask for, as a plan carries it."""
    from common.data import feature_spec

    return feature_spec(site.catalogue_of(plan), item_buckets=plan.config.features.item_buckets).canonical()


def proposal_of(site: Site, question: Question, params: Params | PlainParams | None) -> Proposal:
    """The query in the words of the site's policy; without ``params`` as it will come with all sites."""
    plan, config = question.plan, question.plan.config
    secure = params if isinstance(params, Params) else None
    return Proposal(
        run=plan.run,
        round=question.query.round,
        attempt=params.session.attempt if params else 1,
        kind=question.query.kind,
        task=config.task,
        query=question.query.digest().hex(),
        config=plan.digest().hex(),
        events=plan.events(question.query.kind),
        delta=config.privacy.delta,
        clip=config.privacy.clip,
        cohort=len(secure.cohort) if secure else len(plan.sites),
        threshold=secure.threshold if secure else len(plan.sites),
        population=site.file.site.population,
        min_stockists=config.aggregation.min_stockists,
        secure=secure is not None,
        holdout=config.privacy.holdout,
        split_key=site.split_key(),
        validation=config.privacy.validation,
        run_events=plan.total_events(),
        learning_rate=config.training.learning_rate or RECIPE_RATE,
        weight_ratio=max(declared for _, declared in plan.populations) / plan.population(site.name),
        derived=plan.derived(question.query.kind),
        sites=len(plan.sites),
        roster=params.roster.hex() if params else "",
        witness=params.witness.hex() if params else "",
        kits=tuple(site.roster.party(name).public_key.hex() for name in plan.sites),
    )


def check_invitation(site: Site, question: Question, params: Params | PlainParams, request: Values) -> None:
    """The coordinator opened this very session, about this query, among the parties of this site's roster, and it is secure
    if the plan says so: what is shown alone under a plan of sums would be a share of the noise.

    Raises: VerificationError.
    """
    site.roster.verify(site.roster.coordinator.name, invitation(params), part(request, "invitation", bytes))
    if params.roster != site.roster.digest:
        raise VerificationError(
            "the session is of another roster than this site's",
            hint="compare the six words of `fedcart site check` with another site, then take the kit again",
        )
    session, query = params.session, question.query
    if params.query_digest != query.digest() or (session.run, session.round) != (query.run, query.round):
        raise VerificationError("the session is not about the signed query")
    mode = "secure" if isinstance(params, Params) else "plain"
    if mode != question.plan.config.aggregation.mode:
        raise VerificationError(
            f"the session is {mode}, the signed plan says {question.plan.config.aggregation.mode}"
        )


def check_params(question: Question, params: Params) -> None:
    """The session's parameters must follow from the signed query: its model, its layout, its weights."""
    plan = question.plan
    expected = {site: plan.weight(site) for site in params.sites}
    if (
        params.model_digest != question.query.model_digest
        or params.blocks != plan.blocks(question.query.kind)
        or any(member.weight != expected[member.site] for member in params.cohort)
    ):
        raise VerificationError("the session's parameters do not belong to the signed query")
    check_quorum(plan, params)


def check_quorum(plan: RunPlan, params: Params) -> None:
    """A smaller cohort, or another attempt, must not open with fewer signers than the noise counts on.

    Raises: PolicyRefusedError (rule ``quorum_noise``).
    """
    quorum, threshold = plan.quorum, plan.config.aggregation.threshold
    if quorum is None:
        return
    if params.threshold != threshold:
        raise PolicyRefusedError(
            "quorum_noise",
            f"the session opens with {params.threshold} signers, the run's noise counts on {threshold}",
        )
    try:
        quorum.in_session(len(params.cohort), params.threshold).check()
    except ConfigError as error:
        raise PolicyRefusedError("quorum_noise", f"policy rule quorum_noise: {error.message}") from None
