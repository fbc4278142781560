"""What a site may attest: a statement that is out of bounds is not read."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import pytest

from common.errors import FedcartError
from common.privacy.accountant import epsilon_of, round_up
from common.privacy.attestation import Attestation, SignedAttestation
from common.privacy.mechanism import PrivacyEvent


def attested(**changes: Any) -> dict[str, Any]:
    event = PrivacyEvent(1.0, 0.1, 10)
    epsilon = round_up(epsilon_of((event,), 1e-5))
    plain = asdict(
        Attestation(
            "shop", "shop", "run", 1, 1, "ab" * 32, (event,), (event,), 1, "cd" * 32, 0.0, epsilon, 8.0, False, 1e-5, 8.0,
            False,
        )
    )  # fmt: skip
    return {"attestation": plain | changes, "signature": "00" * 64}


def event(**changes: Any) -> dict[str, Any]:
    return asdict(PrivacyEvent(1.0, 0.1, 10)) | changes


HOSTILE_STATEMENTS = {
    "delta of which epsilon is 0": attested(delta=0.99),
    "no delta": attested(delta=0.0),
    "a delta below all": attested(delta=1e-320),
    "steps of 400 digits": attested(totals=[event(steps=10**400)]),
    "steps of 18 digits": attested(totals=[event(steps=10**18)]),
    "noise below all": attested(totals=[event(noise_multiplier=1e-300)]),
    "noise above all": attested(totals=[event(noise_multiplier=1e300)]),
    "a rate below all": attested(totals=[event(sampling_rate=1e-300)]),
    "seventeen planned mechanisms": attested(totals=[event(noise_multiplier=1 + n / 99) for n in range(17)]),
    "three thousand mechanisms": attested(
        adaptive=True, totals=[event(noise_multiplier=1 + n / 9_999) for n in range(3_000)]
    ),
    "an order of 1": attested(adaptive=True, order=1.0),
    "an order above all": attested(adaptive=True, order=1e300),
    "a sequence below 0": attested(sequence=-5),
    "a sequence of 400 digits": attested(sequence=10**400),
    "a round below 0": attested(round=-1),
    "a limit that is none": attested(limit=-1.0),
    "a scope with a terminal's orders": attested(scope="\x1b[2J"),
    "a scope of a megabyte": attested(scope="x" * 1_000_000),
    "a run with a path": attested(run="../../etc"),
    "a head that is none": attested(head="x"),
    "a signature of a megabyte": attested() | {"signature": "00" * 1_000_000},
}
HOSTILE_TEXTS = {
    "bytes": b"\xff\xfe",
    "a number": 5,
    "a list": [1],
    "nothing": None,
    "no JSON": "{",
    "a number of 5,000 digits": '{"attestation": ' + "9" * 5_000 + "}",
    "an exponent of two signs": '{"attestation": 1e+-300}',
    "an exponent above all": '{"attestation": 1e999}',
    "not a number": '{"attestation": NaN}',
    "infinite": '{"attestation": -Infinity}',
    "nested without end": "[" * 100_000,
    "nested, and closed": "[" * 60_000 + "]" * 60_000,
    "nested objects": '{"a":' * 40_000 + "1" + "}" * 40_000,
    "a name twice": '{"signature": "", "signature": ""}',
    "quotes": '"' + '\\"' * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE_STATEMENTS)
def test_no_statement_out_of_bounds_is_read(name: str) -> None:
    with pytest.raises(FedcartError):
        SignedAttestation.from_text(json.dumps(HOSTILE_STATEMENTS[name]))


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_no_text_that_is_no_statement_is_read(name: str) -> None:
    began = time.process_time()
    with pytest.raises(FedcartError):
        SignedAttestation.from_text(HOSTILE_TEXTS[name])
    assert time.process_time() - began < 1


def test_an_honest_statement_is_read() -> None:
    assert SignedAttestation.from_text(json.dumps(attested())).attestation.sequence == 1


@pytest.mark.parametrize(
    ("events", "order"),
    [
        ([PrivacyEvent(0.1, 0.5, 10**6)], None),
        ([PrivacyEvent(1e-6, 0.5, 10**12)], None),
        ([PrivacyEvent(1e9, 0.5, 10**12)], None),
        ([PrivacyEvent(0.3, 1e-9, 10**12)], None),
        ([PrivacyEvent(50.0, 0.001, 10**9)], None),
        ([PrivacyEvent(1 + n / 9_999, 0.1, 10**9) for n in range(256)], 7.3),
    ],
)
def test_what_is_in_bounds_costs_its_reader_seconds_at_most(
    events: list[PrivacyEvent], order: float | None
) -> None:
    epsilon_of((PrivacyEvent(1.0, 0.5, 1),), 1e-5)
    began = time.process_time()
    assert epsilon_of(events, 1e-5, order) >= 0
    assert time.process_time() - began < 5
