"""Checks that a site, the server and an auditor make alike: pins, signatures, lists of sites."""

from __future__ import annotations

from common.errors import RemoteProtocolError, VerificationError
from common.secagg.messages import Advertisement, Confirmation, ConfirmationList, Member, Params, Receipt
from common.trust import SITE, Roster, verify_signature


def check_pinned(roster: Roster, member: Member) -> None:
    """Return if the member is a site of the roster with this key. Raises: VerificationError."""
    party = roster.party(member.site)
    if party.role != SITE or party.public_key != member.public_key:
        raise VerificationError(f"{member.site} with this key is not pinned as a site in the roster")


def check_advertisement(params: Params, advertisement: Advertisement) -> None:
    """Return if the advertisement is signed by the pinned key of its site, for this very session.

    Raises: RemoteProtocolError (site not invited), VerificationError.
    """
    check_signed(params, advertisement.statement(params.salt), advertisement)


def check_confirmations(params: Params, request: ConfirmationList) -> None:
    """Return if at least t different survivors signed the lists, and no signature is bad.

    Raises: RemoteProtocolError, VerificationError.
    """
    signers = tuple(c.site for c in request.confirmations)
    if signers != params.in_order(set(signers) & set(request.survivors.survivors)):
        raise RemoteProtocolError("confirmations are not of different survivors in cohort order")
    if len(signers) < params.threshold:
        raise RemoteProtocolError(f"{len(signers)} sites confirmed the survivors, {params.threshold} are needed")
    statement = request.survivors.statement(params.salt)
    for confirmation in request.confirmations:
        check_signed(params, statement, confirmation)


def check_signed(params: Params, statement: bytes, signed: Advertisement | Receipt | Confirmation) -> None:
    """Return if the statement is signed by the pinned key of ``signed.site``.

    Raises: RemoteProtocolError (site not invited), VerificationError.
    """
    try:
        verify_signature(params.member(signed.site).public_key, statement, signed.signature)
    except VerificationError as error:
        raise VerificationError(f"{type(signed).__name__.lower()} of {signed.site} is not signed by it") from error


def check_sites(params: Params, sites: tuple[str, ...], own: str) -> None:
    """Return if the list is a part of the cohort in its order, of at least t sites, with ``own`` in it.

    Raises: RemoteProtocolError.
    """
    if not set(sites) <= set(params.sites) or sites != params.in_order(set(sites)):
        raise RemoteProtocolError("list of sites is not a part of the cohort in cohort order")
    if own not in sites:
        raise RemoteProtocolError(f"list of sites leaves out {own}, to whom it was sent")
    if len(sites) < params.threshold:
        raise RemoteProtocolError(f"list has {len(sites)} sites, the threshold is {params.threshold}")
