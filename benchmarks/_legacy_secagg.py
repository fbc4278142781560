"""Flower's legacy SecAgg+ (all-pairs: plain SecAgg) as a yardstick: its own functions, timed.

The client half is Flower's four stage functions. Its server half lives inside a workflow that needs a
running Grid, so the same library calls are made here in the same order. To save time only the first site
masks a vector; the others send a copy, which costs the server the same.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.common import ConfigRecord, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation.crypto import shamir
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from numpy.typing import NDArray

# The package exports a function under the module's name.
mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
MODULUS = 1 << 32
TARGET_RANGE = 1 << 22


@dataclass(frozen=True)
class LegacyCost:
    """CPU seconds of one site and of the server, and bytes that the site sends."""

    site_s: float
    server_s: float
    upload_bytes: int


def measure(sites: int, vector: NDArray[np.float64], lost: int, threshold: int) -> LegacyCost:
    """CPU seconds of one site and of the server for one round, and the first site's upload."""
    requests = {nid: _setup_request(nid, sites, threshold) for nid in range(1, sites + 1)}
    states = {nid: state for nid, (state, _) in requests.items()}
    keys, site_s = {}, 0.0
    for nid, (state, configs) in requests.items():
        start = time.process_time()
        keys[nid] = mod._setup(state, configs)
        site_s += time.process_time() - start if nid == 1 else 0.0
    public = {str(nid): [k[Key.PUBLIC_KEY_1], k[Key.PUBLIC_KEY_2]] for nid, k in keys.items()}
    dealt = {}
    for nid, state in states.items():
        start = time.process_time()
        dealt[nid] = mod._share_keys(state, ConfigRecord(dict(public)))
        site_s += time.process_time() - start if nid == 1 else 0.0
    sources, boxes = _routed(dealt)
    parameters = ndarrays_to_parameters([vector])
    start = time.process_time()
    configs = ConfigRecord({Key.CIPHERTEXT_LIST: boxes[1], Key.SOURCE_LIST: sources[1]})
    masked = mod._collect_masked_vectors(states[1], configs, 1, parameters)[Key.MASKED_PARAMETERS]
    site_s += time.process_time() - start
    for nid in range(2, sites + 1):
        _hold_shares(states[nid], sources[nid], boxes[nid])
    alive = list(range(1, sites - lost + 1))
    dead = list(range(sites - lost + 1, sites + 1))
    revealed, reveal_s = _revealed(states, alive, dead)
    upload = sum(len(part) for part in (*masked, *dealt[1][Key.CIPHERTEXT_LIST], *revealed[1][Key.SHARE_LIST]))
    upload += len(states[1].pk1) + len(states[1].pk2)
    return LegacyCost(site_s + reveal_s, _server(masked, revealed, states, alive, threshold), upload)


def _setup_request(nid: int, sites: int, threshold: int) -> tuple[Any, ConfigRecord]:
    state = mod.SecAggPlusState()
    state.nid = nid
    settings = {
        Key.SAMPLE_NUMBER: sites,
        Key.SHARE_NUMBER: sites,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: 4.0,
        Key.TARGET_RANGE: TARGET_RANGE,
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    return state, ConfigRecord(settings)


def _routed(dealt: dict[int, dict]) -> tuple[dict[int, list[int]], dict[int, list[bytes]]]:
    sources: dict[int, list[int]] = {nid: [] for nid in dealt}
    boxes: dict[int, list[bytes]] = {nid: [] for nid in dealt}
    for source, answer in dealt.items():
        for holder, box in zip(answer[Key.DESTINATION_LIST], answer[Key.CIPHERTEXT_LIST], strict=True):
            sources[holder].append(source)
            boxes[holder].append(box)
    return sources, boxes


def _hold_shares(state: Any, sources: list[int], boxes: list[bytes]) -> None:
    for source, box in zip(sources, boxes, strict=True):
        plain = mod.decrypt(state.ss2_dict[source], box)
        _, _, seed, key = mod.share_keys_plaintext_separate(plain)
        state.rd_seed_share_dict[source], state.sk1_share_dict[source] = seed, key


def _revealed(states: dict, alive: list[int], dead: list[int]) -> tuple[dict[int, dict], float]:
    answers, first_s = {}, 0.0
    for nid in alive:
        start = time.process_time()
        configs = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: alive, Key.DEAD_NODE_ID_LIST: dead})
        answers[nid] = mod._unmask(states[nid], configs)
        first_s = first_s or time.process_time() - start
    return answers, first_s


def _server(masked: list[bytes], revealed: dict, states: dict, alive: list[int], threshold: int) -> float:
    public = {nid: state.pk1 for nid, state in states.items()}
    start = time.process_time()
    total = [bytes_to_ndarray(part) for part in masked]
    for _ in alive[1:]:
        total = arithmetic.parameters_addition(total, [bytes_to_ndarray(part) for part in masked])
    total = arithmetic.parameters_mod(total, MODULUS)
    shapes = arithmetic.get_parameters_shape(total)
    shares: dict[int, list[bytes]] = {nid: [] for nid in states}
    for answer in revealed.values():
        for owner, share in zip(answer[Key.NODE_ID_LIST], answer[Key.SHARE_LIST], strict=True):
            shares[owner].append(share)
    for nid, held in shares.items():
        secret = shamir.combine_shares(held)
        if nid in alive:
            total = arithmetic.parameters_subtraction(total, pseudo_rand_gen(secret, MODULUS, shapes))
            continue
        private = bytes_to_private_key(secret)
        for peer in alive:
            seed = generate_shared_key(private, bytes_to_public_key(public[peer]))
            total = arithmetic.parameters_addition(total, pseudo_rand_gen(seed, MODULUS, shapes))
    arithmetic.parameters_mod(total, MODULUS)
    assert len(revealed) >= threshold
    return time.process_time() - start
