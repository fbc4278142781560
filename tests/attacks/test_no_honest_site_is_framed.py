"""Whatever a coordinator and a site of its own hold back, exchange and put together: nothing that honest sites sign convicts one.

Two sessions go on at once. The coordinator shows each honest site other lists and other dealings than the next one, hands over what
belongs elsewhere, or nothing; the liar deals several times, complains and reveals as it likes. Of all that has been signed
every combination is then tried as a proof.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from common.errors import FedcartError
from common.secagg import masks, messages
from common.secagg.blame import Complaint, Fault, Proofs, Revealed
from common.secagg.client import ClientProtocol
from common.secagg.dealing import Dealing, Secrets, deal, dealt_digest
from common.secagg.messages import AdvertisementList, Params, ShareBundle, ShareDelivery, SurvivorList
from common.trust.crypto import x25519_agreement
from tests.hostile_sites import garbage_boxes
from tests.secagg_rounds import Federation, ask, build

LIAR = "site-0"
HONEST = ("site-1", "site-2", "site-3", "site-4")


@dataclass
class Overheard:
    """Everything that a hostile coordinator has of one session: lists, dealings, receipts, and what holders signed when they revealed."""

    federation: Federation
    lists: list[AdvertisementList] = field(default_factory=list)
    bundles: list[ShareBundle] = field(default_factory=list)
    receipts: list[messages.Receipt] = field(default_factory=list)
    survivors: list[SurvivorList] = field(default_factory=list)
    reveals: list[tuple[messages.RevealedShares, tuple[bytes, ...]]] = field(default_factory=list)

    @property
    def params(self) -> Params:
        return self.federation.params

    def dealings(self) -> list[tuple[AdvertisementList, Dealing]]:
        found = []
        for listed, bundle in itertools.product(self.lists, self.bundles):
            with suppress(FedcartError, StopIteration):
                found.append((listed, Dealing(self.params, listed, bundle)))
        return found


def hostile_session(federation: Federation, draw: Random) -> Overheard:
    """One session as far as honest sites follow; each step of each site may be held back or made from something else."""
    heard = Overheard(federation)
    liar = ClientProtocol(federation.sites[LIAR], federation.params)
    clients = {site: ClientProtocol(federation.sites[site], federation.params) for site in HONEST}
    advertised = {LIAR: liar.advertise()} | {site: client.advertise() for site, client in clients.items()}
    heard.lists = [listed_of(federation, advertised, draw) for _ in range(2)]
    heard.lists.append(AdvertisementList(tuple(advertised[s] for s in federation.names)))
    shown = {site: heard.lists[-1] if draw.random() < 0.85 else draw.choice(heard.lists) for site in HONEST}
    for site, listed in shown.items():
        if draw.random() < 0.97:
            take(heard.bundles, lambda c=clients[site], q=listed: c.share(q))
    secrets = liar._secrets()
    for listed, change in itertools.product(heard.lists, (None, draw.choice(HONEST))):
        bundle = dealt(federation, listed, secrets)
        heard.bundles.append(bundle if change is None else garbage(federation, listed, bundle, change))
    dealings = heard.dealings()
    for site in HONEST:
        request = delivery(federation, site, shown[site], dealings, draw)
        take(heard.receipts, lambda c=clients[site], q=request: c.accept(q))
    heard.receipts += complaints_of(heard, liar, secrets.channel_key, dealings)
    accepted = [site for site in HONEST if clients[site].phase == "accepted"]
    for site in accepted:
        held = tuple(h.dealer for h in clients[site]._state.held)
        with suppress(FedcartError):
            ask(
                clients[site], messages.AcceptedList(held), federation.vectors[site], federation.contribution(site)
            )
    for site in accepted:
        end(federation, heard, clients[site], draw)
    return heard


def listed_of(federation: Federation, advertised: dict[str, Any], draw: Random) -> AdvertisementList:
    """U1 as it is shown to some: one honest site may be missing."""
    gone = draw.choice([*HONEST, None])
    return AdvertisementList(tuple(advertised[s] for s in federation.names if s != gone))


def dealt(federation: Federation, listed: AdvertisementList, secrets: Any) -> ShareBundle:
    agree, params = x25519_agreement(secrets.channel_key), federation.params
    keys = {a.site: masks.share_key(params, agree(a.channel_key), (LIAR, a.site)) for a in listed.advertisements}
    return deal(params, listed, federation.sites[LIAR].identity, Secrets(secrets.seed, secrets.mask_key), keys)


def garbage(federation: Federation, listed: AdvertisementList, bundle: ShareBundle, victim: str) -> ShareBundle:
    changed = garbage_boxes(victim)(federation, LIAR, "share", listed, bundle)
    assert isinstance(changed, ShareBundle)
    return changed


def delivery(
    federation: Federation,
    site: str,
    listed: AdvertisementList,
    dealings: list[tuple[AdvertisementList, Dealing]],
    draw: Random,
) -> ShareDelivery:
    """A piece of each dealer, mostly of a dealing under the list that the site knows; of the liar any of his dealings."""
    pieces: dict[str, bytes] = {}
    for known, dealing in draw.sample(dealings, len(dealings)):
        fits = known == listed or draw.random() < 0.02
        if fits and dealing.bundle.site not in pieces and site in known.sites:
            pieces[dealing.bundle.site] = dealing.piece(site).write()
    dealers = tuple(s for s in federation.names if s in pieces)
    raw = [pieces[s] for s in dealers]
    if raw and draw.random() < 0.1:  # altered on its way
        at = draw.randrange(len(raw))
        place = draw.randrange(len(raw[at]))
        raw[at] = raw[at][:place] + bytes([raw[at][place] ^ 1]) + raw[at][place + 1 :]
    return ShareDelivery(dealers, b"".join(raw))


def complaints_of(
    heard: Overheard, liar: ClientProtocol, secret: bytes, dealings: list[tuple[AdvertisementList, Dealing]]
) -> list[messages.Receipt]:
    """The liar complains, with its channel opened, about every honest dealer."""
    made = []
    for _, dealing in dealings:
        if dealing.bundle.site in HONEST:
            accused = (messages.Accusation(dealing.bundle.site, dealing.statement),)
            for opened in (secret, bytes(range(32))):  # the true one, and one that opens nothing
                receipt = messages.Receipt(LIAR, bytes(32), accused, opened, bytes(64))
                signature = liar._site.identity.sign(receipt.statement(heard.params.salt))
                made.append(replace(receipt, signature=signature))
    return made


def end(federation: Federation, heard: Overheard, client: ClientProtocol, draw: Random) -> None:
    """Confirm and reveal under lists that the coordinator chooses, with the liar's signature and those of others as far as they go."""
    held = client._state.held
    shared = tuple(h.dealer for h in held)
    gone = draw.choice([s for s in shared if s != client._name])
    statements = [h.dealing for h in held]
    if draw.random() < 0.4:  # as if the liar's dealing were another of his
        own = [d.statement for _, d in heard.dealings() if d.bundle.site == LIAR]
        statements = [draw.choice(own) if h.dealer == LIAR else h.dealing for h in held]
    lists = SurvivorList(shared, tuple(s for s in shared if s != gone), dealt_digest(statements))
    heard.survivors.append(lists)
    with suppress(FedcartError):
        client.confirm(lists)
        signed = tuple(
            messages.Confirmation(s, federation.sites[s].identity.sign(lists.statement(federation.params.salt)))
            for s in lists.survivors
        )  # more than a coordinator can have, whose sites sign one list each
        commitments = tuple(h.seed_commitment if h.dealer in lists.survivors else h.key_commitment for h in held)
        answer = client.unmask(messages.ConfirmationList(lists, signed[: federation.params.threshold]))
        heard.reveals.append((answer, commitments))


def take(into: list[Any], answer: Any) -> None:
    with suppress(FedcartError):
        into.append(answer())


def convicted(judged: Overheard, others: list[Overheard]) -> set[Fault]:
    """All that any combination of what was overheard, of other sessions too, proves in this one."""
    found: set[Fault] = set()
    bundles = [bundle for heard in others for bundle in heard.bundles]
    receipts = [receipt for heard in others for receipt in heard.receipts if receipt.accused]
    pieces = {(d.bundle.site, s): [] for heard in others for _, d in heard.dealings() for s in d.entries}
    for heard in others:
        for _, dealing in heard.dealings():
            for site in dealing.entries:
                pieces[dealing.bundle.site, site].append((dealing.statement, dealing.piece(site).write()))
    for listed in judged.lists:
        case = Proofs(judged.params, listed)
        for bundle in bundles:
            found |= proven(judged, replace(case, dealings=(bundle,)))
        for receipt in receipts:
            for _, piece in pieces.get((receipt.accused[0].dealer, receipt.site), ()):
                only = Complaint(receipt, (piece,))
                found |= proven(judged, replace(case, complaints=(only,)))
        found |= of_reveals(judged, others, case, pieces)
    return found


def of_reveals(judged: Overheard, others: list[Overheard], case: Proofs, pieces: dict[Any, Any]) -> set[Fault]:
    """What holders signed, beside each piece and each list; the dealings are those that make the list's digest."""
    found: set[Fault] = set()
    lists = [one for heard in others for one in heard.survivors]
    statements = {
        site: {s for (dealer, _), known in pieces.items() if dealer == site for s, _ in known}
        for site, _ in pieces
    }
    reveals = [one for heard in others for one in heard.reveals]
    for (answer, commitments), chosen in itertools.product(reveals, lists):
        known = list(itertools.islice(itertools.product(*(sorted(statements[s]) for s in chosen.shared)), 2_000))
        combinations = [c for c in known if dealt_digest(c) == chosen.dealt][:1] + known[:2] + known[-2:]
        for dealer, dealings in itertools.product(chosen.shared, combinations):
            for _, piece in pieces.get((dealer, answer.site), ()):
                proof = Revealed(answer.site, dealer, piece, chosen, dealings, commitments, answer.signature)
                found |= proven(judged, replace(case, reveals=(proof,)))
    return found


def proven(judged: Overheard, case: Proofs) -> set[Fault]:
    try:
        return set(case.verdicts(judged.federation.roster))
    except FedcartError:
        return set()


def framed(seed: int) -> set[Fault]:
    """Play two sessions of the same sites; return all verdicts that any combination gives."""
    draw, first = Random(seed), build(5, length=4)
    second = first.next_attempt()
    heard = [hostile_session(first, draw), hostile_session(second, draw)]
    return convicted(heard[0], heard) | convicted(heard[1], heard)


@pytest.mark.full
def test_no_honest_site_is_framed_by_what_is_held_back_exchanged_or_put_together() -> None:
    faults = set().union(*(framed(seed) for seed in range(6)))
    assert {fault.culprit for fault in faults} == {LIAR}
    assert {fault.kind for fault in faults} >= {"bad-box", "false-complaint"}


@pytest.mark.soak
def test_no_honest_site_is_framed_in_hundreds_of_sessions() -> None:
    for seed in range(100, 300):
        assert {fault.culprit for fault in framed(seed)} <= {LIAR}, seed
