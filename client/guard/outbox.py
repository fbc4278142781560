"""The outbox: contributions that are computed and charged, but have not left yet.

One 0600 file per reservation in the site's state folder, as trusted as the raw data beside it. The file
carries its own digest; a damaged one is never sent.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from common.atomic import sync_directory, write_atomic
from common.errors import VerificationError, WorkFailedError

_DIGEST_BYTES = 32


def outbox_digest(contribution: bytes | memoryview) -> bytes:
    """What a COMMIT records about the bytes that leave: ``bytes[32]``."""
    found = hashlib.sha256(b"fedcart/outbox/1\0")
    found.update(contribution)
    return found.digest()


def replace_file(path: Path, *parts: bytes | memoryview, durable: bool, mode: int = 0o600) -> None:
    """Replace a file by these parts so that no reader and no crash sees a half; ``durable``: not a power cut either.

    Raises: WorkFailedError if the disk is full or not writable.
    """
    if durable:
        write_atomic(path, *parts, mode=mode)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except OSError as error:
        raise WorkFailedError(f"cannot write {path}: {error.strerror}", hint="free some space") from error


@dataclass(frozen=True)
class Outbox:
    """The folder of contributions that wait for their round. Files are named by the RESERVE's sequence.

    ``durable`` False is for simulated sites: a killed process loses nothing, a power cut may.
    """

    folder: Path
    durable: bool = True

    def put(self, sequence: int, contribution: bytes | memoryview) -> None:
        """Store a contribution atomically, over an earlier one. Raises: WorkFailedError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = outbox_digest(contribution)
        replace_file(self._path(sequence), digest, contribution, durable=self.durable)

    def has(self, sequence: int) -> bool:
        """Whether an undamaged contribution waits."""
        try:
            return self.get(sequence) is not None
        except VerificationError:
            return False

    def get(self, sequence: int) -> bytes | None:
        """The stored contribution, None if there is none. Raises: VerificationError if it is damaged."""
        stored = self.get_with_digest(sequence)
        return stored[0] if stored else None

    def get_with_digest(self, sequence: int) -> tuple[bytes, bytes] | None:
        """The stored contribution and its ``outbox_digest``, checked once: hashing a model's size is slow."""
        try:
            with self._path(sequence).open("rb") as file:
                digest, contribution = file.read(_DIGEST_BYTES), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkFailedError(f"cannot read the outbox: {error.strerror}") from None
        if outbox_digest(contribution) != digest:
            raise VerificationError("the stored contribution is damaged", hint="it stays charged and is not sent")
        return contribution, digest

    def digest_of(self, sequence: int) -> bytes | None:
        """The digest that a stored contribution carries, unchecked; None if there is none."""
        try:
            with self._path(sequence).open("rb") as file:
                return file.read(_DIGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkFailedError(f"cannot read the outbox: {error.strerror}") from None

    def remove(self, sequences: list[int]) -> None:
        """Remove contributions; when this returns they are gone from the disk. Raises: WorkFailedError."""
        if self.folder.exists():
            self._unlink([self._path(sequence) for sequence in sequences])

    def clear(self) -> None:
        """Remove everything, unfinished temporary files too. Raises: WorkFailedError."""
        if self.folder.exists():
            self._unlink(list(self.folder.iterdir()))

    def _unlink(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
            if self.durable:
                sync_directory(self.folder)
        except OSError as error:
            raise WorkFailedError(f"cannot empty the outbox: {error.strerror}") from None

    def _path(self, sequence: int) -> Path:
        return self.folder / f"{sequence}.contribution"
