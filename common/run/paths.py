"""The names of a run's files, and where they lie. What writes and reads them: ``common.run.files``.

    run.toml            all settings             metrics.jsonl       one object per round
    plan.json           the signed constants     sites.json          facts before round 1
    model.safetensors   final parameters         model.json          what the parameters mean
    masks.npz           public item masks        item_of.npy         catalogue row of each coordinate
    checkpoints/        ServerState per round    ledgers/SITE.jsonl  privacy ledgers
    roster.json         sites and public keys    evidence/           aggregation evidence per round
    heads.json          newest attestations      market.json         released series of a sales run
    proofs/             who broke the protocol   report.html         the picture of it all
    progress.json       what is under way        notes.jsonl         remarks of a deployed run
    manifest.json       the whole, signed        countersigned.json  sites' word on the last round
    left-out.json       what an export leaves out     delivered.json      which site keeps which model
    best/               the best model by released metric, if it beats the last by more than chance
    catalogue.json      public item facts        submitted           Flower's number of a deployed run
    summary.json        result and status    model-card.md       of the model beside it, made from the records
    oracle/             simulation only: what no server sees: initial.f32, own-data.json (what sites make of the model)
    checkpoints/        beside the states: sessions.json (how often begun), leaving.json (what may have left), best.npz
    asked.json          questions without attestation    running.lock, submit.lock, stop.asked    who is at work on it

Weights and metadata of the model are named in ``common.model_files``, the roster in ``common.trust.identity``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.model_files import METADATA_FILE as METADATA_FILE, WEIGHTS_FILE as WEIGHTS_FILE
from common.trust import ROSTER_FILE

SETTINGS_FILE, PLAN_FILE, FACTS_FILE = "run.toml", "plan.json", "sites.json"
METRICS_FILE, SUMMARY_FILE, REPORT_FILE = "metrics.jsonl", "summary.json", "report.html"
MASKS_FILE, ITEM_OF_FILE, CATALOGUE_FILE = "masks.npz", "item_of.npy", "catalogue.json"
HEADS_FILE, ASKED_FILE, MARKET_FILE = "heads.json", "asked.json", "market.json"
PROGRESS_FILE, NOTES_FILE, SUBMITTED_FILE = "progress.json", "notes.jsonl", "submitted"
SESSIONS_FILE, LEAVING_FILE, INITIAL_FILE = "sessions.json", "leaving.json", "initial.f32"
OWN_DATA_FILE = "own-data.json"
CARD_FILE = "model-card.md"
BEST_FILE, DELIVERED_FILE = "best.npz", "delivered.json"
MANIFEST_FILE, COUNTERSIGNED_FILE, LEFT_OUT_FILE = "manifest.json", "countersigned.json", "left-out.json"
LEDGERS, EVIDENCE, CHECKPOINTS, ORACLE = "ledgers", "evidence", "checkpoints", "oracle"
PROOFS, BEST = "proofs", "best"
LOCK_FILE, SUBMIT_LOCK_FILE, STOP_FILE = "running.lock", "submit.lock", "stop.asked"
AT_WORK = (LOCK_FILE, SUBMIT_LOCK_FILE, STOP_FILE, SUBMITTED_FILE, PROGRESS_FILE, ASKED_FILE)
OWN_FOLDERS = (LEDGERS, EVIDENCE, CHECKPOINTS, ORACLE, PROOFS, BEST, "sites", "coordinator")
"""Of the program's own making; in a simulation the kits too."""


def round_file(folder: Path, number: int, suffix: str) -> Path:
    """The file of one round in a folder of them."""
    return folder / f"round-{number:05d}.{suffix}"


def round_files(folder: Path, suffix: str) -> list[Path]:
    """All such files, the oldest round first."""
    return sorted(folder.glob(f"round-*.{suffix}"))


@dataclass(frozen=True)
class RunPaths:
    """Where the files and folders of a run lie."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the server's states."""
        return self.path / CHECKPOINTS

    @property
    def ledgers(self) -> Path:
        """Folder of the simulated sites' ledgers, and of what real sites have sent in."""
        return self.path / LEDGERS

    @property
    def evidence(self) -> Path:
        """Folder of what secure aggregation leaves to be verified."""
        return self.path / EVIDENCE

    @property
    def proofs(self) -> Path:
        """Folder of what proves who broke the protocol."""
        return self.path / PROOFS

    @property
    def oracle(self) -> Path:
        """Folder of what only a simulation knows."""
        return self.path / ORACLE

    @property
    def best_file(self) -> Path:
        """Where the best model so far is kept while the run goes on."""
        return self.checkpoints / BEST_FILE

    @property
    def best_model(self) -> Path:
        """Model folder of the best model by released metric, beside the last one."""
        return self.path / BEST

    def ledger(self, site: str) -> Path:
        """Where the ledger of a site lies."""
        return self.ledgers / f"{site}.jsonl"

    @property
    def report_file(self) -> Path:
        """Where the report is written."""
        return self.path / REPORT_FILE

    @property
    def changed(self) -> float:
        """When settings or metrics were last written, in seconds since 1970."""
        there = [self.path / name for name in (SETTINGS_FILE, METRICS_FILE) if (self.path / name).exists()]
        return max(path.stat().st_mtime for path in there)

    @property
    def heads_file(self) -> Path:
        """Where a simulation keeps the sites' newest attestations."""
        return self.path / HEADS_FILE

    @property
    def catalogue_file(self) -> Path:
        """Where the public catalogue of a simulation lies."""
        return self.path / CATALOGUE_FILE

    @property
    def has_roster(self) -> bool:
        """Whether a roster lies in the folder."""
        return (self.path / ROSTER_FILE).exists()
