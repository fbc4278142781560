"""Virtual environments made during a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_of(folder: Path, *, beside_ours: bool = False) -> Path:
    """A new virtual environment's interpreter; ``beside_ours``: what it lacks is read from the one that runs this."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    if beside_ours:
        code = "import site; print(site.getsitepackages()[0])"
        inside = Path(
            subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        )
        outer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        (inside / "zz_outer.pth").write_text(outer)
        (inside / "aa_checkout.pth").write_text(f"{ROOT}\n")
    return python


def install(python: Path, *words: str | Path) -> None:
    """Install into that environment, with the project's constraints unless the words say otherwise."""
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words], check=True)
