"""The password of a database: read at the last moment from where the settings say it lies, shown nowhere.

Guarantee: it is handed to the driver and to nothing else; errors of the driver pass through ``hidden`` first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

from common.errors import BadInputError
from common.source_settings import PASSWORD_VARIABLES, SourceSettings
from common.trust import require_private

HIDDEN = "(hidden)"
_SHORTEST_HIDDEN = 1


@dataclass(frozen=True)
class Password:
    """A password that does not show itself."""

    text: str = field(repr=False)

    def __repr__(self) -> str:
        return f"Password({HIDDEN})"

    __str__ = __repr__

    def hidden(self, words: str) -> str:
        """The words without the password in any of the forms in which a library may repeat it."""
        forms = {self.text, quote(self.text), quote(self.text, safe=""), quote_plus(self.text), repr(self.text)[1:-1],
                 self.text.replace("\\", "\\\\").replace("'", "\\'")}  # fmt: skip
        for form in sorted((form for form in forms if len(form) >= _SHORTEST_HIDDEN), key=len, reverse=True):
            words = words.replace(form, HIDDEN)
        return words


def password_of(settings: SourceSettings, folder: Path) -> Password | None:
    """The password that the settings point to; None where they point to none.

    Raises: BadInputError if the variable is not set, or the file is missing, empty, a link or open to others.
    """
    if settings.password_env:
        text = os.environ.get(settings.password_env, "")
        if not text:
            raise BadInputError(
                f"the variable {settings.password_env} is not set", hint="it holds the password of [source]"
            )
        return Password(text)
    if not settings.password_file:
        return None
    path = folder / settings.password_file
    if path.is_symlink() or not path.is_file():
        raise BadInputError(
            f"no such file: {path}", hint="password_file of [source], a file and no link, mode 0600"
        )
    require_private([path])
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if not text or "\n" in text or "\0" in text:
        raise BadInputError(f"{path} does not hold a password", hint="one line, and nothing else")
    return Password(text)


def without_passwords(environment: dict[str, str]) -> dict[str, str]:
    """An environment for a child that reads no source: without the variables that hold passwords."""
    return {name: value for name, value in environment.items() if not name.startswith(PASSWORD_VARIABLES)}
