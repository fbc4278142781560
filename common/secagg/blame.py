"""Who broke the protocol, so that everybody with the roster can check it: proofs, and the verdicts that follow from them.

    bad-dealing      a signed dealing whose shares lie on no polynomial, or are not of the advertised mask key
    bad-box          a signed box that does not hold the shares that its dealer committed to; the holder opened it
    false-complaint  the holder opened a box that was right
    wrong-share      a holder revealed, under its signature, another share than the one that it had accepted

Guarantee: no verdict names a site that followed the protocol, whatever coordinator and other sites do: each rests on what
the culprit itself has signed for this session, and on a box that only its own keys could have made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import common.secagg.masks as masks
from common.errors import BadInputError, ProtocolError, VerificationError
from common.secagg.checks import check_advertisement, check_pinned, check_signed
from common.secagg.dealing import KEY, SEED, Context, Dealing, Piece, dealt_digest, open_piece
from common.secagg.evidence import from_plain, to_plain
from common.secagg.messages import (
    AdvertisementList,
    Params,
    Receipt,
    ShareBundle,
    SurvivorList,
    piece_bytes,
    reveal_statement,
)
from common.trust import KEY_BYTES, Roster, verify_signature, x25519_agreement, x25519_public

BAD_DEALING = "bad-dealing"
BAD_BOX = "bad-box"
FALSE_COMPLAINT = "false-complaint"
WRONG_SHARE = "wrong-share"
_VERSION = 1


@dataclass(frozen=True, order=True)
class Fault:
    """A verdict: who broke the protocol, at whose expense ("" if everybody's), and how."""

    culprit: str
    victim: str
    kind: str

    def __str__(self) -> str:
        return f"{self.culprit}: {self.kind}" + (f" to {self.victim}" if self.victim else "")


@dataclass(frozen=True, repr=False)
class Complaint:
    """A holder's complaint, and the pieces that it is about, in the order of the accused."""

    receipt: Receipt
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, repr=False)
class Revealed:
    """What a holder signed when it revealed, and its piece of the dealing of ``dealer``.

    ``dealings``: statements of the dealings of U2. Holds no share: commitments only.
    """

    holder: str
    dealer: str
    piece: bytes
    lists: SurvivorList
    dealings: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    signature: bytes


@dataclass(frozen=True, repr=False)
class Proofs:
    """Everything that proves the faults of one session; ``verdicts`` says what it proves."""

    params: Params
    listed: AdvertisementList
    dealings: tuple[ShareBundle, ...] = ()
    complaints: tuple[Complaint, ...] = ()
    reveals: tuple[Revealed, ...] = ()

    def __repr__(self) -> str:
        return f"Proofs({self.params.session})"

    def verdicts(self, roster: Roster) -> tuple[Fault, ...]:
        """The faults, in order, each once.

        Raises: VerificationError if a party is not pinned, or a part of this proves nothing.
        """
        try:
            for member in self.params.cohort:
                check_pinned(roster, member)
            if self.listed.sites != self.params.in_order(set(self.listed.sites) & set(self.params.sites)):
                raise VerificationError("U1 of a proof is not a part of the cohort in cohort order")
            for advertisement in self.listed.advertisements:
                check_advertisement(self.params, advertisement)
            faults = {fault for bundle in self.dealings for fault in (judge_dealing(self, bundle),)}
            faults.update(fault for complaint in self.complaints for fault in judge_complaint(self, complaint))
            faults.update(judge_reveal(self, revealed) for revealed in self.reveals)
        except ProtocolError as error:
            raise VerificationError(error.message) from error
        return tuple(sorted(faults))


def judge_dealing(case: Proofs, bundle: ShareBundle) -> Fault:
    """The dealer's fault. Raises: RemoteProtocolError, VerificationError if it is right, or not signed."""
    _require_listed(case, bundle.site)
    dealing = Dealing(case.params, case.listed, bundle)
    try:
        dealing.check()
    except VerificationError:
        return Fault(bundle.site, "", BAD_DEALING)
    raise VerificationError(f"the dealing of {bundle.site} is right")


def judge_complaint(case: Proofs, complaint: Complaint) -> tuple[Fault, ...]:
    """Per accused dealer its fault, or the complaining site's.

    Raises: RemoteProtocolError, VerificationError if the complaint is not the site's own, opens nothing, or is about
    another dealing than a signed one.
    """
    receipt = complaint.receipt
    accused = [a.dealer for a in receipt.accused]
    _require_listed(case, receipt.site, *accused)
    check_signed(case.params, receipt.statement(case.params.salt), receipt)
    keys = {a.site: a.channel_key for a in case.listed.advertisements}
    secret = receipt.channel_secret
    if len(secret) != KEY_BYTES or x25519_public(secret) != keys[receipt.site]:
        raise VerificationError(f"the complaint of {receipt.site} does not open its channel")
    if not accused or len(set(accused)) != len(accused) or len(complaint.pieces) != len(accused):
        raise VerificationError(f"the complaint of {receipt.site} is not about different dealers, a piece of each")
    agree, faults = x25519_agreement(secret), []
    for accusation, raw in zip(receipt.accused, complaint.pieces, strict=True):
        pair = (accusation.dealer, receipt.site)
        piece = signed_piece(case, raw, pair, accusation.dealing)
        try:
            key = masks.share_key(case.params, agree(keys[accusation.dealer]), pair)
            open_piece(Context(case.params.salt, *pair), piece, key)
        except VerificationError:
            faults.append(Fault(*pair, BAD_BOX))
        else:
            faults.append(Fault(*pair[::-1], FALSE_COMPLAINT))
    return tuple(faults)


def judge_reveal(case: Proofs, revealed: Revealed) -> Fault:
    """The holder's fault. Raises: VerificationError if it revealed what it had accepted, or did not sign it."""
    lists, holder, dealer = revealed.lists, revealed.holder, revealed.dealer
    _require_listed(case, holder, *lists.shared)
    if dealer not in lists.shared or not len(lists.shared) == len(revealed.dealings) == len(revealed.commitments):
        raise VerificationError(f"what {holder} revealed is not one share of each site of U2")
    if dealt_digest(revealed.dealings) != lists.dealt:
        raise VerificationError("the dealings are not those that the survivor list names")
    statement = reveal_statement(case.params.salt, holder, lists, revealed.commitments)
    verify_signature(case.params.member(holder).public_key, statement, revealed.signature)
    position = lists.shared.index(dealer)
    piece = signed_piece(case, revealed.piece, (dealer, holder), revealed.dealings[position])
    kind = SEED if dealer in lists.survivors else KEY
    if piece.entry.commitment(kind) == revealed.commitments[position]:
        raise VerificationError(f"{holder} revealed the share of {dealer} that it had accepted")
    return Fault(holder, dealer, WRONG_SHARE)


def signed_piece(case: Proofs, raw: bytes, pair: tuple[str, str], dealing: bytes | None = None) -> Piece:
    """The piece that the dealer of ``pair = (dealer, holder)`` has signed, of the dealing with this statement.

    Raises: VerificationError if it is another one, or altered on its way.
    """
    if len(raw) != piece_bytes(len(case.listed.sites)):
        raise VerificationError(f"piece of the dealing of {pair[0]} has {len(raw)} bytes")
    piece = Piece.read(raw)
    statement = piece.statement(case.params, case.listed, pair)
    if dealing not in (None, statement):
        raise VerificationError(f"a piece is of another dealing of {pair[0]} than the one that is meant")
    verify_signature(case.params.member(pair[0]).public_key, statement, piece.signature)
    return piece


def _require_listed(case: Proofs, *sites: str) -> None:
    if missing := [site for site in sites if site not in case.listed.sites]:
        raise VerificationError(f"{missing[0][:40]!r} is not in U1 of {case.params.session}")


@dataclass(frozen=True)
class ProofFile:
    """The proofs of all sessions of one round, as a run folder keeps them."""

    sessions: tuple[Proofs, ...] = field(default_factory=tuple)

    def to_json(self) -> str:
        """Canonical JSON, bytes in hexadecimal."""
        return json.dumps({"proofs": _VERSION, **to_plain(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ProofFile:
        """Read what ``to_json`` wrote. Raises: BadInputError, ConfigError."""
        try:
            fields: dict[str, Any] = json.loads(text)
            version = fields.pop("proofs")
            read: ProofFile = from_plain(cls, fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInputError("proofs of faults are not readable") from error
        if version != _VERSION or read.to_json() != text:
            raise BadInputError("proofs of faults are of another version or not in canonical form")
        return read


def culprits(faults: Sequence[Fault]) -> tuple[str, ...]:
    """Everybody whom the faults name, once."""
    return tuple(sorted({fault.culprit for fault in faults}))
