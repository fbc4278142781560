"""One account over several runs and ledgers: what of it is the same money, and what adds up.

The unit is the consumer of a scope. What one ledger holds is one account, in however many run folders its attestations lie;
two ledgers of one scope are two accounts about the same consumers, and add up. Scopes are other consumers, or other data of
the same: a consumer who is in several has lost their sum.

Guarantee: nothing that is given is left out of a sum unless another given record proves that it holds it: by the hash of
the entry, by a charge made for it, or by a later signature of the same key. Where that proof is missing, it counts twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from common.audit.records import Records, asked_since, attestations_in, rounds_of
from common.errors import VerificationError
from common.privacy import (
    Charge,
    Losses,
    PrivacyEvent,
    Replay,
    SignedAttestation,
    epsilon_alone,
    epsilon_everywhere,
    epsilon_of,
    round_up,
)


@dataclass(frozen=True)
class Account:
    """All that one ledger says was spent, as far as a record shows it: the ledger itself, or a site's last word on it.

    ``sites``: who reserves from it; ``key``: public key (hex) under which it is signed, empty where no roster says so;
    ``order``: the Rényi order fixed in it; ``adaptive``: it counts. ``runs``: those named in the record. ``hash_at``: of an
    entry by its number, where the ledger itself is there. ``unsettled``: of the reservation that was attested last, and what was asked since.
    ``attested``: hashes of entries by their number, as the site has signed them.
    """

    sites: frozenset[str]
    scope: str
    key: str
    losses: Losses
    order: float | None
    adaptive: bool
    delta: float
    limit: float | None
    simulated: bool
    sequence: int
    head: str
    runs: frozenset[str] = frozenset()
    charges: tuple[Charge, ...] = ()
    continues: int = -1
    unsettled: Losses = field(default_factory=Losses)
    hash_at: Callable[[int], str | None] | None = field(default=None, compare=False, repr=False)
    attested: Mapping[int, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def settled(self) -> Losses:
        """What cannot have been given back since: an attested reservation still can."""
        return self.losses.beyond(self.unsettled)

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What was spent."""
        return self.losses.events

    @property
    def epsilon(self) -> float:
        """Spent so far, rounded up to six decimals."""
        return round_up(epsilon_of(self.losses, self.delta, self.order if self.adaptive else None))

    def holds(self, other: Account) -> bool:
        """Whether all that the other says is proven to be in this one."""
        if self.forked_at(other) is not None:
            return False
        if (self.sequence, self.head) == (other.sequence, other.head):
            return True
        if self.hash_at is not None:
            inside = self.hash_at(other.sequence) == other.head
            return inside or any(self._stands_for(charge, other) for charge in self.charges)
        same = bool(self.key) and (self.key, self.scope) == (other.key, other.scope)
        return same and self.sequence > other.sequence and self.losses.covers(other.settled)

    def forked_at(self, other: Account) -> int | None:
        """The first entry under whose number one key has signed two: a copy was gone on with. None if there is none."""
        if not self.key or (self.key, self.scope) != (other.key, other.scope):
            return None
        if self.hash_at is not None and other.hash_at is not None:
            return _first_difference(self.hash_at, other.hash_at, min(self.sequence, other.sequence))
        numbers = sorted({*self.attested, *other.attested})
        pairs = ((number, self._entry(number), other._entry(number)) for number in numbers)
        return next((number for number, mine, its in pairs if mine and its and mine != its), None)

    def _entry(self, number: int) -> str | None:
        return self.attested.get(number) or (self.hash_at(number) if self.hash_at is not None else None)

    def knowing_the_limit_of(self, held: Account) -> Account:
        """With the limit that a held record attests, where this one says none: a ledger alone does not."""
        return self if self.limit is not None else replace(self, limit=held.limit)

    def _stands_for(self, charge: Charge, other: Account) -> bool:
        """A charge for a ledger that was moved here, for an earlier run, or for the ledger that this one continues."""
        if not Losses.of(charge.events).covers(other.losses):
            return False
        moved = charge.site in other.sites and other.sequence <= charge.until and charge.key in ("", other.key)
        moved = moved and (other.sequence < charge.until or charge.head in ("", other.head))
        earlier = self.simulated and other.simulated and charge.reason in {f"run {run}" for run in other.runs}
        recovered = charge is self.charges[0] and self.sites & other.sites and other.sequence <= self.continues
        return bool(moved or earlier or (recovered and self.scope == other.scope))


@dataclass(frozen=True)
class ScopeTotal:
    """What a consumer of one scope has lost over all accounts about it. ``limit``: the smallest known of them."""

    scope: str
    accounts: tuple[Account, ...]
    epsilon: float
    delta: float
    limit: float | None

    @property
    def sites(self) -> tuple[str, ...]:
        """Who holds these consumers' data."""
        return tuple(sorted(set().union(*(account.sites for account in self.accounts))))

    @property
    def colluders(self) -> int | None:
        """How many colluding sites ``epsilon`` holds against at least; None: any number."""
        return min((a.losses.colluders for a in self.accounts if a.losses.colluders is not None), default=None)

    @property
    def alone(self) -> float:
        """What is left of the promise if no other site is honest, rounded up."""
        if len(self.accounts) > 1:
            return self.epsilon  # several accounts are composed by what each site's own noise allows
        (one,) = self.accounts
        return round_up(epsilon_alone(one.losses, self.delta, one.order if one.adaptive else None))

    @property
    def left(self) -> float | None:
        """Limit minus spent, at least 0; None without a limit."""
        return None if self.limit is None else max(0.0, self.limit - self.epsilon)


@dataclass(frozen=True)
class Returning:
    """What somebody has lost who is in all of these scopes."""

    who: str
    scopes: tuple[str, ...]
    epsilon: float
    delta: float


@dataclass(frozen=True)
class History:
    """The account over all that was given. ``returning``: consumers of several scopes of one site, then of all of them."""

    scopes: tuple[ScopeTotal, ...]
    returning: tuple[Returning, ...]
    warnings: tuple[str, ...]

    @property
    def epsilon(self) -> float:
        """Of the worst scope."""
        return max((scope.epsilon for scope in self.scopes), default=0.0)


def accounts_in(records: Records) -> list[Account]:
    """Every account at a path: its ledgers, and what the sites attested in its rounds."""
    found = [_of_ledger(state, records.limit(file)) for file, state in records.replays.items()]
    rounds = rounds_of(records.run)
    asked = asked_since(records.run, rounds)
    for site, attested in attestations_in(rounds).items():
        roster = records.roster
        key = roster.party(site).public_key.hex() if roster is not None else ""
        own = [signed for signed in attested if key and _is_own(signed, bytes.fromhex(key))]
        more = Losses.of(event for _, events in asked.get(site, ()) for event in events)
        account = _of_attestations(attested, key, more)
        entries = {signed.attestation.sequence: signed.attestation.head for signed in own}
        found.append(replace(account, attested=entries))
    return found


def _is_own(signed: SignedAttestation, key: bytes) -> bool:
    """Whether the site has signed it: for what others wrote in its name it is not called one that forked its ledger."""
    try:
        signed.verify(key)
    except VerificationError:
        return False
    return True


def make_history(accounts: Iterable[Account]) -> History:
    """Leave out what others hold, add up what is left: per scope, and over the scopes that a consumer can be in."""
    kept = _without_held(accounts)
    scopes = [_scope_total(scope, kept) for scope in dict.fromkeys(account.scope for account in kept)]
    returning = []
    for site in sorted(set().union(*(account.sites for account in kept))):
        own = [account for account in kept if site in account.sites]
        if len({account.scope for account in own}) > 1:
            returning.append(_returning(f"in every scope of {site}", own))
    if len(scopes) > 1 and not (len(returning) == 1 and len(returning[0].scopes) == len(scopes)):
        returning.append(_returning(f"in all {len(scopes)} scopes", kept))
    return History(tuple(scopes), tuple(returning), tuple(_warnings(scopes)))


def _first_difference(
    mine: Callable[[int], str | None], its: Callable[[int], str | None], last: int
) -> int | None:
    """The first number up to ``last`` under which two chains have different entries: each entry holds the one before."""

    def differ(number: int) -> bool:
        pair = mine(number), its(number)
        return None not in pair and pair[0] != pair[1]

    if not differ(last):
        return None
    return bisect_left(range(last), True, key=differ)


def _of_ledger(state: Replay, limit: float | None) -> Account:
    header = state.header
    assert header is not None  # a replay begins with it
    return Account(
        sites=frozenset({header.site, *state.admitted.values()} if not header.shared else state.admitted.values())
        or frozenset({header.site}),
        scope=header.scope,
        key=header.public_key,
        losses=state.spent,
        order=state.order,
        adaptive=state.adaptive_order is not None,
        delta=header.delta,
        limit=limit,
        simulated=header.simulated,
        sequence=state.sequence - 1,
        head=state.head,
        runs=frozenset(r.body.run for r in state.reservations.values()),
        charges=tuple(state.charges),
        continues=state.first_sequence - 1,
        hash_at=state.hash_at,
    )


def _of_attestations(attested: Sequence[SignedAttestation], key: str, asked: Losses) -> Account:
    """``asked``: since the last of them, and not attested."""
    said = max((signed.attestation for signed in attested), key=lambda one: one.sequence)
    return Account(
        sites=frozenset({said.site}),
        scope=said.scope,
        key=key,
        losses=Losses.of(said.totals) + asked,
        order=said.order,
        adaptive=said.adaptive,
        delta=said.delta,
        limit=said.limit,
        simulated=said.simulated,
        sequence=said.sequence,
        head=said.head,
        runs=frozenset(signed.attestation.run for signed in attested),
        unsettled=Losses.of(said.events) + asked,
    )


def _without_held(accounts: Iterable[Account]) -> list[Account]:
    kept: list[Account] = []
    for account in accounts:
        holder = next((other for other in kept if other.holds(account)), None)
        if holder is not None:
            kept[kept.index(holder)] = holder.knowing_the_limit_of(account)
            continue
        for other in [other for other in kept if account.holds(other)]:
            kept.remove(other)
            account = account.knowing_the_limit_of(other)
        kept.append(account)
    return kept


def _scope_total(scope: str, kept: Sequence[Account]) -> ScopeTotal:
    own = tuple(account for account in kept if account.scope == scope)
    delta = min(account.delta for account in own)
    limits = [account.limit for account in own if account.limit is not None]
    return ScopeTotal(scope, own, _sum(own, delta), delta, min(limits, default=None))


def _returning(who: str, own: Sequence[Account]) -> Returning:
    delta = min(account.delta for account in own)
    return Returning(who, tuple(dict.fromkeys(account.scope for account in own)), _sum(own, delta), delta)


def _sum(accounts: Sequence[Account], delta: float) -> float:
    """Epsilon of a consumer who is in all of these accounts, rounded up.

    Each draws its own hold-out, so the worse side of each counts. No account was planned together with another one's
    releases, so an order counts that was fixed before; whichever came first, the largest over their orders is not below it.
    """
    if len(accounts) == 1 and accounts[0].delta == delta:
        return accounts[0].epsilon
    orders: list[float | None] = [account.order for account in accounts if account.order is not None]
    losses = [account.losses for account in accounts]
    return round_up(
        max(epsilon_everywhere([(one, order) for one in losses], delta) for order in set(orders or [None]))
    )


def _warnings(scopes: Sequence[ScopeTotal]) -> Iterable[str]:
    for total in scopes:
        for one, other in combinations(total.accounts, 2):
            if (number := one.forked_at(other)) is not None:
                yield (
                    f"scope {total.scope}: its site has signed two different entries {number}: its ledger was set back, or a copy "
                    "of it gone on with; both ends count"
                )
        keys = [account.key for account in total.accounts]
        if len(keys) > 1 and len(set(keys)) < len(keys):
            yield (
                f"scope {total.scope}: two ends of one ledger, and none holds the other: a copy was gone on with, or a record "
                "between them is missing here; both count"
            )
        elif len(keys) > 1:
            yield (
                f"scope {total.scope} has {len(keys)} ledgers here, each with a limit of its own: what the same consumers lost is "
                "their sum. If it is one shared ledger, name that too; if not: fedcart site move-ledger"
            )
        if total.colluders is not None:
            yield (
                f"scope {total.scope}: {total.epsilon} holds against the server and at most {total.colluders} other sites "
                f"together with it; if no other site is honest, {total.alone}"
            )
        if total.limit is not None and total.epsilon > total.limit:
            yield f"scope {total.scope}: {total.epsilon} is above the limit {total.limit}."
