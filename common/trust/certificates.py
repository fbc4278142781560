"""TLS certificates of a federation and the EC keys with which site nodes log in.

One authority per federation signs one server certificate; sites pin the authority. Signing keys of the
parties (Ed25519, ``identity.py``) are apart from these: TLS protects the line, identities protect the messages.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.atomic import read_small
from common.errors import BadInputError, VerificationError
from common.trust.private_files import require_private

AUTHORITY_DAYS = 3_650
CLOCK_SLACK = datetime.timedelta(minutes=5)
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, repr=False)
class Authority:
    """The certificate authority of one federation. ``key_pem`` is secret, ``certificate_pem`` public."""

    certificate_pem: bytes
    key_pem: bytes = field(compare=False)

    def __repr__(self) -> str:
        return f"Authority({certificate_facts(self.certificate_pem).fingerprint[:12]})"


@dataclass(frozen=True)
class CertificateFacts:
    """What `site check` says of a certificate."""

    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str

    def days_left(self, now: datetime.datetime) -> float:
        """Days until it expires, negative afterwards."""
        return (self.not_after - now).total_seconds() / SECONDS_PER_DAY


def make_authority(federation: str, days: int = AUTHORITY_DAYS) -> Authority:
    """A fresh authority (EC P-384) for a federation."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} authority")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _draft(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return Authority(certificate.public_bytes(Encoding.PEM), _private_pem(key))


def issue_server_certificate(authority: Authority, names: Sequence[str], days: int) -> tuple[bytes, bytes]:
    """Certificate and key (PEM) of the server for host names and IP addresses; the first is the subject."""
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem)
    issuer_key = load_pem_private_key(authority.key_pem, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise BadInputError("the authority's key is not an EC key", hint="use the authority that `provision` made")
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    certificate = (
        _draft(subject, issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA384())
    )
    return certificate.public_bytes(Encoding.PEM), _private_pem(key)


def certificate_facts(pem: bytes) -> CertificateFacts:
    """Read a PEM certificate. Raises: BadInputError."""
    certificate = _load(pem)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(name.value) for name in alternatives)
    except x509.ExtensionNotFound:
        names = ()
    return CertificateFacts(
        names,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def verify_issued(certificate_pem: bytes, authority_pem: bytes) -> None:
    """Return if the authority signed the certificate. Raises: VerificationError, BadInputError."""
    try:
        _load(certificate_pem).verify_directly_issued_by(_load(authority_pem))
    except (InvalidSignature, ValueError, TypeError) as error:
        raise VerificationError("the server's certificate is not of this federation's authority") from error


def make_node_key() -> tuple[bytes, bytes]:
    """A fresh EC P-384 key in OpenSSH form: private (PEM) and public (one line)."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a node's private key. Raises: BadInputError, also if others can read it."""
    require_private([path])
    try:
        key = load_ssh_private_key(read_small(path), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise BadInputError(
            f"{path.name} is not a readable node key", hint="make one: fedcart site keygen"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInputError(f"{path.name} is not an EC key", hint="make one: fedcart site keygen")
    return key


def node_public_line(path: Path) -> bytes:
    """The public OpenSSH line of a node's private key file. Raises: BadInputError."""
    return load_node_key(path).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def node_public_pem(line: bytes) -> bytes:
    """A node's public key as Flower stores it (PEM), from its OpenSSH line. Raises: BadInputError."""
    try:
        key = load_ssh_public_key(line)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInputError("not a public node key", hint="it starts with ecdsa-sha2-nistp384") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise BadInputError("a node key must be on the curve P-384", hint="make one: fedcart site keygen")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _draft(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadInputError("not a PEM certificate", hint="take the file from the kit again") from error
