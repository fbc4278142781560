"""``Picture``: a drawing that a notebook shows and a script can save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.atomic import write_atomic

_STYLE = (
    "svg{font:11px system-ui,sans-serif} .grid{stroke:#e4e7eb} .axis,.label,text{fill:#52606d} .released{stroke:#b8923a;"
    "fill:none} .oracle{stroke:#1f5f8b;fill:none} .public{stroke:#3c703c;fill:none} .reference{stroke:#8a94a0;"
    "stroke-dasharray:4 3}"
)


@dataclass(frozen=True)
class Picture:
    """An SVG drawing with a title. In a notebook it shows itself."""

    title: str
    svg: str

    def _repr_html_(self) -> str:
        from html import escape

        return f"<figure><style>{_STYLE}</style><figcaption>{escape(self.title)}</figcaption>{self.svg}</figure>"

    def save(self, path: str | Path) -> Path:
        """Write an ``.svg`` or ``.html`` file and return its path. Raises: WorkFailedError (disk)."""
        target = Path(path)
        text = (
            self.svg.replace(">", f"><style>{_STYLE}</style>", 1)
            if target.suffix == ".svg"
            else self._repr_html_()
        )
        write_atomic(target, text.encode())
        return target
