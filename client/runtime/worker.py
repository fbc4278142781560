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
from pathlib import Path

from client.runtime.killed import ANSWER, note_end
from client.runtime.node_link import import_client_task, run_client_task
from common.deployment import SITE_VARIABLE, SiteKit
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
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
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


def _reap() -> None:
    """Take leave of children that have ended. One that was killed can answer nothing any more: the session ends with it.

    Otherwise the site would be silent until it is started again: it answers one message after the other.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if os.WIFSIGNALED(ended[1]):
                note_end(SiteKit(Path(os.environ[SITE_VARIABLE])), ANSWER, -os.WTERMSIG(ended[1]))
                os._exit(1)


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
