"""The two files of a model, wherever they lie: what its coordinator signs of them, and the mark of one that never leaves.

No torch: a site verifies a model that it receives with this, in a process that answers messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import BadInputError, VerificationError
from common.strict_json import one_line, readable
from common.trust import Identity, verify_signature

WEIGHTS_FILE, METADATA_FILE = "model.safetensors", "model.json"
FORMAT = "fedcart-model/1"
NEVER_LEAVES = "fedcart: made of one site's own consumers, never leaves that site"
"""Stands in the header of every personal model's file, so that no new name takes it away."""
MAX_DOCUMENT_BYTES = 1 << 22
MAX_HEADER_BYTES = 1 << 20  # of a file of weights: the names and places of its tensors
_HEADER_READ = MAX_HEADER_BYTES + 8
_HINT = "use a model folder written by fedcart, with both files from the same run"


def signed_document(
    weights: bytes, layout: list[list[Any]], layout_digest: str, metadata: Mapping[str, Any], signer: Identity
) -> bytes:
    """``model.json`` for these weights, signed by the coordinator. ``layout``: name and shape of each tensor."""
    document = {
        "format": FORMAT,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "layout": layout,
        "layout_digest": layout_digest,
        "metadata": dict(metadata),
        "coordinator": signer.public_key.hex(),
    }
    document["signature"] = signer.sign(statement_of(document)).hex()
    return readable(document).encode()


def read_document(raw: bytes, where: str) -> dict[str, Any]:
    """The content of a ``model.json``, its signature not looked at. Raises: BadInputError if it is none."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise BadInputError(f"{where} has {len(raw)} bytes, at most {MAX_DOCUMENT_BYTES} are read", hint=_HINT)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadInputError(f"{where} is not JSON", hint=_HINT) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadInputError(f"{where} is not of format {FORMAT}", hint=_HINT)
    return document


def verify_document(document: Mapping[str, Any], weights: bytes, where: str) -> bytes:
    """The public key of the coordinator who signed a document, which names these very weights.

    Raises: BadInputError for a personal model; VerificationError if the signature or the digest does not hold.
    """
    refuse_personal(weights, where)
    if hashlib.sha256(weights).hexdigest() != document.get("sha256"):
        raise VerificationError(
            f"{where}: {WEIGHTS_FILE} does not have the digest named in {METADATA_FILE}", hint=_HINT
        )
    return signer_of(document, where)


def signer_of(document: Mapping[str, Any], where: str) -> bytes:
    """The public key that signed a document, whatever lies beside it. Raises: VerificationError."""
    try:
        key, signature = bytes.fromhex(document["coordinator"]), bytes.fromhex(document["signature"])
        verify_signature(key, statement_of(document), signature)
    except (KeyError, TypeError, ValueError, VerificationError):
        raise VerificationError(
            f"{where} is not signed by the coordinator that it names",
            hint="it was edited, or is of an older program: take the model again from who trained it",
        ) from None
    return key


def statement_of(document: Mapping[str, Any]) -> bytes:
    """What the coordinator signs: SHA-256 of all but the signature."""
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    return hashlib.sha256(b"fedcart/model-file/1\0" + one_line(unsigned).encode()).digest()


def is_personal(weights: bytes) -> bool:
    """Whether a file of weights bears the mark of a personal model in its header."""
    size = int.from_bytes(weights[:8], "little")
    return NEVER_LEAVES.encode() in weights[8 : 8 + min(size, MAX_HEADER_BYTES)]


def refuse_personal(weights: bytes, where: str) -> None:
    """Return if the file is not a personal model. Raises: BadInputError."""
    if is_personal(weights):
        raise BadInputError(
            f"{where} is a personal model: it was made of one site's own consumers without noise, and never leaves the site",
            hint="use the shared model; a personal one serves `fedcart predict`, `detect`, `forecast` and `explain`",
        )


def refuse_personal_file(path: Path) -> None:
    """Return if no personal model lies at a path, whatever its name. Raises: BadInputError."""
    if path.is_file():
        with path.open("rb") as file:
            refuse_personal(file.read(_HEADER_READ), str(path))
