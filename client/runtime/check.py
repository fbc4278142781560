"""``fedcart site check``: everything that could stop a site, found before the first round, with what to do."""

from __future__ import annotations

import datetime
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.guard import SitePolicy
from client.runtime.reach import Reached, reach_server
from client.site import Site, load_site
from common.atomic import read_small
from common.deployment import SiteKit
from common.errors import BadInputError, FedcartError, VerificationError
from common.kit_files import SPECIAL, require_known_files, strange_files
from common.privacy import show_exact
from common.trust import IDENTITY_KEY, NODE_KEY, is_private
from common.trust.certificates import certificate_facts, load_node_key, verify_issued

if TYPE_CHECKING:
    from common.data import Mapping
    from common.source_settings import SourceSettings

OK, WARNING, FAILED = "ok", "warning", "failed"
WARN_DAYS = 30.0
FLOWER = ((1, 41), (1, 43))  # from, below: the versions whose private names common/flower.py knows
FREE_BYTES_NEEDED, FREE_BYTES_WISHED = 200_000_000, 2_000_000_000
AHEAD_S, BEHIND_S = 5.0, 300.0  # what Flower's node authentication forgives
SECRET_FILES = (IDENTITY_KEY, NODE_KEY)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was checked, how it stands, what was found, what to do."""

    name: str
    status: str
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Subject:
    """What the checks look at."""

    kit: SiteKit
    site: Site
    policy: SitePolicy
    reached: Reached | FedcartError


Check = Callable[[Subject], Row]


def check_site(kit: SiteKit, *, timeout_s: float = 5.0, data: bool = True) -> list[Row]:
    """Look at everything and change nothing but the making of an empty ledger. Never raises for a bad site.

    ``data`` False: neither event log nor policy are judged, which takes time and changes rarely.
    """
    rows = [
        _row("kit", lambda: _kit(kit)),
        _row("files", lambda: _files(kit)),
        _row("permissions", lambda: _permissions(kit)),
    ]
    if any(name.endswith(SPECIAL) for name in strange_files(kit)):  # whoever opens a pipe waits for ever
        return [*rows, Row("settings", FAILED, "not read", "move what is no file out of the kit first")]
    try:
        site, policy = load_site(kit.path), SitePolicy.load(kit.policy)
    except FedcartError as error:
        return [*rows, Row("settings", FAILED, error.message, error.hint)]
    try:
        reached: Reached | FedcartError = reach_server(site.file.server.address, kit.authority, timeout_s)
    except FedcartError as error:
        reached = error
    subject = Subject(kit, site, policy, reached)
    return [*rows, *_subject_rows(subject, data=data)]


def verdict(rows: list[Row]) -> str:
    """The worst status of all rows."""
    statuses = {row.status for row in rows}
    return FAILED if FAILED in statuses else WARNING if WARNING in statuses else OK


def _subject_rows(subject: Subject, *, data: bool) -> Iterator[Row]:
    from common.supervisor import running_pid

    checks: tuple[tuple[str, Check], ...] = (
        ("roster", _roster), ("node key", _node_key), ("authority", _authority), ("server", _server),
        ("server certificate", _certificate), ("clock", _clock), ("versions", _versions), ("disk", _disk),
        ("ledger", _ledger), ("budget", _budget), ("delta", _delta),
    )  # fmt: skip
    for name, check in checks:
        yield _row(name, lambda check=check: check(subject))  # type: ignore[misc]
    if data:
        yield from _policy_rows(subject)
        yield from _data_rows(subject)
    pid = running_pid(subject.kit)
    yield Row("running", OK, f"yes, process {pid}" if pid else "no", "" if pid else "fedcart site start")


def _row(name: str, check: Callable[[], Row]) -> Row:
    try:
        return check()
    except FedcartError as error:
        return Row(name, FAILED, error.message, error.hint)
    except OSError as error:
        return Row(
            name, FAILED, f"{error.filename}: {error.strerror}", "check that the file is there and readable"
        )


def _kit(kit: SiteKit) -> Row:
    needed = (kit.settings, kit.policy, kit.roster, kit.authority, kit.identity_key, kit.node_key)
    missing = [path.name for path in needed if not path.is_file()]
    if missing:
        todo = "copy your keys here" if set(missing) <= set(SECRET_FILES) else "take the kit again"
        return Row("kit", FAILED, f"missing: {', '.join(missing)}", todo)
    return Row("kit", OK, f"complete: {kit.path}")


def _files(kit: SiteKit) -> Row:
    require_known_files(kit)
    return Row("files", OK, "nothing in the kit but what belongs there")


def _permissions(kit: SiteKit) -> Row:
    loose = [str(path.relative_to(kit.path)) for path in kit.secrets if not is_private(path)]
    if loose:
        return Row(
            "permissions", FAILED, f"readable by others: {', '.join(loose)}", f"chmod 600 {' '.join(loose)}"
        )
    settings = (kit.path, kit.settings, kit.policy, kit.roster, kit.authority)
    changeable = [path.name for path in settings if path.exists() and _mode(path) & 0o022]
    if changeable:
        todo = "chmod go-w: whoever writes there decides what this site allows"
        return Row("permissions", FAILED, f"writable by others: {', '.join(changeable)}", todo)
    if kit.state.exists() and _mode(kit.state) & 0o077:
        return Row("permissions", WARNING, "state/ is readable by others", "chmod 700 state")
    return Row("permissions", OK, "keys are readable by their owner only")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _roster(subject: Subject) -> Row:
    roster = subject.site.roster
    key = roster.coordinator.public_key.hex()
    found = (
        f"{len(roster.sites)} sites, version {roster.version}, coordinator {roster.coordinator.name} {key[:16]}"
    )
    todo = "compare these six words with ANOTHER site's, by telephone: that nobody plays the other sites"
    return Row("roster", OK, f"{found}: {roster.fingerprint}", todo)


def _node_key(subject: Subject) -> Row:
    load_node_key(subject.kit.node_key)
    return Row("node key", OK, "EC P-384")


def _authority(subject: Subject) -> Row:
    return _dates("authority", read_small(subject.kit.authority), "ask the coordinator for a new ca.crt")


def _dates(name: str, pem: bytes, todo: str) -> Row:
    facts = certificate_facts(pem)
    now = datetime.datetime.now(datetime.UTC)
    left = facts.days_left(now)
    span = f"valid until {facts.not_after.date()}"
    if now < facts.not_before:
        return Row(name, FAILED, f"not valid before {facts.not_before.date()}", "set this machine's clock")
    if left <= 0:
        return Row(name, FAILED, f"expired on {facts.not_after.date()}", todo)
    return Row(name, WARNING if left < WARN_DAYS else OK, span, todo if left < WARN_DAYS else "")


def _server(subject: Subject) -> Row:
    reached, address = subject.reached, subject.site.file.server.address
    if isinstance(reached, FedcartError):
        return Row("server", FAILED, reached.message, reached.hint)
    through = f" through the proxy {reached.proxy} (https_proxy)" if reached.proxy else ""
    return Row("server", OK, f"{address} answers in {1000 * reached.seconds:.0f} ms{through}")


def _certificate(subject: Subject) -> Row:
    if isinstance(subject.reached, FedcartError):
        return Row("server certificate", WARNING, "not seen: the server was not reached", "check again later")
    try:
        verify_issued(subject.reached.certificate_pem, read_small(subject.kit.authority))
    except VerificationError as error:
        return Row("server certificate", FAILED, error.message, error.hint)
    return _dates("server certificate", subject.reached.certificate_pem, "ask the coordinator to renew it")


def _clock(subject: Subject) -> Row:
    if isinstance(subject.reached, FedcartError):
        return Row("clock", WARNING, "not compared: the server was not reached", "check again later")
    ahead = subject.reached.clock_ahead_s
    what = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server"
    if ahead > AHEAD_S or ahead < -BEHIND_S:
        return Row("clock", FAILED, what, "synchronise the clock (NTP): logins would be refused")
    return Row("clock", OK, what)


def flower_fits(version: str) -> bool:
    """Whether a version of Flower is one of those that are supported."""
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return len(parts) == 2 and FLOWER[0] <= parts < FLOWER[1]


def _versions(subject: Subject) -> Row:  # noqa: ARG001
    flower = metadata.version("flwr")
    versions = f"fedcart {metadata.version('fedcart')}, flwr {flower}, torch {metadata.version('torch')}"
    if not flower_fits(flower):
        first, below = (".".join(map(str, part)) for part in FLOWER)
        needed = f"flwr from {first}, below {below}, is needed"
        return Row("versions", FAILED, f"{versions}; {needed}", "install with constraints.txt")
    return Row("versions", OK, versions)


def _disk(subject: Subject) -> Row:
    free = shutil.disk_usage(subject.kit.state if subject.kit.state.exists() else subject.kit.path).free
    space = f"{free / 1e9:.1f} GB free"
    if free < FREE_BYTES_NEEDED:
        return Row("disk", FAILED, space, "free some space: a full disk stops the site before it trains")
    return Row("disk", WARNING if free < FREE_BYTES_WISHED else OK, space)


def _ledger(subject: Subject) -> Row:
    status, shared = subject.site.guard().status(), subject.site.shared_ledger()
    where = f"shared, {shared.folder}" if shared else "in this kit"
    found = f"intact: {status.committed} releases, {status.open} open; {where}"
    if not status.reading.rdp and not shared:
        todo = "if these consumers took part elsewhere, point to that ledger: fedcart site move-ledger, docs/privacy.md"
        return Row("ledger", WARNING, f"first ledger of scope {status.scope} here", todo)
    return Row("ledger", OK, found)


def _budget(subject: Subject) -> Row:
    from common.privacy import show_epsilon

    status = subject.site.guard().status()
    spent = f"epsilon {show_epsilon(status.epsilon)} of {show_exact(status.limit)} spent in scope {status.scope}"
    if status.left <= 0:
        return Row("budget", FAILED, spent, "this scope is used up: no further release for these consumers")
    return Row("budget", WARNING if status.left < 0.1 * status.limit else OK, spent)


def _delta(subject: Subject) -> Row:
    from common.privacy import delta_remark

    site, delta = subject.site.file.site, subject.policy.delta
    remark = delta_remark(delta, {site.name: site.population})
    if remark:
        return Row(
            "delta", WARNING, remark, "a scope's delta is fixed with its ledger: decide before the first run"
        )
    return Row("delta", OK, f"{show_exact(delta)} for {site.population:,} declared consumers")


def _policy_rows(subject: Subject) -> Iterator[Row]:
    """One row for each rule that allows more than the program's default."""
    laxer = subject.policy.laxer_rules()
    if not laxer:
        yield Row("policy", OK, "no rule allows more than the program's default")
    for rule, here, usual in laxer:
        yield Row("policy", WARNING, f"{rule} = {here} allows more than the default, {usual}",
                  f"is this your own choice? policy.toml, {rule}")  # fmt: skip


def _data_rows(subject: Subject) -> Iterator[Row]:
    try:
        log, report = _load(subject)
    except FedcartError as error:
        yield Row(
            "data",
            FAILED,
            error.message,
            f"{error.hint}; [site] of site.toml names file and format, [source] a database",
        )
        return
    summary = f"{report.kept:,} of {report.lines:,} lines usable, {report.items:,} items"
    dropped = ", ".join(f"{r.rule} {r.dropped:,}" for r in report.rules if r.dropped)
    status = WARNING if report.status == "warn" else OK
    yield Row("data", status, summary + (f"; left out: {dropped}" if dropped else ""),
              "fedcart data check shows every rule" if status == WARNING else "")  # fmt: skip
    yield _consumers(subject, report.consumers)
    yield _row("catalogue", lambda: _catalogue(subject, log))


def _load(subject: Subject) -> tuple[Any, Any]:
    from common.data import load_events, load_mapping, refuse_auto

    facts = subject.site.file.site
    mapping = load_mapping(subject.kit.resolve(facts.mapping)) if facts.mapping else None
    refuse_auto(facts.format, mapping)
    if subject.site.file.source is not None:
        return _load_source(subject, subject.site.file.source, mapping)
    return load_events(subject.kit.resolve(facts.events), facts.format, mapping, secret=subject.site.secret())


def _load_source(subject: Subject, settings: SourceSettings, mapping: Mapping | None) -> tuple[Any, Any]:
    """Everything that the source has, whatever was read of it before."""
    from common.data import joined
    from common.data.store.logs import Tally

    tally, log = Tally(), subject.site.source_log(settings, mapping)
    events = joined(replace(log, watermark="").pieces(tally))
    report = tally.report(log.source.name, log.format)
    if not report.kept:
        raise BadInputError(
            f"{log.source.name}: none of {report.lines} lines is usable", hint="see fedcart data check --source"
        )
    return events, report


def _consumers(subject: Subject, count: int) -> Row:
    from common.tasks import GROWN

    declared, least = subject.site.file.site.population, subject.policy.min_consumers
    summary = f"{count:,} consumers (this number stays here), declared {declared:,}"
    if declared < least:
        return Row("consumers", FAILED, f"{summary}, policy min_consumers {least}", "too small a site to protect")
    if count < least:
        return Row(
            "consumers", WARNING, f"{summary}, policy min_consumers {least}", "fewer than the floor: consider"
        )
    if count > GROWN * declared:
        todo = "sums with this site in them may be refused as impossible, at everybody's cost: declare anew"
        return Row("consumers", WARNING, summary, todo)
    if count < 0.5 * declared:
        return Row("consumers", WARNING, summary, "the declaration is far off: noise or weight is wasted")
    return Row("consumers", OK, summary)


def _catalogue(subject: Subject, log: Any) -> Row:
    from common.data import read_catalogue

    name = subject.site.file.site.catalogue
    if not name:
        return Row("catalogue", OK, "none: items are hashed into public buckets")
    catalogue = read_catalogue(subject.kit.resolve(name))
    items = log.frame["item"].drop_nulls()
    known = float((catalogue.item_index(items) > 0).mean()) if len(items) else 1.0
    summary = f"{len(catalogue.items):,} items, {known:.0%} of the events are about them"
    if known < 0.5:
        return Row("catalogue", WARNING, summary, "is this the catalogue of the run, with the same item ids?")
    return Row("catalogue", OK, summary)
