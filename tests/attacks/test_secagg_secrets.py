"""What a server, or fewer than t sites, can see of a sum's parts, and where a secret must not stand."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import (
    RemoteProtocolError,
)
from common.secagg import messages
from common.secagg.server import EXCHANGES
from common.trust.crypto import add_masks
from common.trust.identity import Identity
from tests.hostile_secagg import KINDS, S
from tests.secagg_rounds import build

# --- what the server sees


def test_masked_vectors_look_uniform() -> None:
    # Chi-square over 256 byte values at the most revealing input, zero; fixed seeds, so it cannot flicker.
    federation = build(3, length=60_000, seeded=True)
    federation.vectors = {site: np.zeros(60_000, dtype=np.uint32) for site in federation.names}
    server = federation.run_until("mask")
    total = np.zeros(60_000, dtype=np.uint32)
    for site, request in server.requests().items():
        ring = federation.answer(site, request).ring
        total += ring
        for shift in (0, 8, 16, 24):
            counts = np.bincount((ring >> shift) & 0xFF, minlength=256)
            expected = ring.size / 256
            statistic = float(((counts - expected) ** 2 / expected).sum())
            assert 160 < statistic < 360  # 255 degrees of freedom: 1e-6 on either side
    assert len(np.unique(total)) > 59_000  # the self masks are still in the sum


def test_shares_of_less_than_t_sites_leave_the_sum_masked() -> None:
    # A server with the shares of t-1 colluding sites: what it reconstructs is neither the seed nor the mask key.
    from common.secagg import shamir
    from common.trust.curve import scalar_of

    federation = build(4)
    federation.run_until("mask")
    own = [federation.clients[site]._state.secrets for site in federation.names]
    held = {site: federation.clients[site]._state.held for site in S[:3]}
    for count in (2, 3):
        points = [federation.params.positions[site] + 1 for site in S[:count]]
        weights = shamir.lagrange_coefficients(points)
        for i, secrets in enumerate(own):
            seed = shamir.interpolate(weights, [held[site][i].seed_share for site in S[:count]])
            key = shamir.interpolate(weights, [held[site][i].key_share for site in S[:count]])
            opened = seed == int.from_bytes(secrets.seed, "big"), key == scalar_of(secrets.mask_key)
            assert opened == ((True, True) if count == federation.params.threshold else (False, False))


def test_a_survivors_vector_stays_masked_by_its_own_seed_when_its_pair_masks_are_known() -> None:
    # All other sites collude: the pairwise masks of site-0 fall, its self mask does not (until unmask).
    federation = build(3)
    server = federation.run_until("mask")
    request = server.requests()[S[0]]
    from common.secagg import masks
    from common.trust.crypto import x25519_agreement
    from common.trust.curve import exchange_secret, to_exchange

    masked = federation.answer(S[0], request).ring.copy()
    public = to_exchange(next(a for a in server._u1.advertisements if a.site == S[0]).mask_key)
    for peer in S[1:3]:
        secret = federation.clients[peer]._state.secrets.mask_key
        agree = x25519_agreement(exchange_secret(secret))
        add_masks(masked, [masks.pair_mask(federation.params, agree(public), (peer, S[0]))])
    difference = masked - federation.vectors[S[0]]
    assert len(np.unique(difference)) == difference.size


# --- secrets


def test_no_secret_is_in_any_repr_error_or_evidence() -> None:
    federation = build(4)
    shown, secrets = [], []
    for phase in (*EXCHANGES, "done"):
        federation.run_until(phase, {("mask", S[3])})
        for site in federation.names:
            client = federation.clients[site]
            state = client._state
            shown += [
                repr(client),
                repr(state),
                repr(state.secrets),
                repr(state.held),
                repr(federation.sites[site]),
            ]
            if state.secrets is not None:
                secrets += [secret for secret in vars(state.secrets).values() if secret]
            secrets += [value for h in state.held for value in (h.seed_share, h.key_share)]
        shown += [repr(federation.server), repr(federation.server.requests())]
    result = federation.server.result
    shown += [repr(result), repr(result.evidence), result.evidence.to_json(), repr(federation.roster)]
    shown += [repr(messages.decode(KINDS[p], raw)) for (p, _), (raw, _) in federation.sent.items()]
    secrets += [vector.tobytes()[:16] for vector in federation.vectors.values()]
    assert len(secrets) > 40
    text = "\n".join(shown)
    for secret in secrets:
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
    assert repr(Identity.generate("x")).count("public_key") == 1


def test_a_site_forgets_its_secrets_after_masking_its_shares_after_revealing_and_all_when_it_gives_up() -> None:
    federation = build(3)
    federation.run_until("mask")
    kept = federation.clients[S[0]]._state
    owned = (kept.secrets.seed, kept.secrets.mask_key)
    assert kept.secrets.channel_key == b""
    federation.run_until("confirm")
    assert not any(secret in federation.clients[S[0]].to_state() for secret in owned)
    held = [h.key_share for h in federation.clients[S[0]]._state.held]
    federation.run_until("done")
    assert not any(share in federation.clients[S[0]].to_state() for share in held)
    other = build(3)
    other.run_until("mask")
    other.clients[S[0]].close()
    assert other.clients[S[0]]._state.secrets is None
    assert other.clients[S[0]].phase == "closed"
    with pytest.raises(RemoteProtocolError):
        other.clients[S[0]].advertise()


def test_the_wire_never_carries_a_secret_or_a_plain_vector() -> None:
    federation = build(3)
    federation.run_until("mask")
    secrets = [s for c in federation.clients.values() for s in vars(c._state.secrets).values() if s]
    federation.run_until("confirm")
    secrets += [h.key_share for c in federation.clients.values() for h in c._state.held]
    secrets += [vector.tobytes()[:12] for vector in federation.vectors.values()]
    federation.run_until("done")
    sent = b"".join(part for pair in federation.sent.values() for part in pair)
    assert not any(secret in sent for secret in secrets)
