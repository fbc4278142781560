"""Provisioning: kits, permissions, keys that sites bring, adding a site later."""

import stat
import tomllib
from pathlib import Path

import pytest
import tomli_w

from client.guard import SitePolicy
from client.site import load_site
from common.data import read_catalogue
from common.deployment import CoordinatorKit, Kits, SiteKit
from common.errors import BadInputError, ConfigError
from common.kit_files import require_known_files
from common.source_settings import SourceSettings
from common.trust.certificates import certificate_facts, verify_issued
from common.trust.identity import Roster
from common.trust.keyfiles import make_site_keys
from server.provision import provision


def write_federation(folder: Path, sites: list[dict], **coordinator) -> Path:
    tree = {"name": "test", "coordinator": {"address": "fl.example.org:9443", **coordinator}, "sites": sites}
    file = folder / "federation.toml"
    file.write_text(tomli_w.dumps(tree))
    return file


def sites(*names: str) -> list[dict]:
    return [{"name": name, "population": 1000, "events": "events.csv"} for name in names]


def test_every_party_gets_a_kit_that_its_program_can_open(tmp_path):
    made = provision(write_federation(tmp_path, sites("north", "south", "east")), tmp_path / "kits")
    for name in made.sites:
        site = load_site(tmp_path / "kits/sites" / name)
        assert site.name == name
        assert site.file.federation.bundle == made.bundle
    file = CoordinatorKit(tmp_path / "kits/coordinator").read()
    assert file.sites == {"north": 1000, "south": 1000, "east": 1000}
    assert file.coordinator.listen == "0.0.0.0:9443"


def test_private_files_are_readable_by_their_owner_only(tmp_path):
    provision(write_federation(tmp_path, sites("north", "south")), tmp_path / "kits")
    secret = [p for p in (tmp_path / "kits").rglob("*") if p.suffix in (".key", ".token")]
    assert len(secret) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}


def test_a_site_kit_holds_no_secret_of_anybody_else(tmp_path):
    provision(write_federation(tmp_path, sites("north", "south")), tmp_path / "kits")
    north = tmp_path / "kits/sites/north"
    foreign = [
        path.read_bytes()
        for path in (tmp_path / "kits").rglob("*")
        if path.suffix in (".key", ".token") and north not in path.parents
    ]
    own = b"".join(path.read_bytes() for path in north.rglob("*") if path.is_file())
    assert len(foreign) == 6
    assert not any(_core(secret) in own.replace(b"\n", b"") for secret in foreign)


def _core(secret: bytes) -> bytes:
    """A part that no two keys share: keys in PEM begin alike and end in padding."""
    body = b"".join(line for line in secret.splitlines() if not line.startswith(b"-----"))
    return body[-72:-24] if len(body) > 100 else body[-32:]


def test_a_site_that_brings_its_public_keys_gets_a_kit_without_private_ones(tmp_path):
    keys = make_site_keys(tmp_path / "home", "north")
    entry = {**sites("north")[0], "keys": "home/north.keys.json"}
    made = provision(write_federation(tmp_path, [entry, *sites("south")]), tmp_path / "kits")
    kit = tmp_path / "kits/sites/north"
    assert made.keys_made_here == ("south",)
    assert not list(kit.glob("*.key"))
    assert Roster.load(kit / "roster.json").party("north").public_key == keys.identity
    for name in ("identity.key", "node.key"):
        (kit / name).write_bytes((tmp_path / "home" / name).read_bytes())
    with pytest.raises(BadInputError, match="others can read"):  # copied without their mode
        load_site(kit)
    for name in ("identity.key", "node.key"):
        (kit / name).chmod(0o600)
    assert load_site(kit).name == "north"


def test_adding_a_site_later_changes_nothing_of_the_others_but_the_public_roster(tmp_path):
    provision(write_federation(tmp_path, sites("north", "south")), tmp_path / "kits")
    north = tmp_path / "kits/sites/north"
    (north / "policy.toml").write_text("epsilon_max = 1.0\n")
    before = {p.relative_to(north): p.read_bytes() for p in north.rglob("*") if p.is_file()}
    coordinator = (tmp_path / "kits/coordinator/identity.key").read_bytes()
    certificate = (tmp_path / "kits/coordinator/server.crt").read_bytes()
    made = provision(write_federation(tmp_path, sites("north", "south", "east")), tmp_path / "kits")
    after = {p.relative_to(north): p.read_bytes() for p in north.rglob("*") if p.is_file()}
    assert made.added == ("east",)
    assert {str(name) for name in after if after[name] != before.get(name)} == {"roster.json"}
    assert (tmp_path / "kits/coordinator/identity.key").read_bytes() == coordinator
    assert (tmp_path / "kits/coordinator/server.crt").read_bytes() == certificate
    assert "east" in Roster.load(north / "roster.json")


def test_a_removed_site_is_no_longer_admitted(tmp_path):
    provision(write_federation(tmp_path, sites("north", "south")), tmp_path / "kits")
    made = provision(write_federation(tmp_path, sites("north")), tmp_path / "kits")
    assert made.removed == ("south",)
    assert [p.stem for p in (tmp_path / "kits/coordinator/nodes").iterdir()] == ["north"]
    assert "south" not in Roster.load(tmp_path / "kits/roster.json")


def test_the_server_certificate_is_of_the_authority_and_names_the_public_host(tmp_path):
    provision(write_federation(tmp_path, sites("north"), names=["10.1.2.3"]), tmp_path / "kits")
    kit = CoordinatorKit(tmp_path / "kits/coordinator")
    verify_issued(kit.certificate.read_bytes(), kit.authority.read_bytes())
    assert certificate_facts(kit.certificate.read_bytes()).names == (
        "fl.example.org", "10.1.2.3", "127.0.0.1", "localhost",
    )  # fmt: skip


def test_a_new_host_name_renews_the_certificate_and_keeps_the_authority(tmp_path):
    provision(write_federation(tmp_path, sites("north")), tmp_path / "kits")
    authority = (tmp_path / "kits/authority/ca.crt").read_bytes()
    provision(write_federation(tmp_path, sites("north"), names=["new.example.org"]), tmp_path / "kits")
    kit = CoordinatorKit(tmp_path / "kits/coordinator")
    assert "new.example.org" in certificate_facts(kit.certificate.read_bytes()).names
    assert kit.authority.read_bytes() == authority


def test_the_commented_policy_is_exactly_the_programs_own_default(tmp_path):
    provision(write_federation(tmp_path, sites("north")), tmp_path / "kits")
    path = SiteKit(tmp_path / "kits/sites/north").policy
    assert SitePolicy.load(path) == SitePolicy()
    assert set(tomllib.loads(path.read_text())) == set(SitePolicy.model_fields)


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        (sites("north", "north"), "name used twice: north"),
        ([{"name": "bad name", "population": 5}], "name"),
        ([{"name": "north", "population": 0}], "population"),
        ([{"name": "north", "population": 5, "colour": "red"}], "colour"),
        ([], "sites"),
    ],
)
def test_a_bad_federation_file_is_refused_before_anything_is_written(tmp_path, entries, word):
    with pytest.raises(ConfigError, match=word):
        provision(write_federation(tmp_path, entries), tmp_path / "kits")
    assert not (tmp_path / "kits").exists()


def test_the_key_file_of_another_site_is_refused_before_anything_is_written(tmp_path):
    make_site_keys(tmp_path / "home", "south")
    entry = {**sites("north")[0], "keys": "home/south.keys.json"}
    with pytest.raises(BadInputError, match="key file of south"):
        provision(write_federation(tmp_path, [entry]), tmp_path / "kits")
    assert not (tmp_path / "kits").exists()


def test_what_a_site_attested_with_its_old_key_is_set_aside_when_it_brings_a_new_one(tmp_path):
    import json

    from common.privacy.attestation import SignedAttestation
    from common.trust.identity import Identity
    from tests.guard_samples import guard_in, proposal

    make_site_keys(tmp_path / "home", "shop")
    entry = {**sites("shop")[0], "keys": "home/shop.keys.json"}
    file = write_federation(tmp_path, [entry, *sites("south")])
    provision(file, tmp_path / "kits")
    said = guard_in(tmp_path / "ledger").reserve(proposal()).attestation.attestation
    signed = SignedAttestation.sign(said, Identity.load("shop", tmp_path / "home/identity.key"))
    book = tmp_path / "kits/coordinator/state/heads.json"
    book.write_text(json.dumps({"shop": signed.to_json()}))
    provision(file, tmp_path / "kits")
    assert "shop" in json.loads(book.read_text())
    make_site_keys(tmp_path / "new", "shop")
    provision(
        write_federation(tmp_path, [{**entry, "keys": "new/shop.keys.json"}, *sites("south")]), tmp_path / "kits"
    )
    assert json.loads(book.read_text()) == {}
    assert len((book.parent / "heads.retired.jsonl").read_text().splitlines()) == 1


def catalogue_table(folder, *sites: str):
    lines = [f"i{n},{site}" for n in range(4) for site in sites]
    (folder / "shared.csv").write_text("\n".join(["item,site", *lines, ""]))


def with_catalogue(tmp_path, stock: dict[str, str], *columns: str, names=("north", "south", "east")):
    catalogue_table(tmp_path, *columns)
    sites = [{"name": name, "population": 500} for name in names]
    tree = {"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "catalogue": "shared.csv", "stock": stock}
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps(tree | {"sites": sites}))
    return provision(file, tmp_path / "kits")


def test_a_catalogue_is_checked_and_in_every_kit_its_stock_in_the_names_of_the_sites(tmp_path):
    stock = {"United Kingdom": "north", "EIRE": "north", "France": "south", "Bahrain": ""}
    made = with_catalogue(tmp_path, stock, "United Kingdom", "EIRE", "France", "Bahrain", "east")
    kits = Kits(tmp_path / "kits")
    known = [read_catalogue(kit.catalogue) for kit in (kits.coordinator, kits.site("north"), kits.site("east"))]
    assert {catalogue.digest() for catalogue in known} == {known[0].digest()}
    assert set(known[0].stock) == {"north", "south", "east"}
    assert kits.site("south").read().site.catalogue == "catalogue.json"
    require_known_files(kits.site("south"))
    assert "4 items" in made.catalogue
    assert not made.catalogue_changed
    (tmp_path / "kits/sites/north/catalogue.json").write_text("{}")
    assert with_catalogue(tmp_path, stock, "United Kingdom", "EIRE", "France", "Bahrain", "east").catalogue_changed


@pytest.mark.parametrize(
    ("stock", "columns", "word"),
    [
        ({}, ("North shop", "south", "east"), "no site of the federation is called so"),
        ({"North shop": "nort"}, ("North shop", "south", "east"), 'maps to "nort"'),
        ({"Nort": "north"}, ("north", "south", "east"), 'maps "Nort": not in the catalogue'),
        ({}, ("north", "south"), 'nothing about the stock of site "east"'),
    ],
)
def test_a_catalogue_that_does_not_fit_the_sites_is_refused_before_anything_is_written(
    tmp_path, stock, columns, word
):
    with pytest.raises(ConfigError, match=word):
        with_catalogue(tmp_path, stock, *columns)
    assert not (tmp_path / "kits").exists()


SOURCE = {
    "kind": "sql", "uri": "postgresql://reader@db.example.org/shop", "password_env": "FEDCART_SOURCE_SHOP",
    "query": "SELECT *\nFROM events", "watermark": "at",
}  # fmt: skip


def test_a_site_whose_events_are_in_a_database_gets_its_source_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCART_SOURCE_SHOP", "only-for-the-database")
    north, south = {"name": "north", "population": 1000, "source": SOURCE}, sites("south")[0]
    provision(write_federation(tmp_path, [north, south]), tmp_path / "kits")
    file = SiteKit(tmp_path / "kits/sites/north").read()
    assert (file.site.events, file.source) == ("", SourceSettings.model_validate(SOURCE))
    assert SiteKit(tmp_path / "kits/sites/south").read().source is None
    kept = [path.read_bytes() for path in (tmp_path / "kits").rglob("*") if path.is_file()]
    assert not any(b"only-for-the-database" in content for content in kept)


@pytest.mark.parametrize(
    "change",
    [{"uri": "postgresql://reader:hunter2@db/shop"}, {"password_env": "hunter2"}, {"password": "hunter2"}],
)
def test_a_password_in_the_federation_file_is_refused_and_not_repeated(tmp_path, change):
    site = {"name": "north", "population": 1000, "source": SOURCE | change}
    with pytest.raises(ConfigError) as refusal:
        provision(write_federation(tmp_path, [site, *sites("south")]), tmp_path / "kits")
    assert "sites.0.source" in str(refusal.value)
    assert "hunter2" not in str(refusal.value) + str(refusal.value.hint)
    assert not (tmp_path / "kits").exists()


def test_a_site_has_its_events_in_one_place(tmp_path):
    site = {"name": "north", "population": 1000, "events": "events.csv", "source": SOURCE}
    with pytest.raises(ConfigError, match="either events or a table"):
        provision(write_federation(tmp_path, [site, *sites("south")]), tmp_path / "kits")
