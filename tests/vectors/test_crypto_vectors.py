"""Known answers of the primitives, each from the document named; some must fail."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import VerificationError
from common.trust import crypto
from common.trust.identity import Identity, verify_signature

hexa = bytes.fromhex

# RFC 8032, section 7.1, tests 1 to 3
ED25519 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def test_x25519_agrees_as_in_rfc_7748_section_6_1() -> None:
    alice = hexa("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = hexa("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    shared = hexa("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert crypto.x25519_public(alice) == hexa("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert crypto.x25519_public(bob) == hexa("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert crypto.x25519_agreement(alice)(crypto.x25519_public(bob)) == shared
    assert crypto.x25519_agreement(bob)(crypto.x25519_public(alice)) == shared


@pytest.mark.parametrize(("secret", "public", "message", "signature"), ED25519)
def test_ed25519_signs_as_in_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    identity = Identity.from_seed("site", hexa(secret))
    assert identity.public_key == hexa(public)
    assert identity.sign(hexa(message)) == hexa(signature)
    verify_signature(hexa(public), hexa(message), hexa(signature))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), ED25519)
def test_a_changed_ed25519_signature_or_message_is_refused(
    secret: str, public: str, message: str, signature: str
) -> None:
    changed = bytearray(hexa(signature))
    changed[40] ^= 1
    for key, text, mark in (
        (hexa(public), hexa(message), bytes(changed)),
        (hexa(public), hexa(message) + b"x", hexa(signature)),
        (hexa(public), hexa(message), hexa(signature)[:-1]),
        (hexa(public)[:-1], hexa(message), hexa(signature)),
    ):
        with pytest.raises(VerificationError):
            verify_signature(key, text, mark)


def test_hkdf_is_that_of_rfc_5869_appendix_a() -> None:
    first = crypto.hkdf_sha256(
        hexa("0b" * 22), hexa("000102030405060708090a0b0c"), hexa("f0f1f2f3f4f5f6f7f8f9"), size=42
    )
    assert first == hexa("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    third = crypto.hkdf_sha256(hexa("0b" * 22), b"", b"", size=42)
    assert third == hexa("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")


def test_sealing_is_chacha20_poly1305_of_rfc_8439_section_2_8_2() -> None:
    key, nonce = bytes(range(0x80, 0xA0)), hexa("070000004041424344454647")
    associated = hexa("50515253c0c1c2c3c4c5c6c7")
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you "
        b"only one tip for the future, sunscreen would be it."
    )
    expected = hexa(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )
    box = crypto.seal(key, plain, associated, entropy=lambda size: nonce[:size])
    assert box == nonce + expected
    assert crypto.unseal(key, box, associated) == plain
    for position in range(len(box)):
        changed = bytearray(box)
        changed[position] ^= 0x10
        with pytest.raises(VerificationError):
            crypto.unseal(key, bytes(changed), associated)
    with pytest.raises(VerificationError):
        crypto.unseal(key, box, associated + b"x")


def test_the_keystream_is_aes_256_ctr_of_sp_800_38a_f_5_5() -> None:
    key = hexa("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plain = hexa(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    expected = hexa(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    assert crypto.aes_ctr(key, bytes(range(0xF0, 0x100))).update(plain) == expected


@pytest.mark.parametrize("length", [1, 3, 4, 5, 32767, 32768, 32769, 100_003])
def test_masks_are_the_keystreams_word_by_word(length: int) -> None:
    keys = [bytes([i]) * 32 for i in range(3)]
    streams = [np.frombuffer(crypto.aes_ctr(key).update(bytes(4 * length)), dtype="<u4") for key in keys]
    vector = np.arange(length, dtype=np.uint32)
    crypto.add_masks(vector, [(keys[0], 1), (keys[1], -1), (keys[2], 1)])
    np.testing.assert_array_equal(
        vector, np.arange(length, dtype=np.uint32) + streams[0] - streams[1] + streams[2]
    )
    crypto.add_masks(vector, [(keys[0], -1), (keys[1], 1), (keys[2], -1)])
    np.testing.assert_array_equal(vector, np.arange(length, dtype=np.uint32))


SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_public_keys_of_small_order_are_refused(point: str) -> None:
    for top in (0x00, 0x80):  # RFC 7748: the top bit is ignored
        key = hexa(point)[:-1] + bytes([hexa(point)[-1] | top])
        assert not crypto.x25519_usable(key)
        with pytest.raises(VerificationError):
            crypto.x25519_agreement(b"\x07" * 32)(key)


def test_ordinary_public_keys_are_usable() -> None:
    assert all(crypto.x25519_usable(crypto.x25519_public(bytes([i]) * 32)) for i in range(20))
    assert not crypto.x25519_usable(b"short")


def test_keys_under_different_labels_differ() -> None:
    labels = [("pair", "a", "b"), ("pair", "ab"), ("paira", "b"), ("pair", "b", "a"), ("share", "a", "b"), ()]
    assert len({crypto.derive_key(b"s" * 32, b"salt", *each) for each in labels}) == len(labels)


def test_the_checksum_finds_every_changed_word() -> None:
    vector = np.arange(64, dtype=np.uint32)
    right = crypto.checksum(b"k" * 32, vector)
    for i in range(64):
        vector[i] ^= 1
        assert crypto.checksum(b"k" * 32, vector) != right
        vector[i] ^= 1
    assert crypto.checksum(b"j" * 32, vector) != right
