"""One site, or whoever speaks as the coordinator, sends anything: it is refused with an error of ours, and only it is lost."""

from __future__ import annotations

import json
import math
import re
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from client import session
from common import wire
from common.contribution import MAX_QUERY_BYTES, TRAIN, Query
from common.errors import ConfigError, FedcartError, RefusedError, RemoteProtocolError
from common.privacy.accountant import epsilon_of, round_up
from common.privacy.attestation import Attestation, AttestedHeads, SignedAttestation, witness_of
from common.privacy.mechanism import PrivacyEvent
from common.run import FAREWELL, PROPOSAL, AggregationSettings, Closing, PerformanceSettings, RunPlan
from common.run.files import RunFolder
from common.secagg import messages
from common.secagg.messages import Params, largest_bytes
from common.secagg.server import EXCHANGES, ServerProtocol
from server.admission import Admission, HeadsBook
from server.exchange import Answer, Exchange
from server.secure_sum import Opening, secure_sum
from tests.attacks.test_site_under_a_hostile_server import World
from tests.guard_samples import IDENTITY, ROSTER
from tests.hostile_values import Edits, changed, changed_bytes, edits, nested
from tests.secagg_rounds import ANSWERS, Federation, build
from tests.signed_runs import MODEL, signed_run

EVIL = "site-1"
ANSWER_OF = dict(zip(EXCHANGES, ANSWERS, strict=True))
REQUESTS = dict(
    zip(
        EXCHANGES,
        (
            messages.Params,
            messages.AdvertisementList,
            messages.ShareDelivery,
            messages.AcceptedList,
            messages.SurvivorList,
            messages.ConfirmationList,
        ),
        strict=True,
    )
)


# --- what a message may cost before it is refused


BOMBS = {
    "ten million empty lists": b"\x83\x01\x6dAdvertisement\x9a\x00\x98\x96\x80" + b"\x80" * 10_000_000,
    "a list that says it is huge": b"\x83\x01\x6dAdvertisement\x9b" + b"\xff" * 8,
    "text that says it is huge": b"\x83\x01\x6dAdvertisement\x85\x7b" + b"\x7f" * 8,
    "nested without end": b"\x81" * 9_000_000,
    "a number of 5,000 digits": cbor2.dumps([1, "Advertisement", ["site-1", 10**5_000, b"", b"", b""]]),
    "a list without a length": b"\x83\x01\x6dAdvertisement\x9f" + b"\x80" * 1_000 + b"\xff",
    "a map": cbor2.dumps([1, "Advertisement", {n: n for n in range(1_000)}]),
    "shared references": b"\x83\x01\x6dAdvertisement\xd8\x1c\x81\xd8\x1d\x00",
    "a decimal fraction": cbor2.dumps([1, "Advertisement", [cbor2.CBORTag(4, [10**6, 1])]]),
    "a date": cbor2.dumps([1, "Advertisement", [cbor2.CBORTag(0, "2020-01-01T00:00:00Z")]]),
    "more after the end": wire.encode(messages.SurvivorList((), (), bytes(32))) + b"\x80",
}


@pytest.mark.parametrize("kind", [messages.Advertisement, messages.MaskedVector, messages.AdvertisementList])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_anything_is_made_of_it(name: str, kind: type) -> None:
    data = BOMBS[name]
    params = build(3).params
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError):
        messages.decode(kind, data, params)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", [n for n in BOMBS if len(BOMBS[n]) < wire.MAX_MESSAGE_BYTES])
def test_the_same_bombs_are_refused_where_no_session_says_how_large_a_message_is(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode(messages.Advertisement, BOMBS[name])


def test_no_object_is_made_of_what_fits_the_limit_and_is_a_bomb() -> None:
    """Within the bytes that a Query may have, empty lists would become a gigabyte of objects."""
    data = b"\x83\x01\x65Query\x9a\x00\x40\x00\x00" + b"\x80" * (1 << 22)
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="items"):
        wire.decode(Query, data, MAX_QUERY_BYTES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("sites", [3, 10, pytest.param(100, marks=pytest.mark.full)])
def test_honest_messages_fit_their_limits_and_the_limits_are_close(sites: int) -> None:
    federation = build(sites, length=500)
    federation.run_until("done", {("mask", f"site-{sites - 1}")} if sites > 3 else ())
    for (phase, _), (request, answer) in federation.sent.items():
        for kind, data in ((REQUESTS[phase], request), (ANSWER_OF[phase], answer)):
            largest = largest_bytes(kind, federation.params)
            assert len(data) <= largest
            # Params are read before anything is known of the session; a receipt may hold a complaint about everybody
            if kind not in (Params, messages.Receipt):
                assert largest < 8 * len(data) + 1_000, kind


def test_names_of_the_greatest_length_still_fit() -> None:
    name = "a" * 40
    one = messages.Advertisement(name, bytes(32), bytes(32), bytes(64))
    many = messages.AdvertisementList((one,) * 100)
    assert len(messages.encode(many)) <= largest_bytes(messages.AdvertisementList)
    against = (messages.Accusation(name, bytes(32)),) * 100
    complaint = messages.Receipt(name, bytes(32), against, bytes(32), bytes(64))
    assert len(messages.encode(complaint)) <= largest_bytes(messages.Receipt)
    with pytest.raises(FedcartError):  # an unsigned complaint, and a receipt that opens a channel for nothing
        replace(complaint, signature=b"")
    with pytest.raises(FedcartError):
        replace(complaint, accused=())


# --- what a site may attest


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


# --- the sum goes on without it


class AllIn:
    """An admission that asks for no ledger."""

    def admit(self, site: str, parts: dict[str, Any]) -> None: ...
    def note_charge(self, site: str, parts: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Scripted(Exchange):
    """Honest sites that answer, and one that sends what it likes in one exchange."""

    def __init__(self, federation: Federation, phase: str, parts: dict[str, Any]) -> None:
        super().__init__(None, {})  # type: ignore[arg-type]
        self._federation, self._phase, self._parts = federation, phase, parts

    def ask(self, phase: str, requests: Any, *, deadline_s: float, group: str) -> dict[str, Answer]:
        answers = {}
        for site, parts in requests.items():
            if (site, phase) == (EVIL, self._phase):
                answers[site] = Answer(site, self._parts)
                continue
            request = messages.decode(REQUESTS[phase], parts["message"])
            answers[site] = Answer(site, {"message": self._federation.exchange(phase, site, request)})
        return answers


def sum_with(phase: str, parts: dict[str, Any]) -> tuple[Federation, Any]:
    federation = build(5)
    opening = Opening({site: {} for site in federation.names}, AllIn())  # type: ignore[arg-type]
    exchange = Scripted(federation, phase, parts)
    return federation, secure_sum(exchange, federation.params, opening, AggregationSettings())


PARTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no bytes": {"message": 5},
    "a list": {"message": [1, 2]},
    "a number of 5,000 digits": {"message": BOMBS["a number of 5,000 digits"]},
    "nested without end": {"message": BOMBS["nested without end"]},
    "ten million lists": {"message": BOMBS["ten million empty lists"]},
    "ten megabytes of zeros": {"message": bytes(10_000_000)},
}


@pytest.mark.parametrize("phase", EXCHANGES)
@pytest.mark.parametrize("name", PARTS)
def test_one_malformed_answer_loses_its_site_and_no_other(phase: str, name: str) -> None:
    federation, outcome = sum_with(phase, PARTS[name])
    assert not outcome.aborted
    survivors = set(federation.names) - ({EVIL} if phase in EXCHANGES[:4] else set())
    assert set(outcome.survivors) == survivors
    if phase in EXCHANGES[:4]:  # later its vector is in the sum already
        assert (outcome.sites[EVIL].status, outcome.sites[EVIL].reason) == ("lost", "malformed")
        assert outcome.sites[EVIL].phase == phase
    assert any(EVIL in remark and "malformed" in remark for remark in outcome.remarks)


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
