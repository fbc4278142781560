from __future__ import annotations

import stat
from pathlib import Path

import pytest

from common.errors import BadInputError, VerificationError
from common.trust.identity import Identity, Party, Roster, _words, check_name, verify_signature


def roster_of(*identities: Identity) -> Roster:
    coordinator, *sites = identities
    return Roster.signed_by(coordinator, [(site.name, site.public_key) for site in sites])


def test_an_identity_survives_its_file_which_only_its_owner_reads(tmp_path: Path) -> None:
    identity = Identity.generate("merchant-1")
    identity.save(tmp_path / "site.key")
    assert stat.S_IMODE((tmp_path / "site.key").stat().st_mode) == 0o600
    again = Identity.load("merchant-1", tmp_path / "site.key")
    assert again.public_key == identity.public_key
    assert again.sign(b"x") == identity.sign(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["site.key"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    Identity.generate("a").save(tmp_path / "site.key")
    before = (tmp_path / "site.key").read_bytes()
    with pytest.raises(BadInputError, match="exists"):
        Identity.generate("b").save(tmp_path / "site.key")
    assert (tmp_path / "site.key").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "site.key").write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        Identity.load("a", tmp_path / "site.key")
    assert caught.value.hint


def test_neither_repr_nor_str_shows_the_secret() -> None:
    seed = bytes(range(32))
    identity = Identity.from_seed("a", seed)
    for text in (repr(identity), str(identity), f"{identity}"):
        assert seed.hex() not in text
        assert "Private" not in text


def test_the_roster_knows_who_signed() -> None:
    coordinator, a, b = Identity.generate("hub"), Identity.generate("a"), Identity.generate("b")
    roster = roster_of(coordinator, a, b)
    roster.verify("a", b"message", a.sign(b"message"))
    for name, message, signature in (
        ("b", b"message", a.sign(b"message")),
        ("a", b"other", a.sign(b"message")),
        ("nobody", b"message", a.sign(b"message")),
        ("a", b"message", b""),
    ):
        with pytest.raises(VerificationError, match=name):
            roster.verify(name, message, signature)
    assert roster.coordinator.name == "hub"
    assert [p.name for p in roster.sites] == ["a", "b"]
    assert "a" in roster
    assert "nobody" not in roster


def test_the_roster_survives_its_file(tmp_path: Path) -> None:
    roster = roster_of(Identity.generate("hub"), Identity.generate("a"))
    roster.save(tmp_path / "roster.json")
    assert Roster.load(tmp_path / "roster.json") == roster


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"parties": [{}]}', '{"parties": [{"name": "a", "role": "site", "public_key": "zz"}]}'],
)
def test_a_roster_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "roster.json").write_text(text)
    with pytest.raises(BadInputError):
        Roster.load(tmp_path / "roster.json")


def test_names_that_are_unsafe_in_a_path_or_a_line_are_refused() -> None:
    assert check_name("Merchant_1.eu-west") == "Merchant_1.eu-west"
    for bad in ("", ".", "../x", "a/b", "a b", "-a", "a\n", "ü", "a" * 41, "a\0"):
        with pytest.raises(BadInputError):
            check_name(bad)


def test_parties_with_a_bad_role_or_key_are_refused() -> None:
    key = Identity.generate("a").public_key
    for role, public in (("owner", key), ("site", key[:-1])):
        with pytest.raises(BadInputError):
            Party("a", role, public)


def test_a_roster_without_exactly_one_coordinator_says_so() -> None:
    with pytest.raises(BadInputError, match="coordinators"):
        _ = Roster((Party("a", "site", Identity.generate("a").public_key),)).coordinator


def test_the_next_version_of_a_roster_is_numbered_and_signed(tmp_path: Path) -> None:
    coordinator, north, south = (Identity.generate(name) for name in ("coordinator", "north", "south"))
    first = Roster.signed_by(coordinator, [("north", north.public_key)])
    same = Roster.signed_by(coordinator, [("north", north.public_key)], first)
    second = Roster.signed_by(coordinator, [("north", north.public_key), ("south", south.public_key)], first)
    assert same is first and (first.version, second.version) == (1, 2)
    assert second.federation == first.federation != Roster.signed_by(coordinator, []).federation
    assert second.digest != first.digest and second.fingerprint != first.fingerprint
    second.save(tmp_path / "roster.json")
    assert Roster.load(tmp_path / "roster.json") == second


@pytest.mark.parametrize(
    ("old", "new"),
    [('"version": 1', '"version": 2'), ("north", "south"), ('"role": "site"', '"role": "coordinator"')],
)
def test_a_roster_that_was_edited_after_it_was_signed_is_refused(tmp_path: Path, old: str, new: str) -> None:
    roster = roster_of(Identity.generate("coordinator"), Identity.generate("north"))
    text = roster.to_json()
    assert old in text
    (tmp_path / "roster.json").write_text(text.replace(old, new))
    with pytest.raises((VerificationError, BadInputError)):
        Roster.load(tmp_path / "roster.json")


def test_a_roster_of_an_older_program_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "roster.json").write_text('{"parties": []}')
    with pytest.raises(BadInputError, match="older program"):
        Roster.load(tmp_path / "roster.json")


def test_the_fingerprint_is_six_words_that_anybody_can_say() -> None:
    words = roster_of(Identity.from_seed("coordinator", b"c" * 32)).fingerprint.split()
    assert len(words) == 6 and all(len(word) == 5 and word.isalpha() for word in words)
    assert (
        _words(bytes.fromhex("7f0000013f54dcc1")) == "lusab babad gutih tugad"
    )  # known answers of the words' author


@pytest.mark.parametrize("size", [0, 32, 256, 257, 4_000])
def test_a_signature_that_held_once_lets_no_other_pass(size: int) -> None:
    signer, stranger, message = Identity.generate("a"), Identity.generate("b"), b"m" * size
    signature = signer.sign(message)
    for _ in range(2):
        verify_signature(signer.public_key, message, signature)
    changed = bytes([signature[0] ^ 1]) + signature[1:]
    for key, said, signed in (
        (stranger.public_key, message, signature),
        (signer.public_key, message + b"x", signature),
        (signer.public_key, message, changed),
        (signer.public_key, message, b""),
    ):
        for _ in range(2):
            with pytest.raises(VerificationError):
                verify_signature(key, said, signed)
