"""One site, or whoever speaks as the coordinator, sends anything: it is refused with an error of ours, and only it is lost."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from client import session
from common import wire
from common.contribution import TRAIN, Query
from common.errors import ConfigError, FedcartError, RefusedError
from common.privacy.accountant import epsilon_of, round_up
from common.privacy.attestation import Attestation, AttestedHeads, SignedAttestation, witness_of
from common.run import FAREWELL, PROPOSAL, Closing, PerformanceSettings, RunPlan
from common.run.files import RunFolder
from common.secagg import messages
from common.secagg.messages import Params
from common.secagg.server import EXCHANGES, ServerProtocol
from server.admission import Admission, HeadsBook
from tests.attacks.test_site_under_a_hostile_server import World
from tests.guard_samples import IDENTITY, ROSTER
from tests.hostile_values import Edits, changed, changed_bytes, edits, nested
from tests.secagg_rounds import REQUESTS, Federation, build
from tests.signed_runs import MODEL, signed_run

# --- structure-aware fuzzing of both sides


def refused(what: Callable[[], object]) -> bool:
    """Whether it was refused with an error of ours, by a check and not by the last resort."""
    try:
        what()
    except FedcartError as error:
        if re.search(r"unexpected [A-Z]", error.message):
            raise AssertionError("a check is missing") from error
        return True
    return False


@cache
def transcript() -> Federation:
    federation = build(4, length=6)
    federation.run_until("done", {("mask", "site-3")})
    return federation


def as_plain(data: bytes) -> Any:
    return cbor2.loads(data)


def hostile_bytes(data: bytes, changes: Edits) -> bytes:
    """Mutated in its structure where it is CBOR, else byte by byte."""
    if data[:1] != b"\x83" or changes[0][1] % 3 == 0:
        return changed_bytes(data, changes)
    try:
        return cbor2.dumps(changed(as_plain(data), changes), canonical=changes[0][1] % 5 != 0)
    except Exception:  # cbor2 writes none of this: take it for bytes
        return changed_bytes(data, changes)


def server_at(phase: str) -> ServerProtocol:
    """The server of a real session, with nobody's answer to this exchange yet."""
    federation, server = transcript(), ServerProtocol(transcript().params)
    for step in EXCHANGES[: EXCHANGES.index(phase)]:
        for site in federation.names:
            if (step, site) in federation.sent:
                server.receive(site, federation.sent[step, site][1])
        server.advance()
    return server


def fuzz_server(phase: str, source: str, changes: Edits) -> None:
    federation = transcript()
    server = server_at(phase)
    site = "site-0"
    data = hostile_bytes(federation.sent[source, site][1], changes)
    honest = federation.sent[phase, site][1]
    if refused(lambda: server.receive(site, data)):
        server.receive(site, honest)  # nothing had changed
    assert site not in server.waiting_for


def fuzz_client(phase: str, source: str, changes: Edits) -> None:
    federation = build(4, length=6, seeded=True)
    federation.run_until(phase, {("mask", "site-3")} if phase in EXCHANGES[4:] else ())
    honest = messages.encode(federation.server.requests()["site-0"])
    data = hostile_bytes(honest if source == phase else transcript().sent[source, "site-0"][0], changes)
    before = federation.clients["site-0"].to_state()

    def answer() -> None:
        request = messages.decode(REQUESTS[phase], data, federation.params)
        if phase != "advertise":  # what comes first makes the machine
            federation.answer("site-0", request)

    if refused(answer):
        assert federation.clients["site-0"].to_state() == before


@cache
def asked_round(folder: Path) -> tuple[RunPlan, Any, SignedAttestation]:
    """A prepared run, its roster, and what an honest site attests of its first round."""
    run = signed_run(RunFolder.create(folder / "run"), {"shop": IDENTITY}, ["training.rounds=2"], (1.0, 3.0))
    query = Query(TRAIN, run.plan.run, 1, run.plan.to_json(), bytes.fromhex(MODEL))
    events = run.plan.events(TRAIN)
    delta = run.plan.config.privacy.delta
    epsilon = round_up(epsilon_of(events, delta))
    said = Attestation(
        "shop", "shop", "run", 1, 1, query.digest().hex(), events, tuple(sorted(events, key=lambda e: e.sub_scope)), 1,
        "ab" * 32, 0.0, epsilon, 8.0, False, delta, 8.0, False, run.roster.digest.hex(), witness_of({}).hex(),
    )  # fmt: skip
    return run.plan, run.roster, SignedAttestation.sign(said, IDENTITY)


def admission_of(folder: Path) -> Admission:
    plan, roster, _ = asked_round(folder)
    query = Query(TRAIN, plan.run, 1, plan.to_json(), bytes.fromhex(MODEL))
    return Admission(plan, query, roster, HeadsBook(folder / "heads.json", AttestedHeads()), witness_of({}), 1)


def test_an_honest_attestation_is_admitted(tmp_path: Path) -> None:
    admission = admission_of(tmp_path)
    admission.admit("shop", {"attestation": json.dumps(asked_round(tmp_path)[2].to_json())})
    assert list(admission.accepted) == ["shop"]


@pytest.mark.parametrize(
    "changes",
    [
        {"delta": 0.05},
        {"run": "other"},
        {"round": 2},
        {"attempt": 2},
        {"witness": "cd" * 32},
        {"roster": "cd" * 32},
        {
            "simulated": True
        },  # then the record of all would fail its verification: a ledger would seem to be missing
    ],
)
def test_what_is_attested_must_be_what_was_asked(tmp_path: Path, changes: dict[str, Any]) -> None:
    said = replace(asked_round(tmp_path)[2].attestation, **changes)
    said = replace(said, epsilon_after=round_up(epsilon_of(said.totals, said.delta)))
    signed = SignedAttestation.sign(said, IDENTITY)
    admission = admission_of(tmp_path)
    with pytest.raises(FedcartError, match=f"another {next(iter(changes))}"):
        admission.admit("shop", {"attestation": json.dumps(signed.to_json())})
    assert not admission.accepted
    assert not admission.book.heads.epsilon()


def fuzz_admission(folder: Path, changes: Edits, sign: bool) -> None:
    """Whatever a site attests, signed by itself where it can be: admitted, or refused with an error of ours."""
    admission = admission_of(folder)
    plain = changed(asked_round(folder)[2].to_json(), changes)
    if sign:  # a hostile site signs what it likes, as far as its program writes it
        try:
            said = SignedAttestation.from_json(json.loads(json.dumps(plain))).attestation
            plain = SignedAttestation.sign(said, IDENTITY).to_json()
        except (FedcartError, TypeError, ValueError):
            pass
    try:
        text = json.dumps(plain, default=lambda value: value.hex())
    except ValueError:
        text = repr(plain)
    if not sign:
        text = changed_bytes(text.encode("utf-8", "replace"), changes[:1]).decode("utf-8", "replace")
    if refused(lambda: admission.admit("shop", {"attestation": text})):
        assert not admission.accepted
    else:
        assert math.isfinite(admission.book.heads.epsilon()["shop"])


def fuzz_plan(folder: Path, changes: Edits, inner: bool) -> None:
    """Whatever stands in plan.json, or in a Query: a plan, or an error of ours."""
    text = asked_round(folder)[0].to_json()
    plain = json.loads(text)
    if inner:
        plain["settings"] = json.dumps(changed(json.loads(plain["settings"]), changes), default=str)
    else:
        plain = changed(plain, changes)
    try:
        text = json.dumps(plain, default=str)
    except ValueError:
        text = repr(plain)
    try:
        plan = RunPlan.from_json(text)
        wire.decode(Query, wire.encode(Query(TRAIN, plan.run, 1, plan.to_json(), bytes(32))), 1 << 22)
    except ConfigError:
        return
    if plan.config.privacy.enabled and not refused(lambda: plan.check_costs(TRAIN)):
        plan.events(TRAIN)
    refused(lambda: plan.blocks(TRAIN))


class Site:
    """A provisioned site that is asked by its own coordinator, who signs anything; it never gets as far as training."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.site = self.world.site

    def fuzz(self, step: str, changes: Edits, sign: bool) -> None:
        honest = self._request(step)
        request = dict(honest)
        for how, where, value in changes:
            name = sorted(request)[where % len(request)]
            request[name] = self._hostile(request[name], [(how, where // 7, value)], sign=sign)
        if sign and "query" in honest:
            self._sign(request)
        memory = session.Memory()
        steps: dict[str, Callable[[], object]] = {
            "advertise": lambda: session.advertise(self.site, request, PerformanceSettings()),
            "contribute": lambda: session.contribute(self.site, request, PerformanceSettings()),
            "propose": lambda: session.propose(self.site, request),
            "close": lambda: session.close(self.site, request),
            "share": lambda: session.share(self.site, request, memory),
        }
        refused(steps[step])

    def _request(self, step: str) -> dict[str, Any]:
        plan, sign = self.world.plan, self.world.coordinator.sign
        if step == "propose":
            return {"plan": plan.to_json(), "signature": sign(PROPOSAL + plan.digest())}
        if step == "close":
            closing = Closing(plan.run, 1, "ab" * 32)
            return {"closing": wire.encode(closing), "signature": sign(closing.statement(FAREWELL))}
        return self.world.request(self.world.query())

    def _sign(self, request: dict[str, Any]) -> None:
        """As far as what was changed is a Query and Params at all, the coordinator signs it."""
        try:
            query = wire.decode(Query, request["query"], 1 << 22)
            request["signature"] = self.world.coordinator.sign(query.digest())
            params = messages.decode(Params, request["message"])
            request["invitation"] = self.world.coordinator.sign(messages.invitation(params))
        except FedcartError:
            return

    def _hostile(self, value: Any, changes: Edits, *, sign: bool) -> Any:
        if not sign and changes[0][1] % 4 == 0:
            return changes[0][2]
        if isinstance(value, bytes):
            return hostile_bytes(value, changes)
        if isinstance(value, str):
            return changed_bytes(value.encode(), changes).decode("utf-8", "replace")
        return changes[0][2]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    def reached(*_: object) -> None:
        raise RefusedError("every check let it through")

    monkeypatch.setattr(session, "_prepare", reached)
    return Site(tmp_path / "world")


phases = st.sampled_from(EXCHANGES)
sources = st.one_of(st.none(), st.none(), phases)


def fuzzed(count: int) -> Any:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def fuzz_site(site: Site, count: int) -> None:
    @fuzzed(count)
    @given(
        st.sampled_from(["advertise", "advertise", "contribute", "propose", "close", "share"]),
        edits,
        st.booleans(),
    )
    def asked(step: str, changes: Edits, sign: bool) -> None:
        site.fuzz(step, changes, sign)

    asked()


def fuzz_all(folder: Path, count: int) -> None:
    """Run each fuzz test for its share of ``count`` inputs."""

    @fuzzed(count * 4 // 10)
    @given(phases, sources, edits)
    def server(phase: str, source: str | None, changes: Edits) -> None:
        fuzz_server(phase, source or phase, changes)

    @fuzzed(count * 2 // 10)
    @given(phases, sources, edits)
    def client(phase: str, source: str | None, changes: Edits) -> None:
        fuzz_client(phase, source or phase, changes)

    @fuzzed(count * 2 // 10)
    @given(edits, st.booleans())
    def admission(changes: Edits, sign: bool) -> None:
        fuzz_admission(folder, changes, sign)

    @fuzzed(count * 2 // 10)
    @given(edits, st.booleans())
    def plan(changes: Edits, inner: bool) -> None:
        fuzz_plan(folder, changes, inner)

    for test in (server, client, admission, plan):
        test()


@pytest.mark.full
def test_hostile_messages_by_the_thousand_to_both_sides(tmp_path: Path, site: Site) -> None:
    fuzz_site(site, 200)
    fuzz_all(tmp_path, 1_000)


@pytest.mark.soak
def test_a_hundred_thousand_hostile_messages_to_both_sides(tmp_path: Path, site: Site) -> None:
    fuzz_site(site, 10_000)
    fuzz_all(tmp_path, 90_000)


def test_what_the_fuzz_tests_make_is_hostile() -> None:
    """Most of it is refused: a mutator that changes nothing would find nothing."""
    found = 0
    data = transcript().sent["share", "site-0"][1]
    for number in range(100):
        made = hostile_bytes(data, [("set", 7 * number + 1, nested(9))])
        found += refused(partial(messages.decode, messages.ShareBundle, made, transcript().params))
    assert found > 60
    assert ROSTER.coordinator.name == "coordinator"
