"""What a run says of itself: one ``RoundRecord`` per round, one ``Summary``, and how it may end."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from common.run.facts import require_figures
from common.strict_json import fields_of, one_line

RUNNING = "running"
INTERRUPTED = "interrupted"
COMPLETED = "completed"
FAILED = "failed"  # all planned rounds were run, and none gave a sum: there is no model
IMPLAUSIBLE = "implausible"  # why a round was aborted: no honest sites can have made such a sum
WHY_SHORTENED = "one item or one habit dominates the logs, or a site pushes it"
STOPPED = "stopped"  # gracefully, before the planned rounds: budget, policy, or too few sites


ENDED = ("stopped", "refused", "paused")
"""Of a site: it is not asked again in the run (budget, policy, or after a failure of its own)."""
FAULTS_BEFORE_EXCLUSION = 2  # one may be a broken disk or program; a culprit is left out of its round anyway
EXCLUDED = "two proven faults"


@dataclass(frozen=True)
class SiteRound:
    """What one site did in one round. ``status``: ok, lost, refused, stopped (budget), paused; ``phase`` of a loss."""

    status: str
    reason: str = ""
    phase: str = ""


@dataclass(frozen=True)
class FaultRecord:
    """What one site provably did wrong in one attempt at a round; ``victim`` is empty if everybody was it."""

    culprit: str
    victim: str
    kind: str
    attempt: int

    def __str__(self) -> str:
        what = FAULT_WORDS.get(self.kind, self.kind)
        return f"{self.culprit} {what.format(self.victim)}"


FAULT_WORDS = {
    "bad-dealing": "dealt shares of no secret",
    "bad-box": "dealt {} a wrong share",
    "false-complaint": "complained about a right share of {}",
    "wrong-share": "revealed a wrong share of {}",
}


@dataclass(frozen=True)
class Shortened:
    """The worst of what was longer than usual logs make it: ``seen``, what it ``became``, and of how many rows or coordinates."""

    seen: float
    became: float
    number: int = 1

    def __str__(self) -> str:
        return f"from {self.seen:.4g} to {self.became:.4g}" + (
            f", {self.number} of them" if self.number > 1 else ""
        )


@dataclass(frozen=True)
class RoundRecord:
    """One line of ``metrics.jsonl``, where null is a metric that has no value; the closing evaluation has ``kind = "evaluate"`` and the next number.

    ``released``: noised and charged (model at the start of the round); ``public``: follows from settings
    or released sums; ``oracle``: computed by the simulation from all data (model at the end of the round).
    ``epsilon``: spent per site so far, from the ledgers' signed attestations, a RESERVE counts as spent; ``alone``: the same if
    no other site is honest, where sites share the noise of a sum, and only there.
    Units: bytes over all sites, seconds of wall time.

    ``model``, ``state`` and ``average``: digests (hex) of the parameters that were asked about, and of the two vectors after
    the round. ``heads``: ends of all ledgers that the sites were shown. ``evidence``: SHA-256 of the round's evidence.
    ``plausible``: what the sum was judged by, name -> (seen, largest that honest sites reach); ``shortened``: what of an
    update was longer than usual logs make it. Released, as they are made of the sum.
    ``faults``: what sites provably did wrong, in every attempt; ``proofs``: SHA-256 of the file that proves it.
    ``files``: in the first record, public files that were fixed by then (name -> SHA-256): item rows, catalogue, market.
    ``previous``: digest of the record before, of the plan for the first one. ``signature``: the coordinator's, over all
    but ``oracle``, which no server sees and which an auditor is not given.
    """

    round: int
    kind: str = "train"
    released: dict[str, float] = field(default_factory=dict)
    public: dict[str, float] = field(default_factory=dict)
    oracle: dict[str, float] = field(default_factory=dict)
    sites: dict[str, SiteRound] = field(default_factory=dict)
    epsilon: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    attestations: dict[str, Any] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    protocol_seconds: float = 0.0
    aggregation: str = "plain"
    private: bool = True
    aborted: str = ""
    attempt: int = 0
    model: str = ""
    state: str = ""
    average: str = ""
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    evidence: str = ""
    plausible: dict[str, tuple[float, float]] = field(default_factory=dict)
    shortened: dict[str, Shortened] = field(default_factory=dict)
    faults: tuple[FaultRecord, ...] = ()
    proofs: str = ""
    files: dict[str, str] = field(default_factory=dict)
    previous: str = ""
    signature: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what is signed, hex: the next record names it."""
        plain = self._as_json(replace(self, oracle={}, signature=""))
        return sha256(b"fedcart/round-record/1\0" + one_line(plain).encode()).hexdigest()

    @property
    def summed(self) -> bool:
        """Whether there was a sum, even if it was refused."""
        return self.answered > 0 and self.aborted in ("", IMPLAUSIBLE)

    @property
    def answered(self) -> int:
        """Number of sites whose contribution is in the sum."""
        return sum(site.status == "ok" for site in self.sites.values())

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """All numbers of the round, by what they are."""
        return {"released": self.released, "public": self.public, "oracle": self.oracle}

    @property
    def worst_epsilon(self) -> float | None:
        """Largest epsilon so far over the sites, None without a ledger."""
        return max(self.epsilon.values(), default=None)

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return one_line(self._as_json(self))

    @staticmethod
    def _as_json(record: RoundRecord) -> dict[str, Any]:
        """Its fields; some of them only where they say something, as records from before there were any are signed without."""
        empty = [name for name in ("alone", "shortened", "files") if not getattr(record, name)]
        return {name: value for name, value in fields_of(record).items() if name not in empty}

    @staticmethod
    def from_json(text: str) -> RoundRecord:
        """Inverse of ``to_json``. Raises: ValueError, TypeError on foreign text."""
        plain = {"alone": {}, "shortened": {}, "files": {}} | json.loads(text)
        require_figures(*(plain[group] for group in ("released", "public", "oracle", "epsilon", "alone")))
        require_figures(*(plain[number] for number in ("round", "attempt", "seconds", "bytes_up", "bytes_down")))
        plain["sites"] = {name: SiteRound(**site) for name, site in plain["sites"].items()}
        for group in ("released", "public", "oracle"):
            plain[group] = {name: math.nan if value is None else value for name, value in plain[group].items()}
        plain["heads"] = {site: (int(sequence), str(head)) for site, (sequence, head) in plain["heads"].items()}
        plain["plausible"] = {
            name: (math.nan if seen is None else float(seen), math.inf if limit is None else float(limit))
            for name, (seen, limit) in plain["plausible"].items()
        }
        plain["shortened"] = {name: Shortened(**values) for name, values in plain["shortened"].items()}
        plain["files"] = {str(name): str(digest) for name, digest in plain["files"].items()}
        plain["faults"] = tuple(FaultRecord(**fault) for fault in plain["faults"])
        return RoundRecord(**plain)


NEVER_ATTESTED = "never attested"


def unattested(records: Iterable[RoundRecord]) -> list[tuple[int, str]]:
    """(round, site) where a site was asked and did not attest what it cost: it counts as charged. One that refused was not."""
    return [
        (record.round, site)
        for record in records
        for site, did in record.sites.items()
        if record.private and site not in record.attestations and did.status not in ENDED
    ]


def never_attested(records: Sequence[RoundRecord]) -> tuple[str, ...]:
    """Sites that were asked and of which no epsilon is known at all."""
    known = {site for record in records for site in record.epsilon}
    return tuple(sorted({site for _, site in unattested(records)} - known))


def interrupted(records: Sequence[RoundRecord], **told: Any) -> Summary:
    """The summary of a run that ends before its end: what was spent so far, and ``told``."""
    rounds, sums = sums_in(records)
    last = records[-1] if records else RoundRecord(0)
    words = tuple(unattested_words(records))
    stands = {
        "rounds": rounds,
        "sums": sums,
        "epsilon": last.epsilon,
        "alone": last.alone,
        "private": last.private,
        "notes": words,
    }
    return Summary(INTERRUPTED, **{**stands, **told})


def unattested_words(records: Sequence[RoundRecord]) -> list[str]:
    """For people: which sites' figures hold more or less than their own words; empty if all attested to the end."""
    words = []
    asked: dict[str, list[int]] = {}
    for number, site in unattested(records):
        asked.setdefault(site, []).append(number)
    for site, rounds in sorted(asked.items()):
        if site in never_attested(records):
            words.append(
                f"site {site} was asked and {NEVER_ATTESTED}: what it spent is not known, and in no figure here"
            )
            continue
        last = max((record.round for record in records if site in record.attestations), default=-1)
        if later := [str(number) for number in rounds if number > last]:
            words.append(f"site {site} did not attest round {', '.join(later[:6])}: counted as charged")
    return words


def excluded(records: Iterable[RoundRecord]) -> dict[str, str]:
    """Sites that are not invited any more, with the reason: those that two rounds or more have proven guilty."""
    named = Counter(site for record in records for site in {fault.culprit for fault in record.faults})
    return {site: EXCLUDED for site, rounds in sorted(named.items()) if rounds >= FAULTS_BEFORE_EXCLUSION}


Values = dict[str, float]


@dataclass(frozen=True)
class Summary:
    """The content of ``summary.json``; fields that are not known yet have their defaults.

    ``rounds``: training rounds that were run, ``sums``: those of them that gave a sum. ``metrics``: released, public
    and oracle (empty in a deployment); ``baselines`` are oracle; ``epsilon`` is spent per site, from the signed
    attestations, reservations included; ``alone``: if no other site is honest, where they share noise. ``error``, ``hint``, ``exit_code`` say why a run was interrupted.
    """

    status: str
    rounds: int = 0
    sums: int = 0
    metrics: dict[str, Values] = field(default_factory=dict)
    baselines: dict[str, Values] = field(default_factory=dict)
    epsilon: Values = field(default_factory=dict)
    alone: Values = field(default_factory=dict)
    aggregation: str = ""
    private: bool = True
    paths: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    exit_code: int = 0

    @property
    def all_attested(self) -> bool:
        """Whether there is an epsilon of every site that was asked."""
        return not any(NEVER_ATTESTED in note for note in self.notes)

    @property
    def completed(self) -> bool:
        """Whether all planned rounds were run, and the model is made of at least one sum."""
        return self.status == COMPLETED

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return fields_of(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Summary:
        """Inverse of ``to_json``. Raises: TypeError on foreign values."""
        require_figures(plain.get("epsilon", {}), plain.get("seconds", 0.0), plain.get("exit_code", 0))
        for figures in (*plain.get("metrics", {}).values(), *plain.get("baselines", {}).values()):
            require_figures(figures)
        notes = tuple(plain.get("notes", ()))
        texts = (
            plain["status"],
            plain.get("aggregation", ""),
            plain.get("error", ""),
            plain.get("hint", ""),
            *notes,
        )
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("what a summary says is text")
        return Summary(**{**plain, "notes": notes})


def sums_in(records: Sequence[RoundRecord]) -> tuple[int, int]:
    """How many training rounds were run, and how many of them gave a sum."""
    rounds = [record for record in records if record.kind == "train"]
    return len(rounds), sum(not record.aborted for record in rounds)


def without_sum(records: Sequence[RoundRecord]) -> str:
    """A sentence on the rounds that gave no sum; empty if all did."""
    rounds, sums = sums_in(records)
    if sums == rounds:
        return ""
    reasons = ", ".join(
        sorted({record.aborted for record in records if record.kind == "train" and record.aborted})
    )
    return f"{rounds - sums} of {rounds} rounds gave no sum ({reasons})"


def with_shortened(records: Sequence[RoundRecord]) -> str:
    """A sentence on the updates that were shortened, with the worst of each kind; empty if none was."""
    rounds = [record for record in records if record.shortened]
    worst: dict[str, tuple[Shortened, int]] = {}
    for record in rounds:
        for name, what in record.shortened.items():
            if name not in worst or what.seen * worst[name][0].became > worst[name][0].seen * what.became:
                worst[name] = (what, record.round)
    if not rounds:
        return ""
    told = "; ".join(f"{name} {what} in round {number}" for name, (what, number) in sorted(worst.items()))
    return f"{len(rounds)} of {sums_in(records)[1]} updates were shortened ({told}): {WHY_SHORTENED}"


def checked_status(status: str, records: Sequence[RoundRecord]) -> str:
    """``failed`` in place of ``completed`` where no round gave a sum: such a model is untrained."""
    rounds, sums = sums_in(records)
    return FAILED if status == COMPLETED and rounds and not sums else status
