"""Our own frozen transcript: fixed seeds give these very bytes, so the format cannot change unnoticed.

If a change of the protocol is wanted: raise the format version, say so in CHANGELOG, and print the new
digests with ``python -m tests.vectors.test_secagg_transcript``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from tests.secagg_rounds import Federation, build

FROZEN = Path(__file__).with_name("secagg_transcript.json")


def transcript() -> tuple[dict[str, str], Federation]:
    """Four sites, one of them lost before its masked vector."""
    federation = build(4, length=6, seeded=True)
    for i, vector in enumerate(federation.vectors.values()):
        vector[:] = np.arange(i, i + 6, dtype=np.uint32)
    lost = {(phase, "site-2") for phase in ("mask", "confirm", "unmask")}
    result = federation.run_until("done", lost).result
    digests = {}
    for (phase, site), (request, answer) in federation.sent.items():
        digests[f"{phase} to {site}"] = hashlib.sha256(request).hexdigest()
        digests[f"{phase} from {site}"] = hashlib.sha256(answer).hexdigest()
    digests["salt"] = federation.params.salt.hex()
    digests["sum"] = result.evidence.sum_digest.hex()
    digests["evidence"] = hashlib.sha256(result.evidence.to_bytes()).hexdigest()
    return digests, federation


def test_every_message_of_the_frozen_transcript_is_as_it_was() -> None:
    digests, federation = transcript()
    assert digests == json.loads(FROZEN.read_text())
    assert federation.server.result.ring_sum.tolist() == [4, 7, 10, 13, 16, 19]
    assert federation.server.result.survivors == ("site-0", "site-1", "site-3")


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(transcript()[0], indent=1) + "\n")
