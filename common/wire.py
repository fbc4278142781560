"""Canonical bytes of our frozen dataclasses: one value, one encoding, or an error.

Deterministic CBOR (RFC 8949, section 4.2) of ``[format version, type name, field values in order]``.
A decoder re-encodes what it read and compares, so two byte strings never mean the same message; that
is what makes it safe to sign or hash these bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

import cbor2

from common.cbor import check_structure
from common.errors import BadInputError, ConfigError, RemoteProtocolError

FORMAT_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 18  # of a message for which the caller knows no closer limit

T = TypeVar("T")
_ATOMS = frozenset((type(None), bool, int, float, str, bytes))


def encode(value: object) -> bytes:
    """Return the canonical bytes of a frozen dataclass instance.

    Raises: TypeError if a field holds a type that has no canonical form.
    """
    return cbor2.dumps([FORMAT_VERSION, type(value).__name__, _to_plain(value)], canonical=True)


def decode(cls: type[T], data: bytes, largest: int = MAX_MESSAGE_BYTES) -> T:
    """Rebuild a ``cls`` from its canonical bytes, at most ``largest`` of them.

    Guarantee: no object is made before size, number and kinds of the items, and their nesting, have been checked.
    Raises: RemoteProtocolError if the bytes are too many, not canonical, of another version or type, or a field
    has the wrong type.
    """
    if not isinstance(data, bytes):
        raise RemoteProtocolError(f"a message is bytes, got {type(data).__name__}")
    if len(data) > largest:
        raise RemoteProtocolError(f"{cls.__name__} of {len(data)} bytes is over the limit of {largest}")
    try:
        check_structure(data)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"not a {cls.__name__} in CBOR: {error.message}") from None
    try:
        parts = cbor2.loads(data)
    except Exception as error:  # cbor2 raises a family of errors and plain ValueErrors on hostile input
        raise RemoteProtocolError("message is not CBOR") from error
    if not (isinstance(parts, list) and len(parts) == 3):
        raise RemoteProtocolError("message is not a [version, type, fields] triple")
    version, name, fields = parts
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise RemoteProtocolError(
            f"message format {str(version)[:40]} is unknown, this program speaks {FORMAT_VERSION}"
        )
    if name != cls.__name__:
        raise RemoteProtocolError(f"expected a {cls.__name__}, got {str(name)[:40]!r}")
    if cbor2.dumps(parts, canonical=True) != data:  # each of the kinds below has one plain form
        _from_plain(cls, fields, cls.__name__)  # a wrong field is what to complain of first
        raise RemoteProtocolError(f"{cls.__name__} is not in canonical form")
    try:
        value: T = _reader(typing.cast(Any, cls))(fields)
    except Exception:  # anything: the slow way says what is wrong, and where
        value = _from_plain(cls, fields, cls.__name__)
    return value


def restore(cls: type[T], data: bytes) -> T:
    """Rebuild what this program itself has encoded and kept; a message from outside is for ``decode``.

    Raises: RemoteProtocolError if the bytes are of another version or type, or no value of it.
    """
    try:
        version, name, fields = cbor2.loads(data)
        if (version, name) == (FORMAT_VERSION, cls.__name__):
            value: T = _reader(typing.cast(Any, cls))(fields)
            return value
    except Exception as error:  # cbor2 raises a family of errors, and a dataclass its own
        raise RemoteProtocolError(f"these bytes are no {cls.__name__}") from error
    raise RemoteProtocolError(f"these bytes are no {cls.__name__} of this version")


def digest(value: object, *, domain: str) -> bytes:
    """SHA-256 of the canonical bytes under a domain label: ``bytes[32]``."""
    return hashlib.sha256(f"fedcart/{domain}/1\0".encode() + encode(value)).digest()


def _to_plain(value: object) -> Any:
    kind: Any = type(value)
    if kind in _ATOMS:
        return value
    if kind is tuple:
        parts = typing.cast("tuple[object, ...]", value)
        return [part if type(part) in _ATOMS else _to_plain(part) for part in parts]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = tuple(getattr(value, name) for name in _field_names(kind))
        return [part if type(part) in _ATOMS else _to_plain(part) for part in parts]
    if isinstance(value, bool | int | float | str | bytes):
        return value
    raise TypeError(f"{kind.__name__} has no canonical form")


@cache
def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((f.name, hints[f.name]) for f in dataclasses.fields(cls))


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What ``_from_plain`` does for a kind, looked up once; whatever it raises means no more than that it does not fit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        part = _reader(arguments[0])
        return lambda plain: tuple([part(one) for one in _of_kind(list, plain)])
    if origin is tuple:
        each = tuple(_reader(argument) for argument in arguments)
        return lambda plain: tuple([read(one) for read, one in zip(each, _of_kind(list, plain), strict=True)])
    if origin is types.UnionType or origin is typing.Union:
        inner = _reader(next(a for a in arguments if a is not type(None)))
        return lambda plain: None if plain is None else inner(plain)
    return partial(_of_kind, kind)


def _dataclass_reader(cls: Any) -> Callable[[Any], Any]:
    names, readers = _field_names(cls), tuple(_reader(kind) for _, kind in _fields(cls))

    def read(plain: Any) -> Any:
        parts = [part(one) for part, one in zip(readers, _of_kind(list, plain), strict=True)]
        return cls(**dict(zip(names, parts, strict=True)))

    return read


def _of_kind(kind: Any, plain: Any) -> Any:
    if type(plain) is not kind:
        raise TypeError
    return plain


def _from_plain(kind: Any, plain: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_plain(typing.cast(type, kind), plain, where)
    if origin is tuple:
        return _tuple_from_plain(typing.get_args(kind), plain, where)
    if origin is types.UnionType or origin is typing.Union:
        arms = [a for a in typing.get_args(kind) if a is not type(None)]
        return None if plain is None else _from_plain(arms[0], plain, where)
    if type(plain) is not kind:
        raise RemoteProtocolError(f"{where} must be {getattr(kind, '__name__', kind)}, got {type(plain).__name__}")
    return plain


def _dataclass_from_plain(cls: type, plain: Any, where: str) -> Any:
    fields = _fields(cls)
    if not isinstance(plain, list) or len(plain) != len(fields):
        raise RemoteProtocolError(f"{where} must have {len(fields)} fields")
    values = {
        name: _from_plain(kind, part, f"{where}.{name}") for (name, kind), part in zip(fields, plain, strict=True)
    }
    try:
        return cls(**values)
    except ConfigError:  # no field is out of bounds, together they are impossible
        raise
    except BadInputError as error:
        raise RemoteProtocolError(f"{where}: {error.message[:200]}", hint=error.hint) from error
    except (ValueError, TypeError, ArithmeticError) as error:  # a __post_init__ check of the dataclass
        raise RemoteProtocolError(f"{where}: {str(error)[:200]}") from error


def _tuple_from_plain(arguments: tuple[Any, ...], plain: Any, where: str) -> Any:
    if not isinstance(plain, list):
        raise RemoteProtocolError(f"{where} must be a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_from_plain(arguments[0], part, f"{where}[{i}]") for i, part in enumerate(plain))
    if len(plain) != len(arguments):
        raise RemoteProtocolError(f"{where} must have {len(arguments)} parts")
    return tuple(_from_plain(k, p, f"{where}[{i}]") for i, (k, p) in enumerate(zip(arguments, plain, strict=True)))
