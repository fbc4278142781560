"""How a Python process of ours is started, so that nothing which merely lies about becomes its code.

Python puts the folder in which somebody stands first on its path, and takes more folders from the environment; an
empty or a relative entry means that folder too. A kit that was delivered, or a folder of downloads, would be code.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from common.errors import WorkFailedError

SAFE_PATH = "PYTHONSAFEPATH"
PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
CODE = (  # name code, or a folder of code, that no child of ours needs
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONPLATLIBDIR", "PYTHONCASEOK", "LD_PRELOAD", "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
)  # fmt: skip
HOUSE = Path(__file__).resolve().parents[1]


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours; ``-P`` keeps the current folder off its path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child, with ``more`` in it.

    Guarantee: every folder in which the child looks for programs, modules and libraries is an absolute one.
    """
    wanted = {**os.environ, **(more or {})}
    environment = {name: value for name, value in wanted.items() if name not in CODE}
    for name in PATHS:
        kept = [entry for entry in environment.pop(name, "").split(os.pathsep) if os.path.isabs(entry)]
        if name == "PYTHONPATH" and _house_is_on_path():
            kept.append(str(HOUSE))
        if kept:
            environment[name] = os.pathsep.join(kept)
    return {**environment, SAFE_PATH: "1"}


def empty_folder(path: Path) -> Path:
    """A folder for a child to stand in: made anew, its owner's alone. Raises: WorkFailedError."""
    try:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise WorkFailedError(f"cannot make {path}: {error.strerror}", hint="look at its permissions") from None
    return path


def _house_is_on_path() -> bool:
    """Whether these packages are found by a folder of the path and not by installation: a child must find them too."""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *_site_packages()}
    return str(HOUSE) not in installed and any(Path(entry or os.curdir).resolve() == HOUSE for entry in sys.path)


def _site_packages() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]
