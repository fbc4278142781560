"""What a real site does when the server, or whoever speaks in its place, does not keep to the rules."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from client import session
from client.runtime.approval import ApprovalPendingError, RunRejectedError, decide, requests
from client.site import load_site
from common import wire
from common.contribution import TRAIN, Query
from common.deployment import CoordinatorKit
from common.errors import (
    BadInputError,
    FedcartError,
    PolicyRefusedError,
    RemoteProtocolError,
    VerificationError,
)
from common.run import PROPOSAL, PerformanceSettings, RunPlan, load_config, model_bytes, model_digest
from common.secagg import messages
from common.secagg.messages import Member, Params, PlainParams, Session, default_threshold
from common.trust.identity import Identity, Roster
from server.planning import prepare_run
from server.provision import provision
from server.state import latest_checkpoint
from simulations.demo import write_demo

pytestmark = pytest.mark.full
SPEED = PerformanceSettings()


class World:
    """Three provisioned sites, a coordinator, a prepared run; nothing is running."""

    def __init__(self, folder: Path) -> None:
        self.attempts = itertools.count(1)  # no session is ever used twice
        self.files = write_demo(folder / "data", sites=3, consumers=450, rounds=1)
        tree = {"name": "t", "coordinator": {"address": "127.0.0.1:9443"}, "sites": list(self.files.sites)}
        (folder / "federation.toml").write_text(tomli_w.dumps(tree))
        provision(folder / "federation.toml", folder / "kits", approve="auto")
        self.kit = CoordinatorKit(folder / "kits/coordinator")
        self.site_folder = folder / "kits/sites/merchant-1"
        run = prepare_run(self.kit, load_config(self.files.run), base=self.files.run.parent)
        self.plan = RunPlan.from_json((run.path / "plan.json").read_text())
        self.model = latest_checkpoint(run.path / "checkpoints").parameters
        self.coordinator = Identity.load("coordinator", self.kit.identity_key)
        self.roster = Roster.load(self.kit.roster)

    @property
    def site(self):
        return load_site(self.site_folder)

    def query(self, plan: RunPlan | None = None, number: int = 1) -> Query:
        plan = plan or self.plan
        return Query(TRAIN, plan.run, number, plan.to_json(), model_digest(self.model))

    def request(self, query: Query, **changes) -> dict:
        attempt = next(self.attempts)
        plan = RunPlan.from_json(query.settings)
        members = tuple(Member(p.name, p.public_key, plan.weight(p.name)) for p in self.roster.sites)
        params = Params(
            Session(query.run, query.round, attempt),
            members,
            default_threshold(len(members)),
            plan.blocks(query.kind),
            query.model_digest,
            query.digest(),
            self.roster.digest,
            bytes(32),
        )
        return {
            "invitation": self.coordinator.sign(messages.invitation(params)),
            "query": wire.encode(query),
            "signature": self.coordinator.sign(query.digest()),
            "model": model_bytes(self.model),
            "head": "",
            "message": messages.encode(params),
        } | changes

    def in_the_clear(self, query: Query) -> dict:
        """The request that asks a site for its contribution without masks, signed as the coordinator would."""
        names = tuple(p.name for p in self.roster.sites)
        of = Session(query.run, query.round, next(self.attempts))
        params = PlainParams(of, names, query.digest(), self.roster.digest, bytes(32))
        return self.request(
            query,
            invitation=self.coordinator.sign(messages.invitation(params)),
            message=wire.encode(params),
        )

    def weaker(self, **changes: object) -> RunPlan:
        settings = json.loads(self.plan.settings)
        for key, value in changes.items():
            if key in RunPlan.__dataclass_fields__:
                continue
            section, name = key.split("__")
            settings[section][name] = value
        direct = {k: v for k, v in changes.items() if k in RunPlan.__dataclass_fields__}
        return replace(self.plan, settings=json.dumps(settings, sort_keys=True, separators=(",", ":")), **direct)

    def reserved(self) -> int:
        ledger = self.site_folder / "state/ledger.jsonl"
        return sum('"reserve"' in line for line in ledger.read_text().splitlines()) if ledger.exists() else 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("hostile"))


def refused(world: World, error: type[FedcartError], request: dict) -> FedcartError:
    before = world.reserved()
    with pytest.raises(error) as caught:
        session.advertise(world.site, request, SPEED)
    assert world.reserved() == before, "a refused request must not be charged"
    return caught.value


def test_a_query_that_nobody_signed_is_refused(world):
    refused(world, VerificationError, world.request(world.query(), signature=bytes(64)))


def test_a_query_signed_by_another_site_instead_of_the_coordinator_is_refused(world):
    other = Identity.load("merchant-2", world.site_folder.parent / "merchant-2/identity.key")
    query = world.query()
    refused(world, VerificationError, world.request(query, signature=other.sign(query.digest())))


def test_a_query_changed_after_it_was_signed_is_refused(world):
    signed, changed = world.query(), world.query(number=2)
    refused(world, VerificationError, world.request(changed, signature=world.coordinator.sign(signed.digest())))


def test_another_model_beside_a_signed_query_is_refused(world):
    request = world.request(world.query(), model=model_bytes(world.model + 1))
    refused(world, VerificationError, request)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"noise_multiplier": 0.1}, "noise_multiplier_min"),
        ({"privacy__sampling_rate": 0.9}, "sampling_rate_max"),
        ({"training__local_steps": 5_000}, "steps_max"),
        ({"privacy__clip": 1_000.0}, "clip_max"),
        ({"privacy__delta": 0.01}, "delta"),
        ({"aggregation__min_stockists": 1}, "min_stockists"),
        ({"evaluation_noise": 0.01}, "evaluation_noise_min"),
    ],
)
def test_signed_settings_weaker_than_the_policy_are_refused_naming_the_rule(world, changes, rule):
    plan = world.weaker(**changes)
    error = refused(world, PolicyRefusedError, world.request(world.query(plan)))
    assert error.rule == rule
    with pytest.raises(PolicyRefusedError) as caught:
        session.propose(
            world.site, {"plan": plan.to_json(), "signature": world.coordinator.sign(PROPOSAL + plan.digest())}
        )
    assert caught.value.rule == rule


def test_a_run_without_privacy_is_refused_by_a_real_site(world):
    plan = world.weaker(privacy__enabled=False)
    error = refused(world, PolicyRefusedError, world.request(world.query(plan)))
    assert error.rule == "noise_multiplier_min"


def test_a_real_site_never_answers_in_the_clear(world):
    before = world.reserved()
    query = world.query()
    masked = world.request(query)
    with pytest.raises(RemoteProtocolError, match="expected a PlainParams"):
        session.contribute(world.site, masked, SPEED)
    with pytest.raises(VerificationError, match="the session is plain, the signed plan says secure"):
        session.contribute(world.site, world.in_the_clear(query), SPEED)
    assert world.reserved() == before


def test_a_cohort_of_keys_that_are_not_pinned_is_refused(world):
    query = world.query()
    strangers = tuple(Member(p.name, Identity.generate(p.name).public_key, 1.0) for p in world.roster.sites)
    params = messages.decode(Params, world.request(query)["message"])
    refused(world, FedcartError, world.request(query, message=messages.encode(replace(params, cohort=strangers))))


def test_parameters_of_another_query_are_refused(world):
    other = world.request(world.query(number=7))["message"]
    refused(world, VerificationError, world.request(world.query(), message=other))


def test_a_signed_request_that_is_played_again_gets_no_second_answer_and_costs_nothing(world):
    request = world.request(world.query())
    session.advertise(world.site, request, SPEED)
    refused(world, FedcartError, request)


def test_a_message_of_the_middle_of_a_round_without_its_beginning_is_refused(world):
    for step in (session.share, session.mask, session.confirm, session.unmask):
        with pytest.raises(RemoteProtocolError):
            step(world.site, {"message": b""}, session.Memory())


def test_a_plan_that_states_another_population_is_refused(world):
    populations = tuple((name, 10 * count) for name, count in world.plan.populations)
    plan = replace(world.plan, populations=populations)
    with pytest.raises(PolicyRefusedError) as caught:
        session.propose(
            world.site, {"plan": plan.to_json(), "signature": world.coordinator.sign(PROPOSAL + plan.digest())}
        )
    assert caught.value.rule == "population"


def test_nothing_is_computed_before_the_operator_has_said_yes_to_exactly_these_settings(tmp_path):
    world = World(tmp_path)
    policy = world.site_folder / "policy.toml"
    policy.write_text(policy.read_text().replace('approve = "auto"', 'approve = "ask"'))
    refused(world, ApprovalPendingError, world.request(world.query()))
    assert [r.run for r in requests(world.site.kit)] == [world.plan.run]
    decide(world.site.kit, world.plan.run, approve=False)
    refused(world, RunRejectedError, world.request(world.query()))
    decide(world.site.kit, world.plan.run, approve=True)
    session.advertise(world.site, world.request(world.query()), SPEED)
    changed = world.weaker(training__local_steps=5)
    refused(world, ApprovalPendingError, world.request(world.query(changed)))


def test_keys_of_another_site_do_not_open_a_kit(tmp_path):
    world = World(tmp_path)
    other = world.site_folder.parent / "merchant-2/identity.key"
    (world.site_folder / "identity.key").write_bytes(other.read_bytes())
    with pytest.raises(BadInputError, match="not the one in its roster"):
        load_site(world.site_folder)


def test_a_roster_with_another_coordinator_does_not_open_a_kit(tmp_path):
    world = World(tmp_path)
    stranger = Identity.generate("coordinator")
    path = world.site_folder / "roster.json"

    swapped = path.read_text().replace(world.coordinator.public_key.hex(), stranger.public_key.hex())
    path.write_text(swapped)
    with pytest.raises(VerificationError, match="not signed by its coordinator"):
        load_site(world.site_folder)

    path.unlink()
    Roster.signed_by(stranger, [(p.name, p.public_key) for p in world.roster.sites]).save(path)
    with pytest.raises(BadInputError, match="different coordinators"):
        load_site(world.site_folder)

    world.roster.save(path)
    assert load_site(world.site_folder).roster == world.roster, "a roster that was refused was remembered"
