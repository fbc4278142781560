"""Answers messages, each in a process of its own, forked from one that has its imports behind it.

``python -m client.runtime.worker ADDRESS`` reads one task token per line from stdin and forks for each.
A fresh process per message keeps keys of one exchange out of the next; the fork saves seconds of imports.
Nothing random may exist before the fork: two children would share it (a test looks for it).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys

from client.runtime.node_link import import_client_task, run_client_task
from common.late import import_late

PRELOAD_VARIABLE = "FEDCART_PRELOAD"
LATE = "polars"  # its threads die in a fork, so whoever needs it loads it after the fork, at its first use
LIGHT = ("httpcore", "client.app")
HEAVY = (
    "scipy.special",
    "scipy.fft",
    "torch",
    "client.training.trainer",
    "client.training.evaluation",
    "client.models",
    "client.training.dpsgd.engine",
    "common.data.sequences",
    "common.data.sharing",
    "common.model.run_model",
)


def main() -> None:
    """Serve until stdin closes."""
    address = sys.argv[1]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # finished children vanish without being waited for
    import_client_task()
    waiting = [*LIGHT, *(HEAVY if os.environ.get(PRELOAD_VARIABLE, "1") != "0" else ())]
    while True:
        if waiting and not select.select([sys.stdin], [], [], 0)[0]:
            preload(waiting.pop(0))
            continue
        token = sys.stdin.readline().strip()
        if not token:
            return
        if os.fork() == 0:
            _answer(address, token)


def preload(name: str) -> None:
    """Import a module of the lists above."""
    import_late(LATE)
    with contextlib.suppress(ImportError):
        importlib.import_module(name)


def _answer(address: str, token: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        run_client_task(address, token, os.getppid())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        sys.stderr.write(f"worker failed: {type(error).__name__}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)  # the parent's exit handlers are not this process's


if __name__ == "__main__":
    main()
