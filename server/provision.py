"""From one ``federation.toml`` to a kit for every party, in seconds.

    KITS/authority/      certificate authority: keep it offline, it is needed only to renew certificates
    KITS/coordinator/    the coordinator's kit
    KITS/sites/NAME/     one kit per site
    KITS/roster.json     the public list of parties; every kit has a copy

Provisioning again keeps every key and everything an operator wrote: it adds sites, renews the server's
certificate, and rewrites the public roster.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from common.atomic import write_atomic
from common.data import Catalogue, write_catalogue
from common.deployment import (
    CoordinatorKit,
    Federation,
    FederationPins,
    Kit,
    Kits,
    SiteEntry,
    SiteKit,
    read_settings,
    split_address,
)
from common.errors import BadInputError, VerificationError
from common.kit_files import DELIVERED_ONCE, README_FILE
from common.privacy import USUAL_DELTA, delta_remark
from common.run import read_toml
from common.trust import NODE_KEY, ROSTER_FILE, Identity, Roster, require_private
from common.trust.certificates import Authority, certificate_facts, issue_server_certificate, make_authority
from common.trust.keyfiles import PublicKeys, make_site_keys, read_site_keys
from server.kit_files import policy_toml, site_readme, site_toml, unusual_deltas
from server.runtime.bundle import bundle_text, write_bundle
from server.stock import federation_catalogue, stock_remark

RENEW_DAYS = 30.0


@dataclass(frozen=True)
class Provisioned:
    """What was made: kits, new sites, sites whose private keys were made here, parties that left.

    ``deltas``: in new policies of sites with so many consumers that the usual one is too large; ``delta_remarks``: on those that
    are there already, and stay as they are. ``catalogue_changed``: kits had
    another one before. ``stock_remark``: what a run will do where the sites share no item.
    """

    kits: Path
    sites: tuple[str, ...]
    added: tuple[str, ...] = ()
    keys_made_here: tuple[str, ...] = ()
    deltas: dict[str, float] = field(default_factory=dict)
    delta_remarks: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    certificate_until: str = ""
    bundle: str = ""
    roster: tuple[str, ...] = field(default=())
    catalogue: str = ""
    catalogue_warning: str = ""
    catalogue_changed: bool = False
    stock_remark: str = ""


@dataclass(frozen=True)
class KitTexts:
    """What the text files of a site kit are made from."""

    federation: Federation
    pins: FederationPins
    approve: str


def provision(federation_file: Path, out: Path, *, bundle: str = "", approve: str = "ask") -> Provisioned:
    """Make or complete the kits of a federation.

    ``bundle`` is the text of another app bundle and ``approve`` the first value in new policies, for the demo
    and tests.
    Raises: ConfigError, BadInputError; nothing is written before the whole federation file is checked.
    """
    federation = read_settings(Federation, federation_file)
    catalogue = federation_catalogue(federation, federation_file.parent)
    brought = {s.name: _brought_keys(s, federation_file.parent) for s in federation.sites if s.keys}
    kept = _kept_deltas(Kits(out), federation)
    for part in ("authority", "coordinator", "sites"):
        _make_folder(out / part)
    authority = _authority(out / "authority", federation.name)
    coordinator = _coordinator_folders(Kits(out).coordinator)
    before = {path.stem for path in coordinator.nodes.glob("*.pub")}
    identity = _coordinator_identity(coordinator, federation.coordinator.name)
    until = _server_certificate(coordinator, authority, federation)
    digest = write_bundle(coordinator.bundle, bundle or bundle_text())
    pins = FederationPins(name=federation.name, coordinator=identity.public_key.hex(), bundle=digest)
    texts = KitTexts(federation, pins, approve)
    keys = {
        s.name: _site_kit(Kits(out).site(s.name).path, s, texts, brought.get(s.name)) for s in federation.sites
    }
    roster = Roster.signed_by(identity, [(name, one.identity) for name, one in keys.items()], _roster_before(out))
    every = (coordinator, *(Kits(out).site(name) for name in keys))
    _write_public(every, roster, authority)
    changed = _write_catalogue(catalogue, every)
    roster.save(out / ROSTER_FILE)
    _retire_heads(coordinator, roster)
    _admit(coordinator, keys)
    _write_coordinator_file(coordinator, federation, texts.pins)
    return Provisioned(
        kits=out,
        sites=tuple(keys),
        added=tuple(name for name in keys if name not in before),
        deltas=unusual_deltas({site.name: site.population for site in federation.sites if site.name not in kept}),
        delta_remarks=tuple(kept.values()),
        keys_made_here=tuple(name for name in keys if name not in brought),
        removed=tuple(sorted(before - set(keys))),
        certificate_until=until,
        bundle=digest,
        roster=tuple(party.name for party in roster.parties),
        **_said_of(catalogue, tuple(keys), changed=changed),
    )


def _kept_deltas(kits: Kits, federation: Federation) -> dict[str, str]:
    """Of every site that has a kit here already: what is to be said of the delta of its policy, which stays as it is.

    Raises: ConfigError if more consumers are declared now than that delta allows, before anything of theirs is written.
    """
    said = {}
    for site in federation.sites:
        policy = kits.site(site.name).policy
        if policy.is_file():
            delta = read_toml(policy).get("delta", USUAL_DELTA)
            known = isinstance(delta, float)  # what is no number its own site refuses
            said[site.name] = delta_remark(delta, {site.name: site.population}) if known else ""
    return said


def _coordinator_folders(kit: CoordinatorKit) -> CoordinatorKit:
    for folder in (kit.state, kit.bundle, kit.nodes, kit.runs):
        folder.mkdir(exist_ok=True)
    return kit


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise BadInputError(f"cannot write to {path}: {error.strerror}", hint="choose another --out") from None


def _brought_keys(site: SiteEntry, folder: Path) -> PublicKeys:
    keys = PublicKeys.load(folder / site.keys)
    if keys.name != site.name:
        raise BadInputError(
            f"{site.keys} is the key file of {keys.name}, not of {site.name}", hint="name the right file"
        )
    return keys


def _authority(folder: Path, federation: str) -> Authority:
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not key.exists():
        made = make_authority(federation)
        write_atomic(certificate, made.certificate_pem)
        write_atomic(key, made.key_pem, mode=0o600)
    require_private([key])
    return Authority(certificate.read_bytes(), key.read_bytes())


def _coordinator_identity(kit: CoordinatorKit, name: str) -> Identity:
    if not kit.identity_key.exists():
        Identity.generate(name).save(kit.identity_key)
    if not kit.control_token.exists():
        write_atomic(kit.control_token, secrets.token_hex(32).encode(), mode=0o600)
    return Identity.load(name, kit.identity_key)


def _server_certificate(kit: CoordinatorKit, authority: Authority, federation: Federation) -> str:
    """Issue the server's certificate unless a good one for the same names is there; return its last day."""
    host, _ = split_address(federation.coordinator.address)
    names = tuple(dict.fromkeys([host, *federation.coordinator.names, "127.0.0.1", "localhost"]))
    if kit.certificate.exists():
        facts = certificate_facts(kit.certificate.read_bytes())
        if set(facts.names) == set(names) and facts.days_left(datetime.datetime.now(datetime.UTC)) > RENEW_DAYS:
            return facts.not_after.date().isoformat()
    certificate, key = issue_server_certificate(authority, names, federation.coordinator.certificate_days)
    write_atomic(kit.certificate, certificate)
    write_atomic(kit.certificate_key, key, mode=0o600)
    return certificate_facts(certificate).not_after.date().isoformat()


def _site_kit(path: Path, site: SiteEntry, source: KitTexts, brought: PublicKeys | None) -> PublicKeys:
    """Write what is missing in a site's kit, return the site's public keys."""
    _make_folder(path)
    kit = SiteKit(path)
    kit.state.mkdir(exist_ok=True, mode=0o700)
    texts = {
        kit.settings: site_toml(site, source.federation, source.pins),
        kit.policy: policy_toml(site.name, site.population, source.approve),
        path / README_FILE: site_readme(site.name, source.federation.name, own_keys=bool(site.keys)),
    }
    for file, text in texts.items():
        if not file.exists():
            write_atomic(file, text.encode())
    for name in DELIVERED_ONCE:  # programs: a site writes its own
        (path / name).unlink(missing_ok=True)
    if brought is not None:
        return brought
    if (path / NODE_KEY).exists():
        return read_site_keys(path, site.name)
    return make_site_keys(path, site.name)


def _roster_before(out: Path) -> Roster | None:
    return Roster.load(out / ROSTER_FILE) if (out / ROSTER_FILE).exists() else None


def _write_public(kits: Sequence[Kit], roster: Roster, authority: Authority) -> None:
    for kit in kits:
        roster.save(kit.roster)
        write_atomic(kit.authority, authority.certificate_pem)


def _said_of(catalogue: Catalogue | None, sites: tuple[str, ...], *, changed: bool) -> dict[str, Any]:
    if catalogue is None:
        return {}
    return {
        "catalogue": repr(catalogue),
        "catalogue_warning": catalogue.warning,
        "catalogue_changed": changed,
        "stock_remark": stock_remark(catalogue, sites),
    }


def _write_catalogue(catalogue: Catalogue | None, kits: Sequence[Kit]) -> bool:
    """Put the catalogue into every kit; whether some kit had another one."""
    if catalogue is None:
        return False
    before = [kit.catalogue.read_bytes() for kit in kits if kit.catalogue.exists()]
    for kit in kits:
        write_catalogue(catalogue, kit.catalogue)
    return any(content != kits[0].catalogue.read_bytes() for content in before)


def _retire_heads(kit: CoordinatorKit, roster: Roster) -> None:
    """Set aside what a site attested with a key that it no longer has: it could not recognise it as its own."""
    from common.privacy import AttestedHeads, SignedAttestation
    from common.run import HEADS_FILE
    from server.admission import HeadsBook

    book = HeadsBook.open(kit.state / HEADS_FILE)
    kept, retired = {}, []
    for site, plain in book.heads.to_json().items():
        try:
            SignedAttestation.from_json(plain).verify(roster.party(site).public_key)
            kept[site] = plain
        except VerificationError:
            retired.append(plain)
    if retired:
        with (kit.state / "heads.retired.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(plain, allow_nan=False) + "\n" for plain in retired)
        HeadsBook(book.path, AttestedHeads.from_json(kept)).save()


def _admit(kit: CoordinatorKit, keys: dict[str, PublicKeys]) -> None:
    for path in kit.nodes.glob("*.pub"):
        if path.stem not in keys:
            path.unlink()
    for name, one in keys.items():
        write_atomic(kit.nodes / f"{name}.pub", one.node.encode() + b"\n")


def _write_coordinator_file(kit: CoordinatorKit, federation: Federation, pins: FederationPins) -> None:
    entry = federation.coordinator
    listen = entry.listen or f"0.0.0.0:{split_address(entry.address)[1]}"
    tree = {
        "federation": pins.model_dump(),
        "coordinator": {"name": entry.name, "address": entry.address, "listen": listen},
        "sites": {site.name: site.population for site in federation.sites},
    }
    write_atomic(kit.settings, tomli_w.dumps(tree).encode())
