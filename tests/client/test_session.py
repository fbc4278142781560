"""A site's round, asked by a coordinator that lies: the right word comes back, and nothing is charged."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client import app as client_app, session
from client.app import advertise as handle_advertise
from client.guard import ChargedError, SitePolicy, keep_closing
from client.guard.ledger import Ledger
from client.site import Site, load_site
from common import flower, wire
from common.errors import (
    FedcartError,
    PolicyRefusedError,
    RefusedError,
    RemoteProtocolError,
    VerificationError,
    WorkFailedError,
)
from common.run import (
    CLOSINGS_FILE,
    FAREWELL,
    Closing,
    PerformanceSettings,
    build_config,
    model_bytes,
    noted_closings,
)
from common.secagg import messages
from common.secagg.messages import Params, Session
from common.trust.identity import Identity
from tests.scripted_coordinator import Coordinator

SPEED = PerformanceSettings()


def _spent(site: Site) -> int:
    status = site.guard().status()
    return status.open + status.committed


def test_an_honest_question_is_answered_and_reserved(site: Site, coordinator: Coordinator) -> None:
    reply, memory = session.advertise(site, coordinator.request(coordinator.query(60)), SPEED)
    assert {"message", "attestation"} == reply.keys()
    assert memory.machine
    assert _spent(site) == 1
    session.close(site, coordinator.farewell())
    assert site.guard().status().void == 1
    assert _spent(site) == 0


def test_an_attempt_that_never_left_is_used_again_at_no_charge(site: Site, coordinator: Coordinator) -> None:
    query = coordinator.query(61)
    first, _ = session.advertise(site, coordinator.request(query, 1), SPEED)
    second, _ = session.advertise(site, coordinator.request(query, 2), SPEED)
    assert _spent(site) == 1
    assert first["message"] != second["message"]  # fresh keys, same contribution
    session.close(site, coordinator.farewell())


def test_a_session_is_never_answered_twice(site: Site, coordinator: Coordinator) -> None:
    request = coordinator.request(coordinator.query(62))
    session.advertise(site, request, SPEED)
    with pytest.raises(RefusedError, match="already"):
        session.advertise(site, request, SPEED)
    session.close(site, coordinator.farewell())


def test_what_a_real_site_signs_at_the_close_is_kept_with_the_coordinators_signature(
    site: Site, coordinator: Coordinator
) -> None:
    real = dataclasses.replace(site, simulated=False)
    farewell, kept = coordinator.farewell(), real.kit.state / CLOSINGS_FILE
    session.close(real, farewell)
    assert not kept.exists()  # nothing of it is in that run
    with pytest.MonkeyPatch.context() as patch:
        ledger = SimpleNamespace(transaction=lambda: nullcontext(_NothingOpen()))
        patch.setattr(Site, "guard", lambda _: SimpleNamespace(ledger=ledger, left_in=lambda _run: [3]))
        session.close(real, farewell)
        session.close(real, farewell)
        session.close(site, farewell)  # a simulated one keeps nothing
    found = noted_closings(real.kit.state, coordinator.plan.run, coordinator.roster.coordinator.public_key)
    assert [(one.round, one.last) for one in found] == [(99, "ab" * 32)]
    assert noted_closings(real.kit.state, coordinator.plan.run, Identity.generate("x").public_key) == []
    kept.unlink()


def test_a_coordinator_cannot_fill_a_disk_with_closings(site: Site, coordinator: Coordinator) -> None:
    for number in range(80):
        closing = Closing("run", number, f"{number:064x}")
        keep_closing(site.kit.state, closing, coordinator.identity.sign(closing.statement(FAREWELL)))
    kept = site.kit.state / CLOSINGS_FILE
    assert len(kept.read_bytes().splitlines()) == 50
    kept.unlink()


class _NothingOpen:
    """A ledger's state without a reservation that is open."""

    def open_reservations(self) -> list[Any]:
        return []


def _altered(coordinator: Coordinator) -> dict[str, dict[str, Any]]:
    honest = coordinator.request(coordinator.query(63))
    stranger = Identity.generate("coordinator")
    query = coordinator.query(63)
    other_model = model_bytes(coordinator.model + 1)
    plan = dataclasses.replace(coordinator.plan, parameters=coordinator.plan.parameters - 1)
    true = dict(coordinator.plan.populations)
    drowned = dataclasses.replace(coordinator.plan, populations=tuple((s, 2**20) for s in true))
    invented = dataclasses.replace(coordinator.plan, populations=(*coordinator.plan.populations, ("nobody", 64)))
    return {
        "a population that is not the site's": coordinator.request(coordinator.query(63, plan=drowned)),
        "a site that is in no roster": coordinator.request(coordinator.query(63, plan=invented)),
        "a round after the last": coordinator.request(coordinator.query(101)),
        "round 0": coordinator.request(coordinator.query(0)),
        "signed by a stranger": honest | {"signature": stranger.sign(query.digest())},
        "unsigned": honest | {"signature": b""},
        "another query under the signature": honest | {"query": wire.encode(coordinator.query(64))},
        "another model": honest | {"model": other_model},
        "a model of another length": honest | {"model": honest["model"][:-4]},
        "a plan that does not fit the model": coordinator.request(coordinator.query(63, plan=plan)),
        "parameters of another query": coordinator.session(honest, query_digest=b"x" * 32),
        "a raised weight": _reweighted(coordinator, honest),
        "a coarser layout": _coarser(coordinator, honest),
        "a shrunken cohort with a stranger's key": _swapped(coordinator, honest),
        "another round": coordinator.session(honest, session=Session(query.run, 9, 1)),
        "another roster": coordinator.session(honest, roster=b"r" * 32),
        "a session that nobody signed": honest | {"invitation": b""},
        "a recorded query in a session of somebody's own": coordinator.session(
            honest, session=Session(query.run, 63, 777)
        )
        | {"invitation": honest["invitation"]},
        "other heads than were signed": honest
        | {"message": coordinator.session(honest, witness=b"w" * 32)["message"]},
    }


def _reweighted(coordinator: Coordinator, request: Mapping[str, Any]) -> dict[str, Any]:
    params = messages.decode(Params, request["message"])
    cohort = tuple(dataclasses.replace(member, weight=member.weight * 2) for member in params.cohort)
    return coordinator.session(request, cohort=cohort)


def _coarser(coordinator: Coordinator, request: Mapping[str, Any]) -> dict[str, Any]:
    params = messages.decode(Params, request["message"])
    blocks = tuple(
        dataclasses.replace(block, fractional_bits=block.fractional_bits - 1) for block in params.blocks
    )
    return coordinator.session(request, blocks=blocks)


def _swapped(coordinator: Coordinator, request: Mapping[str, Any]) -> dict[str, Any]:
    params = messages.decode(Params, request["message"])
    mallory = Identity.generate("mallory").public_key
    cohort = (params.cohort[0], dataclasses.replace(params.cohort[1], public_key=mallory), *params.cohort[2:])
    return coordinator.session(request, cohort=cohort)


def test_every_altered_request_is_refused_and_costs_nothing(site: Site, coordinator: Coordinator) -> None:
    for what, request in _altered(coordinator).items():
        with pytest.raises(FedcartError):
            session.advertise(site, request, SPEED)
        assert _spent(site) == 0, what


def test_a_farewell_of_a_stranger_voids_nothing(site: Site, coordinator: Coordinator) -> None:
    session.advertise(site, coordinator.request(coordinator.query(68)), SPEED)
    forged = coordinator.farewell() | {"signature": Identity.generate("coordinator").sign(b"farewell")}
    with pytest.raises(VerificationError):
        session.close(site, forged)
    assert site.guard().status().open == 1
    session.close(site, coordinator.farewell())


def test_a_diverged_step_is_answered_like_any_other(site: Site, coordinator: Coordinator) -> None:
    settings = build_config(
        json.loads(coordinator.plan.settings), ["training.optimizer=sgd", "training.learning_rate=1e38"]
    )
    plan = dataclasses.replace(coordinator.plan, settings=settings.public_json())
    question = session.Question(coordinator.query(69, plan=plan), plan, coordinator.model)
    assert np.isfinite(session.answer(site, question).vector).all()


def test_a_real_site_refuses_runs_without_noise_and_odd_encodings(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    name = coordinator.plan.sites[0]
    shutil.copytree(coordinator.out / "sites" / name, tmp_path / "kit")
    policy = SitePolicy.load(tmp_path / "kit" / "policy.toml")
    policy.model_copy(update={"approve": "auto"}).save(tmp_path / "kit" / "policy.toml")
    settings_file = tmp_path / "kit" / "site.toml"
    catalogue = f'events = "(simulation)"\ncatalogue = "{coordinator.out / "catalogue.json"}"'
    settings_file.write_text(settings_file.read_text().replace('events = "(simulation)"', catalogue))
    real = load_site(tmp_path / "kit", ledger_path=tmp_path / "real.jsonl")
    settings = build_config(json.loads(coordinator.plan.settings), ["privacy.enabled=false"]).public_json()
    plan = dataclasses.replace(coordinator.plan, settings=settings, noise_multiplier=0.0)
    with pytest.raises(PolicyRefusedError) as caught:
        session.advertise(real, coordinator.request(coordinator.query(65, plan=plan)), SPEED)
    assert caught.value.rule == "noise_multiplier_min"
    odd = json.loads(coordinator.plan.features) | {"item_buckets": 960}
    plan = dataclasses.replace(coordinator.plan, features=json.dumps(odd, sort_keys=True, separators=(",", ":")))
    with pytest.raises(PolicyRefusedError) as caught:
        session.advertise(real, coordinator.request(coordinator.query(65, plan=plan)), SPEED)
    assert caught.value.rule == "features"


def test_only_a_code_leaves_the_site(site: Site, coordinator: Coordinator) -> None:
    flower.set_task_identity(1)
    request = coordinator.request(coordinator.query(66)) | {"signature": b"forged"}
    message = flower.instruction(7, "query.advertise", request, "66.1")
    context = flower.new_context(1, 7, {"site": str(site.kit.path), "simulated": True}, {})
    parts = flower.parts_of(handle_advertise(message, context).content)
    assert parts == {"error": "verification"}
    assert "does not hold" in site.kit.log.read_text()
    nowhere = flower.new_context(1, 7, {"site": "/nowhere/at/all", "simulated": True}, {})
    assert flower.parts_of(handle_advertise(message, nowhere).content) == {"error": "bad-input"}


def test_a_site_without_a_session_says_so(site: Site) -> None:
    with pytest.raises(FedcartError, match="no session"):
        session.share(site, {"message": b""}, session.Memory())


def test_a_foreign_model_digest_is_not_believed(site: Site, coordinator: Coordinator) -> None:
    query = coordinator.query(67, model_digest=b"\0" * 32)
    with pytest.raises(VerificationError, match="model"):
        session.advertise(site, coordinator.request(query), SPEED)


def test_whatever_fails_after_the_reserve_tells_the_server_of_the_charge(
    site: Site, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    request = coordinator.request(coordinator.query(70))
    monkeypatch.setattr(session, "answer", full)
    with pytest.raises(ChargedError) as caught:
        session.advertise(site, request, SPEED)
    assert isinstance(caught.value.cause, OSError)
    said = caught.value.attestation
    said.verify(site.identity.public_key)
    assert said.attestation.query == coordinator.query(70).digest().hex()
    assert said.attestation.epsilon_after == pytest.approx(site.guard().status().epsilon)


def test_a_disk_that_fills_between_reserve_and_anchor_hides_no_charge(
    site: Site, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Any) -> None:
        raise WorkFailedError("cannot write: No space left on device")

    site.guard()
    monkeypatch.setattr(Ledger, "renew_anchor", full)
    with pytest.raises(ChargedError) as caught:
        session.advertise(site, coordinator.request(coordinator.query(72)), SPEED)
    said = caught.value.attestation
    said.verify(site.identity.public_key)
    monkeypatch.undo()
    assert said.attestation.epsilon_after == pytest.approx(site.guard().status().epsilon)


def test_what_fails_after_the_answer_was_made_hides_no_charge(
    site: Site, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    flower.set_task_identity(1)
    config = {"site": str(site.kit.path), "ledger": str(site.ledger_path), "simulated": True}
    parts = coordinator.request(coordinator.query(73))
    message = flower.with_message_id(flower.instruction(5, "query.advertise", parts, "73.1"), "id")
    monkeypatch.setattr(client_app, "ConfigRecord", lambda *_: 1 / 0)
    answer = flower.parts_of(handle_advertise(message, flower.new_context(1, 5, config, {})).content)
    assert answer.keys() == {"error", "attestation"}


def test_the_answer_that_carries_a_charge_is_a_word_and_the_attestation(
    site: Site, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "answer", lambda *_: 1 / 0)
    flower.set_task_identity(1)
    parts = coordinator.request(coordinator.query(71))
    config = {"site": str(site.kit.path), "ledger": str(site.ledger_path), "simulated": True}
    message = flower.with_message_id(flower.instruction(5, "query.advertise", parts, "71.1"), "id")
    answer = flower.parts_of(handle_advertise(message, flower.new_context(1, 5, config, {})).content)
    assert answer.keys() == {"error", "attestation"}
    assert answer["error"] == "failed"


@pytest.mark.parametrize("simulated", [False, True])
def test_a_real_sites_training_answer_takes_whole_seconds(
    monkeypatch: pytest.MonkeyPatch, simulated: bool
) -> None:
    from client import app

    clock, slept = [100.0], []
    monkeypatch.setattr(app.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(app.time, "sleep", slept.append)

    def handled(*_: Any) -> str:
        clock[0] += 2.3
        return "answer"

    monkeypatch.setattr(app, "_handle", handled)
    config = {"simulated": True} if simulated else {}
    assert app._handle_in_full_seconds(None, flower.new_context(1, 5, config, {}), None) == "answer"
    assert slept == ([] if simulated else [pytest.approx(0.7)])


@pytest.mark.parametrize("phase", ["share", "accept", "mask"])
@pytest.mark.parametrize(
    ("error", "charged", "place"),
    [(RuntimeError(), 1, 0), (WorkFailedError("disk full"), 1, 1), (RemoteProtocolError("a false list"), 0, 2)],
)
def test_a_failure_of_its_own_after_the_training_is_charged_and_another_partys_is_not(
    site: Site,
    coordinator: Coordinator,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    error: Exception,
    charged: int,
    place: int,
) -> None:
    """The server hears a code either way; before, it was given back, and the site asked again in every round."""
    number = 80 + 3 * ["share", "accept", "mask"].index(phase) + place  # a session is answered once
    _, memory = session.advertise(site, coordinator.request(coordinator.query(number)), SPEED)
    asked = {"share": "AdvertisementList", "accept": "ShareDelivery", "mask": "AcceptedList"}[phase]

    def fail(kind: type, *_: object) -> None:
        assert kind.__name__ == asked
        raise error

    monkeypatch.setattr(session, "_asked", fail)
    with pytest.raises(type(error)):
        getattr(session, phase)(site, {}, memory)
    session.close(site, coordinator.farewell())
    status = site.guard().status()
    assert (status.forfeit, status.void) == (charged, 1 - charged)
    assert bool(status.paused) is bool(charged)
