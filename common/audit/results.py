"""Does what a run says of itself follow from its signed records? Each function yields (file, what does not hold).

A coordinator signs the summary, and may sign another one when the sites have signed the last record. So nothing in it is taken
at its word that stands in the records too: figures, epsilon, how the run ended, and what it says of a site.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.audit.records import attestations_in
from common.errors import FedcartError
from common.run import (
    AT_WORK,
    BEST,
    CARD_FILE,
    COMPLETED,
    ENDED,
    EVIDENCE,
    FACTS_FILE,
    FAILED,
    FIXED,
    HEADS_FILE,
    IMPLAUSIBLE,
    LEDGERS,
    LEFT_OUT,
    LEFT_OUT_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    ORACLE,
    OWN_FOLDERS,
    PROOFS,
    RUNNING,
    SETTINGS_FILE,
    STOPPED,
    SUMMARY_FILE,
    RoundRecord,
    RunFolder,
    RunPlan,
    Summary,
    excluded,
    fixed_files,
    sealed_paths,
    sums_in,
    unattested_words,
)

OF_A_SITE = "site "
MOST_NAMED = 8


def summary_problems(plan: RunPlan, records: Sequence[RoundRecord], summary: Summary | None) -> Iterator[str]:
    """What a summary says that its records do not; of one that is under way, nothing is known."""
    if summary is None or summary.status == RUNNING:
        return
    last = records[-1] if records else RoundRecord(0)
    if summary.epsilon != last.epsilon:
        yield "shows another epsilon than the last record"
    if summary.alone != last.alone:
        yield "shows another epsilon alone than the last record"
    if records and summary.private != plan.config.privacy.enabled:
        yield f"says that the run is {'private' if summary.private else 'not private'}: not what the plan says"
    if summary.status in (COMPLETED, STOPPED, FAILED):
        yield from _of_the_end(plan, records, summary, last)
    yield from _of_sites(records, summary)


def _of_the_end(
    plan: RunPlan, records: Sequence[RoundRecord], summary: Summary, last: RoundRecord
) -> Iterator[str]:
    if summary.aggregation != plan.config.aggregation.mode:
        yield f"says that sums are {summary.aggregation}: not what the plan says"
    for kind in ("released", "public"):
        shown = {} if summary.status == FAILED else getattr(last, kind)
        if not _same(summary.metrics.get(kind, {}), shown):
            yield f"shows other {kind} figures than the last record"
    rounds, sums = sums_in(records)
    planned, refused = plan.config.training.rounds, [record.aborted for record in records][-2:]
    spoilt = not sums or refused == [IMPLAUSIBLE, IMPLAUSIBLE]
    could_be = {COMPLETED: rounds == planned and sums > 0, STOPPED: rounds < planned, FAILED: spoilt}
    if not could_be[summary.status]:
        yield f"says {summary.status}; the records show {sums} sums in {rounds} of {planned} rounds"


def _of_sites(records: Sequence[RoundRecord], summary: Summary) -> Iterator[str]:
    """A remark on a site is one that the records make: nobody is named for what he did not do."""
    said = set(unattested_words(records))
    for site, reason in _stopped(records):
        said.add(f"{OF_A_SITE}{site} stopped: {reason}")
    for note in summary.notes:
        if note.startswith(OF_A_SITE) and note not in said:
            yield f"says what no record shows: {note[:80]}"


def _stopped(records: Sequence[RoundRecord]) -> Iterator[tuple[str, str]]:
    yield from excluded(records).items()
    for record in records:
        yield from ((site, did.reason) for site, did in record.sites.items() if did.status in ENDED)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal figures, where one that has no value is null in a file."""
    return one.keys() == other.keys() and all(
        one[name] == other[name] or (_none(one[name]) and _none(other[name])) for name in one
    )


def _none(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def oracle_problems(
    run: RunFolder, records: Sequence[RoundRecord], summary: Summary | None
) -> Iterator[tuple[str, str]]:
    """Figures that only a simulation can know, in the folder of a run of real sites."""
    attested = [one.attestation.simulated for said in attestations_in(records).values() for one in said]
    if not attested or all(attested):
        return
    what = "shows figures of an oracle, and a run of real sites has none: somebody made them up"
    if any(record.oracle for record in records):
        yield METRICS_FILE, what
    if summary is not None and (summary.metrics.get("oracle") or summary.baselines):
        yield SUMMARY_FILE, what
    if run.oracle.is_dir() and any(run.oracle.iterdir()):
        yield f"{ORACLE}/", what


def facts_problems(run: RunFolder, plan: RunPlan) -> Iterator[tuple[str, str]]:
    """What is said before round 1 and is not what the plan says."""
    facts = run.facts()
    if facts is None:
        return
    config = plan.config
    privacy, training = config.privacy, config.training
    for what, said, planned in (
        ("sites", tuple((site.name, site.population) for site in facts.sites), plan.populations),
        ("rounds", (facts.rounds, facts.local_steps), (training.rounds, training.local_steps)),
        ("privacy", facts.private, privacy.enabled),
        ("aggregation", facts.aggregation, config.aggregation.mode),
        ("noise", facts.noise_multiplier, plan.noise_in_sum),
        ("delta", facts.delta, privacy.delta),
        ("sampling", facts.sampling_rate, plan.task.sampling_rate(config)),
        ("parameters", facts.parameters, plan.parameters),
        ("epsilon", facts.epsilon_target >= privacy.epsilon, True),
    ):
        if said != planned:
            yield FACTS_FILE, f"says other {what} than the plan"


def fixed_problems(run: RunFolder, records: Sequence[RoundRecord]) -> Iterator[tuple[str, str]]:
    """Item rows, catalogue and market series, as the first record names them and as the plan does."""
    left_out = run.left_out()
    strange = [name for name in left_out if name not in LEFT_OUT]
    present = [name for name in left_out if name in LEFT_OUT and (run.path / name).exists()]
    if strange or present:
        yield (
            LEFT_OUT_FILE,
            f"says that {', '.join(strange + present)[:60]} is left out, which no export is without",
        )
    signed = records[0].files if records else {}
    if not signed:
        return  # of a version that did not name them: the manifest does
    there = fixed_files(run)
    for name in FIXED:
        if there.get(name, "") != signed.get(name, "") and not (name in left_out and name not in there):
            yield name, "is not the one that the first record names, which the sites signed"


def catalogue_problems(run: RunFolder, plan: RunPlan) -> Iterator[tuple[str, str]]:
    """Whether the catalogue is the one that the plan names by its digest."""
    named, file = json.loads(plan.features).get("catalogue_digest", ""), run.catalogue_file
    if not file.is_file():
        if named:
            yield file.name, "is missing, but the plan names a catalogue"
        return
    from common.data import read_catalogue

    try:
        if read_catalogue(file).digest().hex() != named:
            yield file.name, "is not the catalogue that the plan names"
    except FedcartError as error:
        yield file.name, error.message


def unsigned_files(run: RunFolder) -> list[str]:
    """What lies in a run folder and nobody has signed: remarks, pages, what a site has said it keeps, and all strange names."""
    signed = {str(path.relative_to(run.path)) for path in sealed_paths(run)}
    signed |= {METRICS_FILE, MANIFEST_FILE, SUMMARY_FILE, SETTINGS_FILE, HEADS_FILE, LEFT_OUT_FILE, FACTS_FILE}
    signed |= {CARD_FILE, f"{BEST}/{CARD_FILE}"}  # made from what is signed, and made again to compare
    found = [path for path in run.path.iterdir() if path.name not in OWN_FOLDERS and path.name not in AT_WORK]
    found += [path for folder in (EVIDENCE, PROOFS, LEDGERS, BEST) for path in (run.path / folder).glob("*")]
    names = sorted(str(path.relative_to(run.path)) for path in found)
    strange = [name for name in names if name not in signed and not _is_ledger(name)]
    return strange[:MOST_NAMED] + ([f"{len(strange) - MOST_NAMED} more"] if len(strange) > MOST_NAMED else [])


def _is_ledger(name: str) -> bool:
    """A ledger, or its signed end: looked at on its own."""
    from common.privacy import anchor_of

    path = Path(name)
    ledgers = (path, path.with_suffix("").with_suffix(".jsonl"))  # the second: of which this is the end
    return path.parent.name == LEDGERS and any(
        path in (one, anchor_of(one)) and one.suffix == ".jsonl" for one in ledgers
    )
