"""Cost of secure aggregation: CPU time of one site and of the server, bytes, and how near the cipher's limit.

``python -m benchmarks.secagg [--smoke]`` prints one JSON object per line:

* ``limit``: what AES-256-CTR plus addition reaches here, the bound of any protocol with such masks;
* ``round``: sites x coordinates x fraction lost after exchange 3. ``site_ms`` is the site that was least
  disturbed by other processes: all five answers from request bytes to answer bytes, with quantization;
  ``mask_share_of_limit`` = time of its keystreams at the limit / time of its ``mask`` step;
  ``server_ms`` is the whole round, the least of three replays;
* ``legacy``: Flower's legacy SecAgg functions on the same number of sites and coordinates, right after.

Only ratios within one run mean anything. Every sum is compared with the plain sum of the survivors.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks import _legacy_secagg as legacy_secagg
from common.secagg import fixedpoint, messages
from common.secagg.client import ClientProtocol, LocalSite
from common.secagg.messages import Session
from common.secagg.server import ServerProtocol
from common.strict_json import finite
from common.trust import add_masks
from common.trust.crypto import BLOCK_BYTES, aes_ctr
from tests.secagg_rounds import Federation, ask, build

FULL = [(10, 100_000), (10, 1_000_000), (50, 100_000), (50, 1_000_000), (100, 100_000), (100, 1_000_000)]
SMOKE = [(4, 10_000)]
LOST = (0.0, 0.1, 0.3)
LEGACY = {(10, 1_000_000), (50, 100_000), *SMOKE}


class ForgetfulJournal:
    """Allows all: the same round is replayed with other losses. Never outside a benchmark."""

    def record(self, session: Session, step: str, value: bytes) -> None:
        """Record nothing."""


@dataclass
class Run:
    """One cohort up to its masked vectors, which all the fractions of loss share."""

    federation: Federation
    answers: dict[str, dict[str, bytes]] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)
    site_s: dict[str, float] = field(default_factory=dict)
    mask_s: dict[str, float] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)


def main(smoke: bool = False) -> None:
    """Print the measurements as JSON lines."""
    for sites, length in SMOKE if smoke else FULL:
        limit = keystream_limit(length)
        emit(
            "limit",
            coordinates=length,
            gigabytes_per_s=limit / 1e9,
            add_masks_share=add_masks_share(length, limit),
        )
        run = first_half(sites, length)
        results = [second_half(run, fraction, limit) for fraction in LOST]
        if (sites, length) in LEGACY:
            compare(run, results[0], sites, length)


def keystream_limit(length: int) -> float:
    """Bytes per second of AES-256-CTR plus addition in cache-sized blocks, best of five."""
    size = min(4 * length, BLOCK_BYTES)
    zeros, buffer = bytes(size), bytearray(size + 16)
    words, total = np.frombuffer(buffer, dtype="<u4", count=size // 4), np.zeros(size // 4, dtype=np.uint32)
    stream, repeats = aes_ctr(bytes(32)), max(1, (1 << 25) // size)

    def once() -> None:
        for _ in range(repeats):
            stream.update_into(zeros, buffer)
            np.add(total, words, out=total)

    return size * repeats / min(timed(once) for _ in range(5))


def add_masks_share(length: int, limit: float) -> float:
    """Part of the limit that ten masks over a whole vector reach."""
    vector, masks = np.zeros(length, dtype=np.uint32), [(bytes([i]) * 32, 1 if i % 2 else -1) for i in range(10)]
    return 40 * length / limit / min(timed(lambda: add_masks(vector, masks)) for _ in range(5))


def first_half(sites: int, length: int) -> Run:
    """Everything up to mask at every site; the masked vectors are kept as bytes."""
    federation = build(sites, length=length)
    federation.sites = {n: replace(s, journal=ForgetfulJournal()) for n, s in federation.sites.items()}
    federation.clients = {n: ClientProtocol(s, federation.params) for n, s in federation.sites.items()}
    real = np.random.default_rng(0).normal(size=length)
    quantize_s = min(timed(lambda: fixedpoint.quantize(real, federation.params.blocks)) for _ in range(3))
    run = Run(
        federation, site_s=dict.fromkeys(federation.names, quantize_s), bytes_up=dict.fromkeys(federation.names, 0)
    )
    server = federation.server
    for phase in ("advertise", "share", "accept", "mask"):
        run.answers[phase] = {n: answered(run, n, request) for n, request in server.requests().items()}
        for name, answer in run.answers[phase].items():
            server.receive(name, answer)
        server.advance()
    run.states = {n: c.to_state() for n, c in federation.clients.items()}
    return run


def answered(run: Run, name: str, request: messages.Request) -> bytes:
    """The site's answer from bytes to bytes; time and size are added to its account."""
    raw, client = messages.encode(request), run.federation.clients[name]
    vector, contribution = run.federation.vectors[name], bytes(32)
    start = time.process_time()
    decoded = messages.decode(type(request), raw)
    inner = time.process_time()
    answer = ask(client, decoded, vector, contribution)
    if isinstance(request, messages.AcceptedList):
        run.mask_s[name] = time.process_time() - inner
    encoded = messages.encode(answer)
    run.site_s[name] += time.process_time() - start
    run.bytes_up[name] += len(encoded)
    return encoded


def second_half(run: Run, fraction: float, limit: float) -> dict[str, float]:
    """Finish the round with some sites lost after exchange 3."""
    federation, before, sizes = run.federation, dict(run.site_s), dict(run.bytes_up)
    sites, length = len(federation.names), federation.params.vector_length
    gone = set(federation.names[: round(fraction * sites)])
    local: dict[str, LocalSite] = federation.sites
    federation.clients = {n: ClientProtocol.from_state(local[n], state) for n, state in run.states.items()}
    answers = {**run.answers, "mask": {n: a for n, a in run.answers["mask"].items() if n not in gone}}
    server = ServerProtocol(federation.params)
    first_s = replay(server, answers, run)
    check(federation, server)
    again_s = [replay(ServerProtocol(federation.params), answers, run) for _ in range(2)]
    row = {
        "site_ms": 1000 * min(run.site_s[n] for n in server.result.survivors),
        "server_ms": 1000 * min(first_s, *again_s),
        "mask_share_of_limit": 4 * length * sites / limit / min(run.mask_s.values()),
        "upload_bytes": max(run.bytes_up.values()),
        "upload_bytes_over_vector": max(run.bytes_up.values()) - 4 * length,
    }
    run.site_s, run.bytes_up = before, sizes
    emit("round", sites=sites, coordinates=length, lost=fraction, **row)
    return row


def replay(server: ServerProtocol, answers: dict[str, dict[str, bytes]], run: Run) -> float:
    """CPU seconds of the server for a whole round; answers that are not there yet are asked for."""
    spent = 0.0
    while not server.finished:
        start = time.process_time()
        requests, phase = server.requests(), server.phase
        for request in {id(r): r for r in requests.values()}.values():
            messages.encode(request)
        spent += time.process_time() - start
        if phase not in answers:
            answers[phase] = {n: answered(run, n, request) for n, request in requests.items()}
        start = time.process_time()
        for name, answer in answers[phase].items():
            server.receive(name, answer)
        server.advance()
        spent += time.process_time() - start
    return spent


def check(federation: Federation, server: ServerProtocol) -> None:
    """Stop if the sum is not that of the survivors, bit for bit."""
    survivors = server.result.survivors
    if not np.array_equal(server.result.ring_sum, federation.plain_sum(survivors)):
        raise SystemExit(f"wrong sum of {len(survivors)} sites")


def compare(run: Run, row: dict[str, float], sites: int, length: int) -> None:
    """The legacy functions on the same task, and by how much they cost more."""
    vector = np.random.default_rng(0).normal(size=length)
    legacy = legacy_secagg.measure(sites, vector, 0, run.federation.params.threshold)
    emit(
        "legacy",
        sites=sites,
        coordinates=length,
        legacy_site_ms=1000 * legacy.site_s,
        legacy_server_ms=1000 * legacy.server_s,
        legacy_upload_bytes=legacy.upload_bytes,
        site_times_less=1000 * legacy.site_s / row["site_ms"],
        server_times_less=1000 * legacy.server_s / row["server_ms"],
        bytes_ratio=row["upload_bytes"] / legacy.upload_bytes,
    )


def timed(work: object) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - start


def emit(what: str, **values: float) -> None:
    """One JSON line."""
    rounded = {k: v if isinstance(v, int) else round(v, 3) for k, v in values.items()}
    print(json.dumps(finite({"benchmark": "secagg", "what": what, **rounded}), allow_nan=False), flush=True)


if __name__ == "__main__":
    main("--smoke" in sys.argv)
