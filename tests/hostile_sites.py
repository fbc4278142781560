"""What a hostile site sends in place of its honest answer: each lie is signed as well as the liar can sign it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import common.secagg.dealing as dealing
import common.secagg.shamir as shamir
from common.errors import FedcartError
from common.secagg import messages
from common.secagg.client import ClientProtocol, LocalSite
from common.secagg.dealing import KEY, SEED, Context, Entry, Piece
from common.secagg.messages import ENTRY_BYTES, AdvertisementList, Params, ShareBundle
from common.trust.crypto import KEY_BYTES, system_entropy, x25519_agreement
from common.trust.identity import Identity
from tests.secagg_rounds import Federation

Lie = Callable[["Stage", str, str, object, object], object]  # federation, liar, phase, request, honest answer
EVIL, RIVAL = "site-5", "site-2"


def resigned(params: Params, listed: AdvertisementList, dealer: Identity, bundle: ShareBundle) -> ShareBundle:
    """The bundle, changed by its dealer, under a signature that holds again (the nonce stays)."""
    raw = messages.cut(bundle.entries, ENTRY_BYTES)
    entries = list(map(Entry.read, raw))
    committed = [c for e in entries for c in (e.seed_commitment, e.key_commitment)]
    point = next(a.mask_key for a in listed.advertisements if a.site == dealer.name)
    message = dealing._committed(params.salt, listed.digest, dealer.name, committed)
    challenge = dealing.challenge_of(bundle.nonce, point, message).to_bytes(32, "big")
    root = dealing.tree.levels([dealing._leaf(s, e) for s, e in zip(listed.sites, raw, strict=True)])[-1][0]
    statement = dealing._statement(params.salt, listed.digest, dealer.name, challenge, root)
    return replace(bundle, signature=dealer.sign(statement))


def with_entries(
    federation: Federation,
    liar: str,
    listed: AdvertisementList,
    bundle: ShareBundle,
    change: Callable[[str, Entry], Entry],
) -> ShareBundle:
    """The liar's bundle with every entry changed by ``change(holder, entry)``, signed again."""
    raw = messages.cut(bundle.entries, ENTRY_BYTES)
    changed = [change(site, Entry.read(e)).write() for site, e in zip(listed.sites, raw, strict=True)]
    lying = replace(bundle, entries=b"".join(changed))
    return resigned(federation.params, listed, federation.sites[liar].identity, lying)


def garbage_boxes(*victims: str) -> Lie:
    """Boxes that do not open, for some; signed."""

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        if phase != "share":
            return answer

        def change(holder: str, entry: Entry) -> Entry:
            return replace(entry, box=system_entropy(len(entry.box))) if holder in victims else entry

        return with_entries(federation, liar, request, answer, change)

    return lie


def other_shares_in_the_box(*victims: str) -> Lie:
    """Boxes that open, with shares that are not those committed to; signed."""

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        if phase != "share":
            return answer
        secret = federation.secrets_of[liar].channel_key
        keys = {a.site: a.channel_key for a in request.advertisements}

        def change(holder: str, entry: Entry) -> Entry:
            if holder not in victims:
                return entry
            shared = x25519_agreement(secret)(keys[holder])
            key = dealing.masks.share_key(federation.params, shared, (liar, holder))
            plain = shamir.draw_secret() + shamir.draw_secret()
            return replace(entry, box=dealing.seal(key, plain, dealing.masks.share_context((liar, holder))))

        return with_entries(federation, liar, request, answer, change)

    return lie


@contextmanager
def patched(module: object, name: str, value: object):
    """One attribute of a module, for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def shares_of_no_polynomial(federation: Stage, liar: str, phase: str, request, answer):
    """Every share drawn by itself, committed to and signed."""
    if phase != "share":
        return answer
    with patched(shamir, "split", lambda s, t, n, entropy: [shamir.draw_secret(entropy) for _ in range(n)]):
        return dealt_again(federation, liar, request)


def shares_of_a_higher_degree(federation: Stage, liar: str, phase: str, request, answer):
    """A right sharing, but one of more sites than the threshold are needed to open it."""
    if phase != "share":
        return answer
    split = shamir.split
    with patched(shamir, "split", lambda s, t, n, entropy: split(s, t + 1, n, entropy=entropy)):
        return dealt_again(federation, liar, request)


def one_wrong_share(which: int) -> Lie:
    """One holder's share of one secret (0: the seed, 1: the mask key's) is another one, committed to and signed."""

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        if phase != "share":
            return answer
        split, calls = shamir.split, []

        def splitting(secret: bytes, threshold: int, holders: int, entropy) -> list[bytes]:
            shares = split(secret, threshold, holders, entropy=entropy)
            calls.append(secret)
            return [*shares[:-1], shamir.draw_secret(entropy)] if len(calls) == which + 1 else shares

        with patched(shamir, "split", splitting):
            return dealt_again(federation, liar, request)

    return lie


def shares_of_another_key(federation: Stage, liar: str, phase: str, request, answer):
    """A right sharing of a mask key that is not the advertised one; signed."""
    if phase != "share":
        return answer
    return dealt_again(federation, liar, request, mask_key=system_entropy(KEY_BYTES))


def dealt_again(federation: Stage, liar: str, listed: AdvertisementList, mask_key: bytes = b"") -> ShareBundle:
    """A new dealing of the liar's secrets in this session, or of another mask key."""
    secrets, params = federation.secrets_of[liar], federation.params
    agree = x25519_agreement(secrets.channel_key)
    keys = {
        a.site: dealing.masks.share_key(params, agree(a.channel_key), (liar, a.site))
        for a in listed.advertisements
    }
    shared = dealing.Secrets(secrets.seed, mask_key or secrets.mask_key)
    bundle = dealing.deal(params, listed, federation.sites[liar].identity, shared, keys)
    return resigned(params, listed, federation.sites[liar].identity, bundle)


def false_complaint(*accused: str, secret: bytes = b"") -> Lie:
    """A complaint about right shares (of the first other site if none is named), that opens the liar's channel; signed."""

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        if phase != "accept":
            return answer
        listed, params = federation.listed, federation.params
        named = accused or tuple(site for site in request.dealers if site != liar)[:1]
        pieces = federation.pieces_of[liar]
        accusations = tuple(
            messages.Accusation(d, dealing.Piece.read(pieces[d]).statement(params, listed, (d, liar)))
            for d in named
        )
        unsigned = messages.Receipt(
            liar,
            request.digest(params.salt, liar),
            accusations,
            secret or federation.secrets_of[liar].channel_key,
            bytes(64),
        )
        return replace(unsigned, signature=federation.sites[liar].identity.sign(unsigned.statement(params.salt)))

    return lie


def wrong_shares(*dealers: str) -> Lie:
    """Other shares than the accepted ones are revealed (of the first survivor if none is named), signed as they are."""

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        if phase != "unmask":
            return answer
        lists, salt = request.survivors, federation.params.salt
        seeds = dict(zip(lists.survivors, messages.cut(answer.seed_shares, 32), strict=True))
        keys = dict(zip(lists.lost, messages.cut(answer.key_shares, 32), strict=True))
        for dealer in dealers or lists.survivors[:1]:
            (seeds if dealer in seeds else keys)[dealer] = shamir.draw_secret()
        committed = []
        for dealer in lists.shared:
            piece = Piece.read(federation.pieces_of[liar][dealer])
            challenge, context = int.from_bytes(piece.challenge, "big"), Context(salt, dealer, liar)
            kind = SEED if dealer in seeds else KEY
            committed.append(piece.entry.committed(context, challenge, kind, (seeds | keys)[dealer]))
        statement = messages.reveal_statement(salt, liar, lists, committed)
        signature = federation.sites[liar].identity.sign(statement)
        return messages.RevealedShares(liar, b"".join(seeds.values()), b"".join(keys.values()), signature)

    return lie


def unsigned(phase_of_lie: str) -> Lie:
    """An answer whose signature does not hold."""

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        return replace(answer, signature=bytes(64)) if phase == phase_of_lie else answer

    return lie


def silent_from(phase_of_silence: str) -> Lie:
    """No answer from some exchange on."""
    phases = ("advertise", "share", "accept", "mask", "confirm", "unmask")

    def lie(federation: Stage, liar: str, phase: str, request, answer):
        return None if phases.index(phase) >= phases.index(phase_of_silence) else answer

    return lie


class Stage(Protocol):
    """What a liar knows of a session."""

    params: Params
    sites: dict[str, LocalSite]
    secrets_of: dict[str, Any]
    pieces_of: dict[str, dict[str, bytes]]
    listed: AdvertisementList | None


def pieces_in(request: messages.ShareDelivery, listed: AdvertisementList) -> dict[str, bytes]:
    """The pieces of a delivery by dealer."""
    size = messages.piece_bytes(len(listed.sites))
    return dict(zip(request.dealers, messages.cut(request.pieces, size), strict=True))


@dataclass
class HostileFederation(Federation):
    """A federation with liars, whose secrets they know: ``play`` runs a session with them in it."""

    secrets_of: dict[str, object] = field(default_factory=dict)
    pieces_of: dict[str, dict[str, bytes]] = field(default_factory=dict)
    listed: AdvertisementList | None = None
    altered: Callable[[str, str, object], object] = lambda _phase, _site, request: request
    refused: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    asked: dict[tuple[str, str], object] = field(default_factory=dict)
    answered: dict[tuple[str, str], object] = field(default_factory=dict)
    states: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def play(self, lies: dict[str, Lie]) -> None:
        """Until there is a sum or an abort; ``altered`` is what the coordinator does to a request on its way."""
        server = self.server
        while not server.finished:
            phase = server.phase
            for site, request in server.requests().items():
                self.step(phase, site, request, lies)
            server.advance()

    def step(self, phase: str, site: str, request, lies: dict[str, Lie]) -> None:
        request = self.altered(phase, site, request)
        self.asked[phase, site], self.states[phase, site] = request, self.clients[site].to_state()
        try:
            answer = self.answer(site, request)
        except FedcartError as error:
            self.refused[site] = error.message
            return
        if phase == "advertise":
            self.secrets_of[site] = self.clients[site]._state.secrets
        if phase == "share":
            self.listed = request
        if phase == "accept":
            self.pieces_of[site] = pieces_in(request, self.listed)
        if site in lies:
            answer = lies[site](self, site, phase, request, answer)
        if answer is None:
            return
        self.answered[phase, site] = answer
        if phase == "mask":
            self.left.add(site)
        try:
            self.server.receive(site, messages.encode(answer))
        except FedcartError as error:
            self.refused[site] = error.message


def hostile(federation: Federation) -> HostileFederation:
    """The same parties, ready to play with liars among them."""
    return HostileFederation(federation.params, federation.roster, federation.sites, federation.vectors)


def next_attempt(federation: HostileFederation, without: tuple[str, ...]) -> HostileFederation:
    """The same sites, journals and contributions in a new session, without some of them."""
    old = federation.params
    cohort = tuple(m for m in old.cohort if m.site not in without)
    session = replace(old.session, attempt=old.session.attempt + 1)
    params = replace(old, cohort=cohort, session=session, threshold=messages.default_threshold(len(cohort)))
    sites = {name: site for name, site in federation.sites.items() if name not in without}
    return HostileFederation(params, federation.roster, sites, federation.vectors)


@dataclass
class Puppet:
    """A liar's stage in a real run: what one machine of it knew in the messages of one session."""

    params: Params
    sites: dict[str, LocalSite]
    secrets_of: dict[str, Any] = field(default_factory=dict)
    pieces_of: dict[str, dict[str, bytes]] = field(default_factory=dict)
    listed: AdvertisementList | None = None


def corrupt_machines(monkeypatch: Any, lie_of: Callable[[str, messages.Session], Lie | None]) -> None:
    """Make the machines of the sites that ``lie_of`` names lie, in this process, through whatever calls them."""
    stages: dict[tuple[str, messages.Session], Puppet] = {}

    def lying(phase: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def step(machine: ClientProtocol, *arguments: Any) -> Any:
            site, params = machine._site, machine.params
            name, request = site.identity.name, arguments[0] if arguments else params
            stage = stages.setdefault((name, params.session), Puppet(params, {name: site}))
            answer = honest(machine, *arguments)
            if phase == "advertise":
                stage.secrets_of[name] = machine._state.secrets
            if phase == "share":
                stage.listed = request
            if phase == "accept":
                stage.pieces_of[name] = pieces_in(request, stage.listed)
            lie = lie_of(name, params.session)
            return lie(stage, name, phase, request, answer) if lie else answer

        return step

    for phase in ("advertise", "share", "accept", "mask", "confirm", "unmask"):
        monkeypatch.setattr(ClientProtocol, phase, lying(phase, getattr(ClientProtocol, phase)))
