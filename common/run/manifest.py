"""``manifest.json``: what a coordinator signs of a whole run when it is over, so that no file of it can be exchanged.

The records of the rounds are signed one by one (``RoundRecord``); the manifest adds the files around them, the result, and
which record was the last. Not in it: what only a simulation's oracle knows, ledgers (signed by their sites), the report (made from
the rest), and run.toml, whose public part is in the plan.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import VerificationError
from common.run.files import RunFolder
from common.run.paths import (
    BEST,
    CATALOGUE_FILE,
    CHECKPOINTS,
    COUNTERSIGNED_FILE,
    EVIDENCE,
    ITEM_OF_FILE,
    MARKET_FILE,
    MASKS_FILE,
    METADATA_FILE,
    PLAN_FILE,
    PROOFS,
    WEIGHTS_FILE,
    round_files,
)
from common.run.records import Summary
from common.strict_json import one_line
from common.trust import ROSTER_FILE, Identity, verify_signature

FILES = (
    PLAN_FILE, ROSTER_FILE, MASKS_FILE, ITEM_OF_FILE, CATALOGUE_FILE, MARKET_FILE, COUNTERSIGNED_FILE, WEIGHTS_FILE,
    METADATA_FILE, f"{BEST}/{WEIGHTS_FILE}", f"{BEST}/{METADATA_FILE}",
)  # fmt: skip
SEALED_FOLDERS = (CHECKPOINTS, EVIDENCE, PROOFS)
FIXED = (MASKS_FILE, ITEM_OF_FILE, CATALOGUE_FILE, MARKET_FILE)
"""What does not change after the first record, which names it: the sites sign that record at the close."""
LEFT_OUT = (CHECKPOINTS, WEIGHTS_FILE, BEST, MASKS_FILE, ITEM_OF_FILE)
"""What an export may do without: vectors, and checkpoints, which hold the last record with a simulation's figures."""
_VERSION = 2


def seal_run(folder: RunFolder, summary: Summary, coordinator: Identity) -> None:
    """Sign a run that is over: its files by digest, its result, its last record. Raises: WorkFailedError (disk)."""
    files = {str(path.relative_to(folder.path)): digest_of(path.read_bytes()) for path in sealed_paths(folder)}
    plain = {
        "manifest": _VERSION,
        "run": folder.plan().run,
        "last": folder.last_record(),
        "result": result_of(summary),
        "files": files,
        "facts": facts_digest(folder),
    }
    folder.write_manifest(plain | {"signature": coordinator.sign(_statement(plain)).hex()})


def result_of(summary: Summary) -> dict[str, Any]:
    """What a summary says that follows from the records: the figures of a simulation's oracle left out."""
    return {
        "status": summary.status,
        "rounds": summary.rounds,
        "sums": summary.sums,
        "released": summary.metrics.get("released", {}),
        "public": summary.metrics.get("public", {}),
        "epsilon": summary.epsilon,
        "aggregation": summary.aggregation,
        "private": summary.private,
        "notes": list(summary.notes),
        "error": [summary.error, summary.hint, summary.exit_code],
    }


def facts_digest(folder: RunFolder) -> str:
    """SHA-256 (hex) of what a simulation wrote before round 1, its counts of the data left out; empty if it wrote nothing.

    Raises: BadInputError.
    """
    facts = folder.facts()
    if facts is None:
        return ""
    plain = facts.to_json() | {"data": {}, "out": ""}
    return hashlib.sha256(b"fedcart/facts/1\0" + one_line(plain).encode()).hexdigest()


def check_manifest(manifest: Mapping[str, Any], public_key: bytes) -> None:
    """Return if a coordinator with this key signed the manifest. Raises: VerificationError."""
    plain = dict(manifest)
    try:
        signature = bytes.fromhex(plain.pop("signature"))
        if plain["manifest"] != _VERSION or not isinstance(plain["files"], dict):
            raise ValueError
        statement = _statement(plain)
    except (KeyError, ValueError, TypeError):
        raise VerificationError("the manifest is not one of this version") from None
    verify_signature(public_key, statement, signature)


def is_sealed_name(name: str) -> bool:
    """Whether a manifest may speak of a file of this name: nothing outside the run folder, nothing that it leaves out."""
    folder, _, file = name.rpartition("/")
    return name in FILES or (
        folder in SEALED_FOLDERS and re.fullmatch(r"round-\d+\.(json|safetensors)", file) is not None
    )


def sealed_paths(folder: RunFolder) -> list[Path]:
    """The files of a run that a manifest has to name."""
    paths = [folder.path / name for name in FILES]
    paths += [*round_files(folder.checkpoints, "safetensors"), *round_files(folder.evidence, "json")]
    paths += round_files(folder.proofs, "json")
    return [path for path in paths if path.is_file()]


def fixed_files(folder: RunFolder) -> dict[str, str]:
    """Name -> SHA-256 (hex) of the public files that are fixed with the first record, as far as they are there."""
    there = [name for name in FIXED if (folder.path / name).is_file()]
    return {name: digest_of((folder.path / name).read_bytes()) for name in there}


def digest_of(data: bytes) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(data).hexdigest()


def _statement(plain: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(b"fedcart/manifest/1\0" + one_line(plain).encode()).digest()
