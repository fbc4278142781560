"""``Picture``: a drawing that a notebook shows and a script can save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.atomic import write_atomic


@dataclass(frozen=True)
class Picture:
    """An SVG drawing with a title. In a notebook it shows itself."""

    title: str
    svg: str

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        from common.pages.drawing import standing_alone

        figure = Markup("<figure><figcaption>{}</figcaption>{}</figure>")
        return str(figure.format(self.title, Markup(standing_alone(self.svg))))  # noqa: S704 - made by us, escaped

    def save(self, path: str | Path) -> Path:
        """Write an ``.svg`` or ``.html`` file and return its path. Raises: WorkFailedError (disk)."""
        from common.pages.drawing import html_page, standing_alone

        target, drawing = Path(path), standing_alone(self.svg)
        write_atomic(target, (drawing if target.suffix == ".svg" else html_page(self.title, drawing)).encode())
        return target
