"""Which consumer a name means: an id as the shop writes it, or a pseudonym as another command printed it."""

from __future__ import annotations

from common.data import one_id, pseudonym
from common.errors import BadInputError

_HEX = frozenset("0123456789abcdef")


def candidates(name: str, key: bytes) -> list[int]:
    """The pseudonyms that a name can mean, the id's first. Raises: BadInputError for a name that says nothing."""
    plain = one_id(name, "consumer")
    if not plain:
        raise BadInputError("no consumer is named", hint="give the id as your events have it")
    printed = [int(plain, 16)] if len(plain) == 16 and _HEX.issuperset(plain) else []
    return [pseudonym(plain, key), *printed]
