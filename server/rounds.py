"""A federated run, top to bottom: cohort -> query -> sum -> strategy -> checkpoint, until the rounds are done.

All state that survives a round is one ``ServerState``. What a site is asked is a signed ``Query``; what
comes back is a sum over the cohort. Training and the closing evaluation take the same path.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import server.strategy as strategy
from common.contribution import EVALUATE, METRICS, SERIES, STATISTICS, TRAIN
from common.errors import BadInputError, WorkFailedError
from common.privacy import SignedAttestation
from common.run import (
    COMPLETED,
    ENDED,
    FAILED,
    IMPLAUSIBLE,
    INTERRUPTED,
    PROOFS,
    STOPPED,
    WHY_SHORTENED,
    RoundRecord,
    SiteRound,
    checked_status,
    fixed_files,
    round_file,
    round_files,
)
from server.asking import Asked, Run, ask, gathered, willing
from server.best import counted, note_measured
from server.blame import excluded
from server.market import market_series
from server.plausible import REFUSED_IN_A_ROW
from server.secure_sum import SumOutcome
from server.state import ServerState, latest_checkpoint, save_checkpoint

ABORTS_IN_A_ROW = 3
CUT_OFF = "interrupted"
WAITED_IN_VAIN = "stopped by the coordinator while it waited for sites"
SPOILT = (
    f"{REFUSED_IN_A_ROW} sums in a row are such as no honest sites can make: one site is enough to do this, and "
    "which one cannot be seen; the model is that of the last good round"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended, why, and the last state.

    ``status``: completed, failed (no round gave a sum), stopped, or interrupted (to be resumed).
    """

    status: str
    reason: str
    state: ServerState
    evaluation: RoundRecord | None = None


def run_federation(run: Run) -> Outcome:
    """Run all rounds that are left, then the closing evaluation; resumable at any point.

    Raises: WorkFailedError if rounds keep failing or the disk is full; the last checkpoint is then intact.
    """
    strategy.require_known(run.plan.config.strategy)
    state = _after_cut_off(run, resume_state(run))
    opening = run.plan.task.opening
    if opening and not any(record.kind == opening for record in run.folder.metrics()):
        if not gathered(run, state, 0):
            return Outcome(INTERRUPTED, WAITED_IN_VAIN, state)
        release_series(run, state)
    if opening and _no_sum(run, opening):
        return Outcome(FAILED, "the series of the sites gave no sum: there is nothing to learn from", state)
    status, reason, aborted = COMPLETED, "", 0
    while state.round < run.plan.config.training.rounds:
        if reason := _cannot_go_on(run, state) or _stops_early(run, state):
            status = STOPPED
            break
        if run.observer.stop_is_asked():
            return Outcome(INTERRUPTED, f"stopped by the coordinator after round {state.round}", state)
        if not gathered(run, state, state.round + 1):
            return Outcome(INTERRUPTED, WAITED_IN_VAIN, state)
        state, record = run_round(run, state)
        aborted = aborted + 1 if record.aborted else 0
        if _refused_in_a_row(run) >= REFUSED_IN_A_ROW:
            return Outcome(FAILED, SPOILT, state)
        if aborted == ABORTS_IN_A_ROW:
            raise WorkFailedError(
                f"{aborted} rounds in a row were aborted: {record.aborted}",
                hint="the last good model is kept; bring sites back, then resume the run",
            )
    status = checked_status(status, run.folder.metrics())
    return _closed(run, Outcome(status, reason, state, _closing_evaluation(run, state)))


def _refused_in_a_row(run: Run) -> int:
    """How many of the last rounds gave a sum that was refused, a resumed run's earlier ones included."""
    rounds = [record.aborted for record in run.folder.metrics() if record.kind == TRAIN]
    return len(list(takewhile(lambda why: why == IMPLAUSIBLE, reversed(rounds))))


def _closed(run: Run, outcome: Outcome) -> Outcome:
    """The outcome with its closing evaluation. An untrained model is not evaluated, and nobody is where sites are too few."""
    state = outcome.state
    if outcome.evaluation is not None or outcome.status == FAILED or not run.plan.evaluates:
        return outcome
    if why := _cannot_go_on(run, state):
        return replace(outcome, reason=outcome.reason or f"there is no closing evaluation: {why}")
    if not gathered(run, state, state.round + 1):
        return Outcome(INTERRUPTED, WAITED_IN_VAIN, state)
    return replace(outcome, evaluation=evaluate(run, state))


def _no_sum(run: Run, kind: str) -> bool:
    """Whether the sites have nothing to learn from; after a cut-off they have their own releases, only the sum is lost."""
    return any(record.kind == kind and record.aborted not in ("", CUT_OFF) for record in run.folder.metrics())


def run_round(run: Run, state: ServerState) -> tuple[ServerState, RoundRecord]:
    """One round: ask the cohort to train from ``state``, apply the mean update, save, record.

    An aborted round leaves the parameters as they were; its number is used up.
    """
    started, number = time.monotonic(), state.round + 1
    asked = ask(run, state, TRAIN, number, state.parameters)
    outcome = asked.outcome
    after = replace(state, round=number)
    if not outcome.aborted:
        _say_what_was_shortened(run, asked)
        steps = run.plan.config.training.local_steps
        after = strategy.apply(state, asked.judged.update, run.plan.config.strategy, steps)
    released = _released(run, outcome)
    after = replace(
        after,
        losses=(*state.losses, released["loss"])
        if math.isfinite(released.get("loss", math.nan))
        else state.losses,
        stopped=state.stopped | {s: r.reason for s, r in outcome.sites.items() if r.status in ENDED},
    )
    record = _record(run, asked, released, time.monotonic() - started)
    if record.faults:
        after = replace(after, stopped=after.stopped | excluded([*run.folder.metrics(), record]))
    record = _signed(run, record, after)
    note_measured(run.folder, run.plan, record, state.parameters)
    _save(run, replace(after, record=record.to_json()))
    _finish_round(run, record)
    for site in sorted(after.stopped.keys() - state.stopped.keys()):
        run.observer.note(f"site {site} stopped: {after.stopped[site]}; the federation goes on without it")
    return after, record


def _say_what_was_shortened(run: Run, asked: Asked) -> None:
    """Say it once in a run; the records say it of every round, and the summary of the worst."""
    if asked.judged.shortened and not any(record.shortened for record in run.folder.metrics()):
        told = "; ".join(f"{name} shortened {what}" for name, what in asked.judged.shortened.items())
        run.observer.note(f"round {asked.query.round}: {told}: {WHY_SHORTENED}")


def release_series(run: Run, state: ServerState) -> RoundRecord:
    """Round 0 of a sales run: every site releases its noised series once; the sum is the market's series.

    What the sites learn afterwards is post-processing of it, so this is all that the run costs them.
    """
    started = time.monotonic()
    asked = ask(run, state, STATISTICS, 0, state.parameters)
    if not asked.outcome.aborted:
        market = market_series(run.plan, asked.outcome.blocks[SERIES], asked.outcome.survivors)
        run.folder.write_market(market)
    record = _signed(run, _record(run, asked, {}, time.monotonic() - started), state)
    _finish_round(run, record)
    return record


def evaluate(run: Run, state: ServerState) -> RoundRecord | None:
    """Ask for metric sums of the averaged model on those held-out consumers by whom nothing was chosen: the released result."""
    if not run.plan.evaluates:
        return None
    started, number = time.monotonic(), state.round + 1
    asked = ask(run, state, EVALUATE, number, state.average)
    record = _signed(run, _record(run, asked, _released(run, asked.outcome), time.monotonic() - started), state)
    _finish_round(run, record)
    return record


def _signed(run: Run, record: RoundRecord, state: ServerState) -> RoundRecord:
    """The record, complete: what a simulation adds, the state after it, the record before it, the coordinator's signature."""
    before = run.folder.last_record()
    record = replace(
        run.measured(record, state),
        state=state.digests[0].hex(),
        average=state.digests[1].hex(),
        files=fixed_files(run.folder) if before == run.plan.digest().hex() else {},
        previous=before,
    )
    return replace(record, signature=run.coordinator.sign(bytes.fromhex(record.digest)).hex())


def _finish_round(run: Run, record: RoundRecord) -> None:
    run.folder.append_round(record)
    run.observer.round_done(record)
    for fault in record.faults:
        run.observer.note(f"round {record.round}: {fault}; proven by what it signed, see {PROOFS}/")


def resume_state(run: Run) -> ServerState:
    """The newest checkpoint, with ``metrics.jsonl`` brought in line with it.

    Raises: BadInputError if it is damaged or belongs to another plan.
    """
    state = latest_checkpoint(run.folder.checkpoints)
    if state.plan != run.plan.digest().hex():
        raise BadInputError(
            "the checkpoint belongs to a run with other settings",
            hint="resume with the run folder as it was written",
        )
    if _closing_evaluation(run, state) is None:
        run.folder.truncate_metrics(state.round)
    written = run.folder.metrics()
    if state.record and (not written or written[-1].round < state.round):
        run.folder.append_round(RoundRecord.from_json(state.record))
    return state


def _after_cut_off(run: Run, state: ServerState) -> ServerState:
    """Use up the number of a round that was cut off after contributions may have left.

    To ask for it again would charge the sites twice for one round, and take the last round from the run.
    """
    mark = run.folder.leaving()
    if not mark or not _was_cut_off(run, state, mark):
        return state
    number = int(mark["round"])
    for part in (run.folder.evidence, run.folder.proofs):  # of a sum that was made and is in no record
        round_file(part, number, "json").unlink(missing_ok=True)
    latest = {site: run.book.heads.latest(site) for site in mark["sites"]}
    record = RoundRecord(
        round=number,
        kind=mark["kind"],
        sites={site: SiteRound("lost", CUT_OFF, "mask") for site in mark["sites"]},
        epsilon=_epsilon(run),
        alone=_alone(run),
        attestations={site: head.to_json() for site, head in latest.items() if head and _is_of(head, run, number)},
        aggregation=run.plan.config.aggregation.mode,
        private=run.plan.config.privacy.enabled,
        aborted=CUT_OFF,
        model=state.digests[mark["kind"] == EVALUATE].hex(),
        attempt=mark["attempt"],
        heads={site: (sequence, head) for site, (sequence, head) in mark["heads"].items()},
    )
    record = _signed(run, record, state)
    if record.kind == TRAIN:
        state = replace(state, round=number, record=record.to_json())
        _save(run, state)
    run.folder.append_round(record)
    run.observer.note(
        f"round {number} was cut off after it was charged: its number is used up, nothing is asked twice"
    )
    return state


def _was_cut_off(run: Run, state: ServerState, mark: dict[str, Any]) -> bool:
    if mark["kind"] == STATISTICS:
        return not any(record.kind == STATISTICS for record in run.folder.metrics())
    return bool(mark["round"] == state.round + 1) and _closing_evaluation(run, state) is None


def _is_of(head: SignedAttestation, run: Run, number: int) -> bool:
    return (head.attestation.run, head.attestation.round) == (run.plan.run, number)


def _epsilon(run: Run) -> dict[str, float]:
    return {
        site: epsilon
        for site, epsilon in run.book.epsilon(run.plan.config.privacy.delta).items()
        if site in run.plan.sites
    }


def _alone(run: Run) -> dict[str, float]:
    found = run.book.alone(run.plan.config.privacy.delta)
    return {site: epsilon for site, epsilon in found.items() if site in run.plan.sites}


def _closing_evaluation(run: Run, state: ServerState) -> RoundRecord | None:
    """The closing evaluation of an earlier life of this run, if it got that far: it is never paid for twice."""
    written = run.folder.metrics()
    if written and written[-1].kind == EVALUATE and written[-1].round == state.round + 1:
        return written[-1]
    return None


def _released(run: Run, outcome: SumOutcome) -> dict[str, float]:
    sums = outcome.blocks.get(METRICS)
    return {} if sums is None else run.plan.summarise(sums)


def _record(run: Run, asked: Asked, released: dict[str, float], seconds: float) -> RoundRecord:
    outcome, number = asked.outcome, asked.query.round
    if outcome.evidence:
        run.folder.write_evidence(number, outcome.evidence)
    evidence = hashlib.sha256(outcome.evidence.encode()).hexdigest() if outcome.evidence else ""
    return RoundRecord(
        round=number,
        kind=asked.query.kind,
        released=released,
        public=counted(run.plan, outcome.blocks.get(METRICS)),
        sites=outcome.sites,
        epsilon=_epsilon(run),
        alone=_alone(run),
        attestations=asked.accepted,
        bytes_up=asked.bytes_up,
        bytes_down=asked.bytes_down,
        seconds=round(seconds, 4),
        protocol_seconds=round(outcome.protocol_seconds, 4),
        aggregation=run.plan.config.aggregation.mode,
        private=run.plan.config.privacy.enabled,
        aborted=outcome.aborted,
        attempt=asked.attempt,
        model=asked.query.model_digest.hex(),
        heads=dict(asked.heads),
        evidence=evidence,
        plausible=dict(asked.judged.figures),
        shortened=dict(asked.judged.shortened),
        faults=tuple(asked.blamed.faults),
        proofs=asked.blamed.write(run.folder, number),
    )


def _save(run: Run, state: ServerState) -> None:
    folder = run.folder.checkpoints
    save_checkpoint(folder, state)
    for path in round_files(folder, "safetensors")[:-2]:
        path.unlink()  # the last two are kept: one may be torn by a failing disk


def _cannot_go_on(run: Run, state: ServerState) -> str:
    left = willing(run, state)
    if len(left) >= run.needed:
        return ""
    stopped = ", ".join(f"{site}: {reason}" for site, reason in sorted(state.stopped.items()))
    return f"{len(left)} of {len(run.plan.sites)} sites are left, {run.needed} are needed ({stopped})"


def _stops_early(run: Run, state: ServerState) -> str:
    patience = run.plan.config.training.early_stopping
    if not patience or len(state.losses) <= patience:
        return ""
    if min(state.losses[-patience:]) < min(state.losses[:-patience]):
        return ""
    return f"released loss has not improved for {patience} rounds"
