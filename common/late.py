"""A package that is imported at its first use, though modules that may need it are imported before."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def import_late(name: str) -> None:
    """From now on ``import name`` costs nothing, and loads the package when something in it is looked up.

    For a process that forks: threads of a package die in a fork, so whoever needs it loads it afterwards.
    """
    if name not in sys.modules:
        sys.modules[name] = _LateModule(name)


class _LateModule(ModuleType):
    """Stands for a package until something in it is looked up; then the package is loaded and answers."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system and ``inspect`` ask every module for these
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
