"""A federation in memory for the tests and benchmarks of secure aggregation: every message passes as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from common.contribution import Block
from common.secagg import messages
from common.secagg.client import ClientProtocol, CohortPolicy, LocalSite
from common.secagg.journal import Journal, MemoryJournal
from common.secagg.messages import Answer, Member, Params, Request, Session, default_threshold
from common.secagg.server import EXCHANGES, ServerProtocol
from common.trust.crypto import Entropy, sha256, system_entropy
from common.trust.identity import SITE, Identity, Party, Roster

ANSWERS = (
    messages.Advertisement,
    messages.ShareBundle,
    messages.Receipt,
    messages.MaskedVector,
    messages.Confirmation,
    messages.RevealedShares,
)  # of the exchanges, in order
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
"""Of each exchange: what a site is asked."""
MODEL, QUERY, ROSTER, WITNESS = b"m" * 32, b"q" * 32, b"r" * 32, b"w" * 32


def counting_entropy(seed: str) -> Entropy:
    """Deterministic bytes: SHA-256 of seed and a counter. For tests only."""
    state = {"n": 0}

    def draw(size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += sha256(seed.encode(), state["n"].to_bytes(8, "big"))
            state["n"] += 1
        return out[:size]

    return draw


@dataclass
class Federation:
    """All parties of one session."""

    params: Params
    roster: Roster
    sites: dict[str, LocalSite]
    vectors: dict[str, NDArray[np.uint32]]
    clients: dict[str, ClientProtocol] = field(default_factory=dict)
    server: ServerProtocol | None = None
    sent: dict[tuple[str, str], tuple[bytes, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clients = {name: ClientProtocol(site, self.params) for name, site in self.sites.items()}
        self.server = ServerProtocol(self.params)

    @property
    def names(self) -> tuple[str, ...]:
        return self.params.sites

    def contribution(self, site: str) -> bytes:
        return hashlib.sha256(self.vectors[site].tobytes() + site.encode()).digest()

    def answer(self, site: str, request: Request) -> Answer:
        """What the site answers, in a new process each time."""
        old = self.clients[site]
        client = ClientProtocol.from_state(self.sites[site], old.to_state())
        answer = ask(client, request, self.vectors[site], self.contribution(site))
        self.clients[site] = client
        return answer

    def exchange(self, phase: str, site: str, request: Request) -> bytes:
        """The answer as bytes, to a request as bytes; recorded in ``sent``."""
        raw = messages.encode(request)
        answer = messages.encode(self.answer(site, messages.decode(type(request), raw)))
        self.sent[phase, site] = (raw, answer)
        return answer

    def run_until(self, phase: str, lost: Iterable[tuple[str, str]] = ()) -> ServerProtocol:
        """Run the exchanges before ``phase``; ``lost`` holds (phase, site) that do not answer."""
        missing, server = set(lost), self.server
        while server.phase != phase:
            for site, request in server.requests().items():
                if (server.phase, site) not in missing:
                    server.receive(site, self.exchange(server.phase, site, request))
            server.advance()
        return server

    def plain_sum(self, survivors: Iterable[str]) -> NDArray[np.uint32]:
        total = np.zeros(self.params.vector_length, dtype=np.uint32)
        for site in survivors:
            total += self.vectors[site]
        return total

    def next_attempt(self, **changes: object) -> Federation:
        """The same sites, journals and contributions in another session."""
        session = replace(self.params.session, attempt=self.params.session.attempt + 1)
        params = replace(self.params, **{"session": session, **changes})
        return Federation(params, self.roster, self.sites, self.vectors)


def ask(client: ClientProtocol, request: Request, vector: NDArray[np.uint32], contribution: bytes) -> Answer:
    """The site's answer to a request of any kind."""
    handlers: dict[type, Callable[[], Answer]] = {
        messages.Params: lambda: client.advertise(),
        messages.AdvertisementList: lambda: client.share(request),
        messages.ShareDelivery: lambda: client.accept(request),
        messages.AcceptedList: lambda: client.mask(request, vector, contribution),
        messages.SurvivorList: lambda: client.confirm(request),
        messages.ConfirmationList: lambda: client.unmask(request),
    }
    return handlers[type(request)]()


def blocks(length: int) -> tuple[Block, ...]:
    return (Block("update", length - 2, 4.0, 22), Block("counts", 2, 1000.0, 0))


def build(
    sites: int,
    *,
    length: int = 40,
    threshold: int | None = None,
    seeded: bool = False,
    journal: Callable[[str], Journal] = lambda _: MemoryJournal(),
    policy: CohortPolicy | None = None,
) -> Federation:
    """A federation of ``sites`` sites with extreme and random vectors; ``seeded`` repeats bit for bit."""
    names = [f"site-{i}" for i in range(sites)]
    identities = {name: Identity.from_seed(name, hashlib.sha256(name.encode()).digest()) for name in names}
    roster = Roster(tuple(Party(name, SITE, identity.public_key) for name, identity in identities.items()))
    cohort = tuple(Member(name, identities[name].public_key, float(1 << (i % 4))) for i, name in enumerate(names))
    layout = blocks(length)
    limit = default_threshold(sites) if threshold is None else threshold
    params = Params(Session("run", 1, 0), cohort, limit, layout, MODEL, QUERY, ROSTER, WITNESS)
    local = {
        name: LocalSite(
            identities[name],
            roster,
            journal(name),
            policy or CohortPolicy(min_threshold=threshold),
            counting_entropy(name) if seeded else system_entropy,
        )
        for name in names
    }
    return Federation(params, roster, local, {name: ring_vector(i, length) for i, name in enumerate(names)})


def ring_vector(seed: int, length: int) -> NDArray[np.uint32]:
    """A vector at and inside the limits of ``blocks(length)``."""
    draw = np.random.default_rng(seed)
    limit = 4 << 22
    signed = draw.integers(-limit, limit + 1, size=length)
    signed[:2] = -limit, limit
    signed[-2:] = draw.integers(0, 1001, size=2)
    return signed.astype(np.int32).view(np.uint32)
