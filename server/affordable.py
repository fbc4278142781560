"""What a run would bring each site to, from the attestations that the coordinator has: before anybody is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.deployment import CoordinatorKit
from common.errors import ConfigError, RefusedError
from common.privacy import PrivacyEvent, choose_order, epsilon_of, round_up, show_epsilon, show_exact
from common.run import HEADS_FILE, RunConfig, RunPlan

EPSILONS = (8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.75, 0.5, 0.25)  # that are tried
USUAL_LIMIT = 8.0  # of a site's policy, where it is not known


@dataclass(frozen=True)
class SiteShare:
    """One site's account with a run in it. ``limit`` None: it never attested, so neither limit nor spending is known.

    ``after`` counts the whole run, as the site's own gate will.
    """

    site: str
    spent: float
    limit: float | None
    after: float

    @property
    def can_pay(self) -> bool:
        """Whether the whole run fits, as far as is known."""
        return self.limit is None or self.after <= self.limit

    @property
    def can_pay_at_the_usual_limit(self) -> bool:
        """As ``can_pay``; of a site that never attested the usual limit is taken."""
        return self.after <= (USUAL_LIMIT if self.limit is None else self.limit)

    @property
    def left(self) -> float | None:
        """What is left before the run."""
        return None if self.limit is None else max(0.0, self.limit - self.spent)


def shares(kit: CoordinatorKit, plan: RunPlan, runs: int = 1) -> list[SiteShare]:
    """Every site of a plan, as its last attestation leaves it, with so many runs of the plan on top.

    A site that never attested is taken to have the usual order and limit of a new one.
    """
    from server.admission import HeadsBook

    book, found = HeadsBook.open(kit.state / HEADS_FILE), []
    now = book.epsilon()
    for site in plan.sites:
        latest, spent = book.heads.latest(site), book.spent(site)
        if latest is None:
            asked = round_up(epsilon_of(spent, plan.config.privacy.delta))
            found.append(SiteShare(site, asked, None, epsilon_of_runs(plan, runs, spent)))
            continue
        said = latest.attestation
        kits = sum(one in plan.sites for one in book.of_scope(site))  # each of them pays from one account
        events = plan.total_events() * runs * kits
        # after a release, and from the second run on, a run is late: the scope's fixed order counts
        order = said.order if spent or runs > 1 else None
        after = round_up(epsilon_of([*spent, *events], said.delta, order))
        found.append(SiteShare(site, now[site], said.limit, after))
    return found


@dataclass(frozen=True)
class AfterRuns:
    """How the sites stand after so many runs of the same plan, one a period, each from the last one's model.

    ``worst``: largest epsilon of any site; ``cannot``: sites whose limit would be passed; ``unsure``: sites that have
    attested no limit yet and would pass the usual one.
    """

    number: int
    worst: float
    cannot: tuple[str, ...]
    unsure: tuple[str, ...] = ()


def horizon(kit: CoordinatorKit, plan: RunPlan, periods: int) -> list[AfterRuns]:
    """One statement over all periods: who can still pay after each. The unit stays the consumer of the scope."""
    found = []
    for number in range(1, periods + 1):
        after = shares(kit, plan, runs=number)
        cannot = tuple(share.site for share in after if not share.can_pay)
        unsure = tuple(share.site for share in after if share.limit is None and share.after > USUAL_LIMIT)
        found.append(AfterRuns(number, max(share.after for share in after), cannot, unsure))
    return found


def epsilon_of_runs(plan: RunPlan, runs: int, before: Iterable[PrivacyEvent] = ()) -> float:
    """What so many runs of a plan cost a consumer who is there in all of them, ``before`` them what was asked and never
    attested, and whose scope was new before that."""
    events, delta, earlier = plan.total_events(), plan.config.privacy.delta, list(before)
    order = choose_order(events, delta, USUAL_LIMIT) if runs > 1 or earlier else None
    return round_up(epsilon_of([*earlier, *(events * runs)], delta, order))


def require_carried(after: list[AfterRuns], sites: int, needed: int, hint: Callable[[int], str]) -> None:
    """Return if at least ``needed`` of so many sites can pay for all of these runs; ``hint``: what to do if so many fit.

    Raises: RefusedError saying how many runs they can pay for: nobody is asked to begin what cannot be ended.
    """
    carried = sum(sites - len(one.cannot) >= needed for one in after)
    if carried == len(after):
        return
    first = after[carried]
    raise RefusedError(
        f"the sites can pay for {carried} of the {len(after)} runs that are left of the schedule, {needed} sites are needed "
        f"in each: the next would bring {', '.join(first.cannot)} above the limit, at worst to epsilon {show_epsilon(first.worst)}",
        hint=hint(carried),
    )


def largest_that_fits(kit: CoordinatorKit, config: RunConfig, *, base: Path, runs: int = 1) -> str:
    """The largest epsilon, of those tried, with which every site can pay for so many such runs; empty if none is.

    A site that never attested is taken to have the usual limit.
    """
    from server.planning import plan_of_run

    for epsilon in EPSILONS:
        privacy = config.privacy.model_copy(update={"epsilon": epsilon})
        with suppress(ConfigError):  # this noise is not possible
            plan = plan_of_run(kit, config.model_copy(update={"privacy": privacy}), base=base)
            if all(share.can_pay_at_the_usual_limit for share in shares(kit, plan, runs)):
                return f"{show_exact(epsilon)}"
    return ""


def require_payers(found: list[SiteShare], needed: int) -> list[str]:
    """The sites that cannot pay, if enough others can. Raises: RefusedError if they are too few: nobody is asked."""
    poor = [share.site for share in found if not share.can_pay]
    if len(found) - len(poor) < needed:
        worst = max((share for share in found if share.limit is not None), key=lambda share: share.after)
        raise RefusedError(
            f"{len(found) - len(poor)} of {len(found)} sites can pay for this run, {needed} are needed; {worst.site} would "
            f"come to epsilon {show_epsilon(worst.after)}, its limit is {show_exact(worst.limit or USUAL_LIMIT)}",
            hint="fewer rounds or a smaller privacy.epsilon; fedcart server plan KIT RUN.toml shows what fits",
        )
    return poor
