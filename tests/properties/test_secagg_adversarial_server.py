"""An adversarial server against honest sites, in any order of moves hypothesis can find.

The server keeps every message of every session, asks any site anything, lists whom it likes, crashes
sites and brings old states back. What must hold over all that the sites ever emit is checked at each step.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.errors import FedcartError
from common.secagg import messages
from common.secagg.client import ClientProtocol
from common.secagg.dealing import Dealing, dealt_digest
from common.secagg.messages import (
    AdvertisementList,
    ConfirmationList,
    Params,
    Session,
    ShareDelivery,
    SurvivorList,
)
from common.secagg.shamir import SHARE_BYTES
from tests.secagg_rounds import ask, build

SITES = [f"site-{i}" for i in range(4)]
THRESHOLD = 3
site_names = st.sampled_from(SITES)
mostly_all = st.sets(site_names, min_size=3) | st.just(set(SITES))
sessions = st.integers(0, 2)


class AdversarialServer(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.federation = build(4, length=4)
        self.machines: dict[str, ClientProtocol] = {}
        self.stored: list[tuple[str, bytes]] = []
        self.seen: dict[tuple[int, type, str], object] = {}
        self.dealings: dict[tuple[int, str], Dealing] = {}
        self.complaints: list[messages.Receipt] = []
        self.masked: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.signed: dict[tuple[int, str], set[bytes]] = defaultdict(set)
        self.revealed: dict[tuple[int, str], list[tuple]] = defaultdict(list)

    def params(self, session: int) -> Params:
        return replace(self.federation.params, session=Session("run", 1, session))

    def ask(self, site: str, request, contribution: int = 0) -> None:
        """Put any question to a site; note what it emits."""
        machine = self.machines.get(site)
        if machine is None:
            return
        raw = messages.decode(type(request), messages.encode(request))
        name = bytes([contribution]) * 32
        try:
            answer = ask(machine, raw, self.federation.vectors[site], name)
        except FedcartError:
            return
        session = machine.params.session.attempt
        self.seen[session, type(answer), site] = answer
        if isinstance(answer, messages.ShareBundle):
            self.dealings[session, site] = Dealing(machine.params, request, answer)
        if isinstance(answer, messages.Receipt) and answer.accused:
            self.complaints.append(answer)
        if isinstance(answer, messages.MaskedVector):
            self.masked[site, contribution].append(session)
        if isinstance(answer, messages.Confirmation):
            self.signed[session, site].add(request.statement(machine.params.salt))
        if isinstance(answer, messages.RevealedShares):
            self.revealed[session, site].append((request, answer))

    def known(self, session: int, kind: type, sites: set[str]) -> list:
        return [self.seen[session, kind, s] for s in SITES if s in sites and (session, kind, s) in self.seen]

    def delivery(self, session: int, holder: str, shared: set[str]) -> ShareDelivery:
        dealt = [self.dealings[session, s] for s in SITES if s in shared and (session, s) in self.dealings]
        pieces = [dealing.piece(holder).write() for dealing in dealt if holder in dealing.entries]
        return ShareDelivery(tuple(s for s in SITES if s in shared), b"".join(pieces))

    def lists(self, session: int, shared: set[str], survivors: set[str]) -> SurvivorList:
        statements = [
            self.dealings[session, s].statement for s in SITES if (session, s) in self.dealings and s in shared
        ]
        return SurvivorList(ordered(shared), ordered(survivors), dealt_digest(statements))

    @rule(site=site_names, session=sessions)
    def start(self, site: str, session: int) -> None:
        self.machines[site] = ClientProtocol(self.federation.sites[site], self.params(session))
        self.ask(site, self.params(session))

    @rule(session=sessions)
    def start_all(self, session: int) -> None:
        for site in SITES:
            self.start(site, session)

    @rule(to=mostly_all, listed=mostly_all, session=sessions)
    def share(self, to: set[str], listed: set[str], session: int) -> None:
        request = AdvertisementList(tuple(self.known(session, messages.Advertisement, listed)))
        for site in sorted(to):
            self.ask(site, request)

    @rule(to=mostly_all, dealers=mostly_all, session=sessions, flip=st.none() | st.integers(0, 10**4))
    def accept(self, to: set[str], dealers: set[str], session: int, flip: int | None) -> None:
        """Deliver what was dealt, as it was or with one bit altered on the way."""
        for site in sorted(to):
            request = self.delivery(session, site, dealers)
            if flip is not None and request.pieces:
                altered = bytearray(request.pieces)
                altered[flip % len(altered)] ^= 1 << flip % 8
                request = replace(request, pieces=bytes(altered))
            self.ask(site, request)

    @rule(to=mostly_all, shared=mostly_all, contribution=st.integers(0, 1))
    def mask(self, to: set[str], shared: set[str], contribution: int) -> None:
        for site in sorted(to):
            self.ask(site, messages.AcceptedList(ordered(shared)), contribution)

    @rule(to=mostly_all, shared=mostly_all, survivors=mostly_all, session=sessions)
    def confirm(self, to: set[str], shared: set[str], survivors: set[str], session: int) -> None:
        for site in sorted(to):
            self.ask(site, self.lists(session, shared, survivors))

    @rule(to=mostly_all, shared=mostly_all, survivors=mostly_all, signers=mostly_all, session=sessions)
    def unmask(self, to: set[str], shared: set[str], survivors: set[str], signers: set[str], session: int) -> None:
        signed = tuple(self.known(session, messages.Confirmation, signers))
        for site in sorted(to):
            self.ask(site, ConfirmationList(self.lists(session, shared, survivors), signed))

    @rule(session=sessions, lost=site_names | st.none(), phase=st.integers(0, 3))
    def play_honestly(self, session: int, lost: str | None, phase: int) -> None:
        """A whole session, with one site lost: so that the search always reaches the last exchange."""
        everyone = set(SITES)
        late = [everyone - {lost} if step >= phase else everyone for step in range(4)]
        self.start_all(session)
        self.share(late[0], everyone, session)
        self.accept(late[1], late[0], session, None)
        self.mask(late[2], late[1], session % 2)
        self.confirm(late[3], late[1], late[2], session)
        self.unmask(late[3], late[1], late[2], late[3], session)

    @rule(session=sessions, odd=site_names, narrow=st.booleans(), replay=st.booleans())
    def tell_two_stories(self, session: int, odd: str, narrow: bool, replay: bool) -> None:
        """Some hear that ``odd`` survived, some that it was lost (or never shared); or all hear both."""
        everyone, others = set(SITES), set(SITES) - {odd}
        left = {odd, min(others)}
        self.start_all(session)
        self.share(everyone, everyone, session)
        self.accept(everyone, everyone, session, None)
        self.mask(everyone, everyone, session % 2)
        stored = {site: machine.to_state() for site, machine in self.machines.items()}
        for half, shared, survivors in (
            *([] if narrow else [(left, everyone, everyone), (everyone - left, everyone, others)]),
            (others, others if narrow else everyone, others),
        ):
            for site in sorted(half) if replay else ():
                self.machines[site] = ClientProtocol.from_state(self.federation.sites[site], stored[site])
            self.confirm(half, shared, survivors, session)
            self.unmask(half, shared, survivors, half, session)

    @rule(site=site_names)
    def crash(self, site: str) -> None:
        self.machines.pop(site, None)

    @rule(site=site_names)
    def store(self, site: str) -> None:
        if site in self.machines:
            self.stored.append((site, self.machines[site].to_state()))

    @rule(which=st.integers(0, 100))
    def bring_an_old_state_back(self, which: int) -> None:
        if self.stored:
            site, state = self.stored[which % len(self.stored)]
            self.machines[site] = ClientProtocol.from_state(self.federation.sites[site], state)

    @invariant()
    def no_site_opens_its_channel_while_all_dealers_are_honest(self) -> None:
        assert self.complaints == []

    @invariant()
    def a_contribution_leaves_once(self) -> None:
        assert all(len(session) == 1 for session in self.masked.values())

    @invariant()
    def a_session_sees_one_list_per_site(self) -> None:
        assert all(len(statements) == 1 for statements in self.signed.values())

    @invariant()
    def no_holder_reveals_both_shares_of_a_dealer(self) -> None:
        for answers in self.revealed.values():
            assert len(answers) == 1  # and one answer holds one kind per dealer, or the next line fails
            request, answer = answers[0]
            assert len(answer.seed_shares) == SHARE_BYTES * len(request.survivors.survivors)
            assert len(answer.key_shares) == SHARE_BYTES * len(request.survivors.lost)

    @invariant()
    def no_site_of_a_session_can_be_opened_both_ways(self) -> None:
        for session in range(3):
            count: dict[tuple[str, str], int] = defaultdict(int)
            for (attempt, _), answers in self.revealed.items():
                for request, _ in answers if attempt == session else ():
                    for dealer in request.survivors.survivors:
                        count["seed", dealer] += 1
                    for dealer in request.survivors.lost:
                        count["key", dealer] += 1
            # one colluding site could add one share of each kind: still not both above the threshold
            assert not any(count["seed", s] >= THRESHOLD - 1 and count["key", s] >= THRESHOLD - 1 for s in SITES)


def ordered(names: set[str]) -> tuple[str, ...]:
    return tuple(s for s in SITES if s in names)


COMMON = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


class TestAdversarialServer(AdversarialServer.TestCase):
    settings = settings(max_examples=15, stateful_step_count=12, **COMMON)


@pytest.mark.full
class TestAdversarialServerAtLength(AdversarialServer.TestCase):
    settings = settings(max_examples=150, stateful_step_count=25, **COMMON)
