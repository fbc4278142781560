"""``ConsumerSequences``: model input, one row per consumer. The row is the unit of privacy.

Stored ragged, see docs/adr: events of all rows in one array and the offsets where each row begins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.catalogue import Catalogue
from common.data.events import EventLog
from common.data.features import INTEGER_NAMES, NUMERIC_NAMES, FeatureSpec, encode
from common.errors import ConfigError


@dataclass(frozen=True)
class ConsumerSequences:
    """One row per consumer: their last events, encoded, in time order.

    Shapes: ``consumers: uint64[N]`` pseudonyms, each once; row i is the events
    ``offsets[i]:offsets[i + 1]`` (``offsets: int64[N + 1]``); ``integers: int32[R, F]``,
    ``numeric: float32[R, G]``, ``timestamps: int64[R]``.
    Units: ``timestamps`` in microseconds since 1970, UTC.
    Guarantee: everything that depends on a consumer is in that consumer's row.
    """

    consumers: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    integers: NDArray[np.int32]
    numeric: NDArray[np.float32]
    timestamps: NDArray[np.int64]
    integer_names: tuple[str, ...] = INTEGER_NAMES
    numeric_names: tuple[str, ...] = NUMERIC_NAMES

    def __len__(self) -> int:
        return len(self.consumers)

    def __repr__(self) -> str:
        return f"ConsumerSequences({len(self)} rows, {len(self.timestamps)} events)"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per row: ``int64[N]``."""
        return np.diff(self.offsets)

    def column(self, name: str) -> NDArray[np.int32] | NDArray[np.float32]:
        """One feature of all events by its name: ``[R]``."""
        if name in self.integer_names:
            return self.integers[:, self.integer_names.index(name)]
        return self.numeric[:, self.numeric_names.index(name)]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> ConsumerSequences:
        """The rows at the given positions (or under a mask), in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows, dtype=np.intp)
        return self._cut(self.consumers[rows], self.offsets[rows], self.lengths[rows])

    def until(self, time: int, most: int) -> ConsumerSequences:
        """Of each row the last ``most`` events before a time; rows without any stay, empty.

        Units: ``time`` in microseconds since 1970, UTC.
        """
        before = np.concatenate([[0], np.cumsum(self.timestamps < time)])
        lengths = np.diff(before[self.offsets])  # events of a row are in time order
        kept = np.minimum(lengths, most)
        return self._cut(self.consumers, self.offsets[:-1] + lengths - kept, kept)

    def _cut(
        self, consumers: NDArray[np.uint64], begin: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> ConsumerSequences:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
        return ConsumerSequences(
            consumers,
            offsets,
            self.integers[events],
            self.numeric[events],
            self.timestamps[events],
            self.integer_names,
            self.numeric_names,
        )

    def padded(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
        """Rows as rectangles, zeros behind the end: ``int32[B, T, F], float32[B, T, G], int64[B]``.

        T is the longest of these rows (at least 1).
        """
        rows = np.asarray(rows, dtype=np.intp)
        lengths = self.lengths[rows]
        width = max(1, int(lengths.max(initial=0)))
        inside = np.arange(width) < lengths[:, None]  # [B, T]
        events = (self.offsets[rows][:, None] + np.arange(width))[inside]
        integers = np.zeros((len(rows), width, self.integers.shape[1]), dtype=np.int32)
        numeric = np.zeros((len(rows), width, self.numeric.shape[1]), dtype=np.float32)
        integers[inside] = self.integers[events]
        numeric[inside] = self.numeric[events]
        return integers, numeric, lengths


def build_sequences(
    log: EventLog,
    spec: FeatureSpec,
    catalogue: Catalogue | None = None,
    *,
    max_events: int = 50,
    cut: int | None = None,
) -> ConsumerSequences:
    """One row per consumer of the log: the last ``max_events`` events, encoded.

    With ``cut`` (microseconds since 1970) the last ``max_events`` before it and all that follow, so that
    what is asked about does not crowd out what may be read.
    Raises: ConfigError if ``max_events`` is below 1 or the catalogue does not fit the spec.
    """
    if max_events < 1:
        raise ConfigError(f"max_events is {max_events}, at least 1 is needed", hint="50 is the default")
    offsets = log.offsets
    lengths = np.minimum(np.diff(offsets), max_events)
    if cut is not None:
        early = np.concatenate([[0], np.cumsum(log.frame["timestamp"].to_physical().to_numpy() < cut)])
        before = early[offsets[1:]] - early[offsets[:-1]]
        lengths = np.diff(offsets) - np.maximum(before - max_events, 0)
    kept = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.repeat(offsets[1:] - lengths - kept[:-1], lengths) + np.arange(kept[-1])
    encoded = encode(log, spec, catalogue, rows if kept[-1] < len(log) else None)
    return ConsumerSequences(log.consumers, kept, encoded.integers, encoded.numeric, encoded.timestamps)


def holdout_mask(consumers: NDArray[np.uint64], key: bytes, fraction: float) -> NDArray[np.bool_]:
    """True for the consumers that are held out: ``bool[N]``.

    Raises: ConfigError for a fraction outside of [0, 1) or a key that is not 1 to 64 bytes.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"hold-out fraction is {fraction}, it must be in [0, 1)")
    if not 1 <= len(key) <= 64:
        raise ConfigError(f"hold-out key has {len(key)} bytes, 1 to 64 are possible")
    state = hashlib.blake2b(key=key, digest_size=8, person=b"fedcart-holdout")
    drawn = bytearray()
    data = np.ascontiguousarray(consumers, dtype="<u8").tobytes()
    for i in range(0, len(data), 8):
        one = state.copy()
        one.update(data[i : i + 8])
        drawn += one.digest()
    return np.frombuffer(bytes(drawn), dtype="<u8") < np.uint64(int(fraction * 2**64))
