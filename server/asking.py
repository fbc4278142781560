"""One question to one cohort: a signed Query, the session, as many attempts as it takes, and a look at the sum that comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import common.wire as wire
from common.contribution import Query
from common.flower import Parts
from common.limits import ItemCoordinates
from common.privacy import Witnessed, witness_of
from common.run import (
    IMPLAUSIBLE,
    Observer,
    RoundRecord,
    RunFolder,
    RunPlan,
    SiteRound,
    model_bytes,
)
from common.secagg.messages import (
    MIN_SITES,
    Member,
    Params,
    PlainParams,
    Session,
    default_threshold,
    invitation,
)
from common.trust import Identity, Roster
from server.admission import Admission, HeadsBook
from server.blame import Blamed
from server.cohort import choose_cohort
from server.exchange import Exchange
from server.gathering import Gathering
from server.plausible import Judgement, judge
from server.secure_sum import Opening, SumOutcome, plain_sum, secure_sum
from server.state import ServerState

ATTEMPTS = 2  # a round that failed before any masked vector left is tried once more
TOO_FEW = "too-few-sites"


Measure = Callable[[RoundRecord, ServerState], RoundRecord]


@dataclass
class Run:
    """Everything about a run that does not change from round to round.

    ``measured`` completes a record before it is written: a simulation fills in its oracle metrics. It sees the state
    after the round; nothing here reads what it adds. ``look_around`` is called while the run waits for sites.
    ``simulated``: whether the sites are; an answer that says otherwise is none.
    """

    plan: RunPlan
    folder: RunFolder
    exchange: Exchange
    coordinator: Identity
    roster: Roster
    book: HeadsBook
    rows: ItemCoordinates | None = None
    observer: Observer = field(default_factory=Observer)
    measured: Measure = lambda record, _state: record
    look_around: Callable[[], None] = lambda: None
    simulated: bool = False

    @property
    def secure(self) -> bool:
        """Whether sums are taken by secure aggregation."""
        return self.plan.config.aggregation.mode == "secure"

    @property
    def needed(self) -> int:
        """Fewest sites with which a round can be started."""
        least = max(self.plan.config.aggregation.min_sites, MIN_SITES if self.secure else 1)
        return max(least, self.plan.quorum.threshold) if self.plan.quorum else least


def gathered(run: Run, state: ServerState, number: int) -> bool:
    """Whether enough sites can be reached; False if the coordinator stops the run meanwhile. Raises: WorkFailedError."""
    return Gathering(run.exchange, run.observer, run.look_around).enough(willing(run, state), run.needed, number)


@dataclass(frozen=True)
class Asked:
    """A question and what came of it. Units: bytes from and to all sites, every attempt included.

    ``heads``: the ends of all ledgers that the sites were shown, the same in every attempt.
    """

    query: Query
    outcome: SumOutcome
    attempt: int
    heads: Witnessed
    accepted: dict[str, Any]
    blamed: Blamed
    judged: Judgement
    bytes_up: int
    bytes_down: int


def ask(run: Run, state: ServerState, kind: str, number: int, parameters: NDArray[np.float32]) -> Asked:
    """One question to one cohort, tried again if it failed before anything had left a site.

    An attempt that proves a site's fault is not counted: each leaves one site less.
    """
    query = Query(kind, run.plan.run, number, run.plan.to_json(), state.digest_of(parameters))
    heads = run.book.heads.witnessed()
    admission = Admission(run.plan, query, run.roster, run.book, witness_of(heads), simulated=run.simulated)
    up, down = run.exchange.bytes_up, run.exchange.bytes_down
    run.exchange.progress = lambda phase, done, total: run.observer.progress(number, phase, done, total)
    cohort = choose_cohort([s for s in willing(run, state) if s in run.exchange.nodes], number, run.plan)
    outcome = SumOutcome({site: SiteRound("lost", TOO_FEW) for site in cohort}, aborted=TOO_FEW)
    left, blamed = ATTEMPTS, Blamed()
    while left and len(cohort) >= run.needed:
        admission.attempt = run.folder.next_session()
        asking = _Asking(admission, Session(run.plan.run, number, admission.attempt), tuple(cohort), heads)
        admission.ask(cohort)
        outcome = _attempt(run, asking, model_bytes(parameters))
        for remark in outcome.remarks:
            run.observer.note(f"round {number}: {remark}")
        named = blamed.note(outcome, admission.attempt)
        if not outcome.aborted or outcome.exposed:
            break
        if named:
            cohort = tuple(site for site in _answering(outcome) if site not in named)
        elif len(run.exchange.reachable(willing(run, state))) >= run.needed:
            left, cohort = left - 1, tuple(_answering(outcome))  # nobody waits for the dead twice
        elif not gathered(run, state, number):  # the line went, not the sites: the same cohort is asked again
            break
    sent = run.exchange.bytes_up - up, run.exchange.bytes_down - down
    blamed.complete(outcome)
    judged = _judged(run, kind, number, outcome)
    return Asked(query, outcome, admission.attempt, heads, admission.accepted, blamed, judged, *sent)


def _judged(run: Run, kind: str, number: int, outcome: SumOutcome) -> Judgement:
    """Look at a sum before anything is done with it; one that honest sites cannot have made aborts the round."""
    if outcome.aborted:
        return Judgement({})
    judged = judge(run.plan, kind, outcome.blocks, outcome.survivors, run.rows)
    if judged.why_not:
        outcome.aborted, outcome.blocks = IMPLAUSIBLE, {}
        run.observer.note(f"round {number}: the sum is refused: {judged.why_not}; the model stays as it was")
    return judged


@dataclass(frozen=True)
class _Asking:
    """One attempt at a question: who is asked, in which session, and which ends of all ledgers they are shown."""

    admission: Admission
    session: Session
    cohort: tuple[str, ...]
    heads: Witnessed


def _attempt(run: Run, asking: _Asking, model: bytes) -> SumOutcome:
    query, params = asking.admission.query, _params(run, asking)
    common: Parts = {
        "query": wire.encode(query),
        "signature": run.coordinator.sign(query.digest()),
        "invitation": run.coordinator.sign(invitation(params)),
        "model": model,
    }
    requests: dict[str, Parts] = {}
    for site in asking.cohort:
        latest = run.book.heads.latest(site)
        requests[site] = dict(common) | {"head": json.dumps(latest.to_json(), allow_nan=False) if latest else ""}
    opening = Opening(requests, asking.admission, lambda: _mark_leaving(run, asking))
    settings = run.plan.config.aggregation
    if isinstance(params, PlainParams):
        return plain_sum(run.exchange, params, run.plan.blocks(query.kind), opening, settings)
    return secure_sum(run.exchange, params, opening, settings)


def _params(run: Run, asking: _Asking) -> Params | PlainParams:
    query, session, cohort = asking.admission.query, asking.session, asking.cohort
    bound = (query.digest(), run.roster.digest, witness_of(asking.heads))
    if not run.secure:
        return PlainParams(session, cohort, *bound)
    members = tuple(Member(s, run.roster.party(s).public_key, run.plan.weight(s)) for s in cohort)
    threshold = run.plan.config.aggregation.threshold or default_threshold(len(cohort))
    return Params(session, members, threshold, run.plan.blocks(query.kind), query.model_digest, *bound)


def _mark_leaving(run: Run, asking: _Asking) -> None:
    """From here on contributions of this round may have left their sites, and are charged: durable."""
    if run.plan.config.privacy.enabled:
        query, session = asking.admission.query, asking.session
        mark = {"round": query.round, "kind": query.kind, "sites": list(asking.cohort)}
        run.folder.mark_leaving(mark | {"attempt": session.attempt, "heads": dict(asking.heads)})


def willing(run: Run, state: ServerState) -> list[str]:
    """The sites of the plan that have not ended their part."""
    return [site for site in run.plan.sites if site not in state.stopped]


def _answering(outcome: SumOutcome) -> list[str]:
    return [
        site for site, what in outcome.sites.items() if not (what.status == "lost" and what.phase == "advertise")
    ]
