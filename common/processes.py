"""Processes of ours: how one is started, so that nothing which merely lies about becomes its code, and how parents wait
for their children and take the children's children with them.

Python puts the folder in which somebody stands first on its path, and takes more folders from the environment; an
empty or a relative entry means that folder too. A kit that was delivered, or a folder of downloads, would be code.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from common.errors import WorkFailedError
from common.proxies import without_loopback

SAFE_PATH = "PYTHONSAFEPATH"
PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
CODE = (  # name code, or a folder of code, that no child of ours needs
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONPLATLIBDIR", "PYTHONCASEOK", "LD_PRELOAD", "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
)  # fmt: skip
HOUSE = Path(__file__).resolve().parents[1]
STOP_TIMEOUT_S = 15.0
GROUP_TIMEOUT_S = 3.0
WATCH_S = 0.5


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours; ``-P`` keeps the current folder off its path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child, with ``more`` in it.

    Guarantee: every folder in which the child looks for programs, modules and libraries is an absolute one, and nothing
    that it says to a process of this machine goes to a proxy.
    """
    wanted = {**os.environ, **(more or {})}
    environment = {name: value for name, value in wanted.items() if name not in CODE}
    for name in PATHS:
        kept = [entry for entry in environment.pop(name, "").split(os.pathsep) if os.path.isabs(entry)]
        if name == "PYTHONPATH" and _house_is_on_path():
            kept.append(str(HOUSE))
        if kept:
            environment[name] = os.pathsep.join(kept)
    return {**environment, **without_loopback(environment), SAFE_PATH: "1"}


def keep_loopback_here() -> None:
    """From now on nothing that this process says to another of this machine goes to a proxy of its environment."""
    os.environ.update(without_loopback(os.environ))


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


def wait_for_group(
    process: subprocess.Popen[bytes], stop: threading.Event, look: Callable[[], None] = lambda: None
) -> int:
    """Wait until a process that leads its own session has ended, then end what is left of its group.

    ``look`` is called now and then while it lives, and once when it has ended.
    Once ``stop`` is set (and the process was told), it has ``STOP_TIMEOUT_S`` before it is killed.
    """
    told_at = None
    with _watched(process) as ended:
        while not ended(WATCH_S):
            look()
            if stop.is_set():
                told_at = told_at or time.monotonic()
                if time.monotonic() - told_at > STOP_TIMEOUT_S:
                    process.kill()
    look()
    code = process.wait()
    _end_group(process.pid)
    return code


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """Ask "has it ended?" with a timeout. ``Popen.wait`` looks twenty times a second; a pidfd need not be looked at."""
    if not hasattr(os, "pidfd_open"):
        yield lambda timeout_s: _ended(process, timeout_s)
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda timeout_s: bool(poll.poll(1000 * timeout_s))
    finally:
        os.close(descriptor)


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def end_with_parent() -> None:
    """Make this process end in order when the process that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        end = time.monotonic() + GROUP_TIMEOUT_S
        while time.monotonic() < end:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
