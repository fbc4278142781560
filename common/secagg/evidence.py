"""What the server keeps of a session so that anybody with the roster can check it later, offline."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import common.wire as wire
from common.errors import BadInputError, ProtocolError, VerificationError
from common.secagg.checks import check_advertisement, check_confirmations, check_pinned
from common.secagg.messages import Advertisement, Confirmation, ConfirmationList, Params, SurvivorList
from common.trust import Roster, sha256

_VERSION = 2


@dataclass(frozen=True, repr=False)
class Evidence:
    """A session's parameters, U1 with signatures, U2 and U3 with signatures, and the digest of the sum.

    Holds public values only. ``sum_digest`` is the server's word; all else is signed by the sites.
    """

    params: Params
    advertisements: tuple[Advertisement, ...]
    survivors: SurvivorList
    confirmations: tuple[Confirmation, ...]
    sum_digest: bytes

    def __repr__(self) -> str:
        return f"Evidence({self.params.session}, {len(self.survivors.survivors)} survivors)"

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return wire.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Evidence:
        """Read what ``to_bytes`` wrote. Raises: RemoteProtocolError, ConfigError."""
        return wire.decode(cls, data)

    def to_json(self) -> str:
        """The same as JSON with bytes in hexadecimal, for the run folder."""
        return (
            json.dumps(
                {"evidence": _VERSION, "salt": self.params.salt.hex(), **to_plain(self)}, indent=1, allow_nan=False
            )
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> Evidence:
        """Read what ``to_json`` wrote. Raises: BadInputError, VerificationError (salt), ConfigError."""
        try:
            fields = json.loads(text)
            version, salt = fields.pop("evidence"), fields.pop("salt")
            evidence = typing.cast("Evidence", from_plain(cls, fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInputError("aggregation evidence is not readable") from error
        if version != _VERSION or evidence.to_json() != text:
            raise BadInputError("aggregation evidence is of another version or not in canonical form")
        if evidence.params.salt.hex() != salt:
            raise VerificationError("salt of the evidence is not the digest of its parameters")
        return evidence


def digest_sum(ring_sum: NDArray[np.uint32]) -> bytes:
    """SHA-256 of a ring sum's little-endian bytes."""
    return sha256(b"fedcart/sum/1", np.ascontiguousarray(ring_sum, dtype="<u4").data.cast("B"))


def verify_evidence(evidence: Evidence, roster: Roster, ring_sum: NDArray[np.uint32] | None = None) -> None:
    """Return if pinned sites agreed on these survivors in this session.

    Checks pins, the signature of each advertisement, U3 in U2 in U1, and at least t valid
    signatures of different survivors; with ``ring_sum``, its digest too.
    Raises: VerificationError naming what does not hold.
    """
    params, lists = evidence.params, evidence.survivors
    advertised = tuple(a.site for a in evidence.advertisements)
    for member in params.cohort:
        check_pinned(roster, member)
    for inner, outer, what in (
        (advertised, params.sites, "U1 is not a part of the cohort"),
        (lists.shared, advertised, "U2 is not a part of U1"),
        (lists.survivors, lists.shared, "U3 is not a part of U2"),
    ):
        if inner != tuple(site for site in outer if site in set(inner)):
            raise VerificationError(f"{what} in cohort order")
    try:
        for advertisement in evidence.advertisements:
            check_advertisement(params, advertisement)
        check_confirmations(params, ConfirmationList(lists, evidence.confirmations))
    except ProtocolError as error:
        raise VerificationError(error.message) from error
    if ring_sum is not None and digest_sum(ring_sum) != evidence.sum_digest:
        raise VerificationError("sum is not the one in the evidence")


def to_plain(value: object) -> Any:
    """Frozen dataclasses as JSON values, with bytes in hexadecimal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_plain(part) for part in value]
    return value.hex() if isinstance(value, bytes) else value


def from_plain(kind: Any, plain: Any) -> Any:
    """Inverse of ``to_plain`` for a kind. Raises: ValueError, TypeError, KeyError, AttributeError on foreign values."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if set(plain) != {f.name for f in dataclasses.fields(kind)}:
            raise ValueError("fields differ")
        return typing.cast(type, kind)(**{name: from_plain(hints[name], part) for name, part in plain.items()})
    if typing.get_origin(kind) is tuple:
        return tuple(from_plain(typing.get_args(kind)[0], part) for part in plain)
    if kind is bytes:
        return bytes.fromhex(plain)
    if type(plain) is not kind:
        raise TypeError("type differs")
    return plain
