"""Answers messages, each in a process of its own, forked from one that has its imports behind it.

``python -m client.runtime.worker`` has a socket for its standard input: with each byte comes the socket of one message, and
it forks for each. A fresh process per message keeps keys of one exchange out of the next, and this one never sees a message;
the fork saves seconds of imports.
Nothing random may exist before the fork: two children would share it (a test looks for it).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

from client.runtime.killed import ANSWER, note_end
from client.runtime.tasks import answer_task
from common.deployment import SITE_VARIABLE, SiteKit
from common.late import import_late
from common.processes import end_with_parent

PRELOAD_VARIABLE = "FEDCART_PRELOAD"
LATE = "polars"  # its threads die in a fork, so whoever needs it loads it after the fork, at its first use
LIGHT = ("client.app",)
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
    """Serve until the socket closes."""
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    waiting = [*LIGHT, *(HEAVY if os.environ.get(PRELOAD_VARIABLE, "1") != "0" else ())]
    with socket.socket(fileno=sys.stdin.fileno()) as node:
        while True:
            if waiting and not select.select([node], [], [], 0)[0]:
                preload(waiting.pop(0))
                continue
            told, messages, _, _ = socket.recv_fds(node, 1, 1)
            if not told:
                return
            for message in messages:
                gc.freeze()  # a collection in a child would write to, and so copy, the pages that it shares
                if os.fork() == 0:
                    _answer(message)
                os.close(message)


def _reap() -> None:
    """Take leave of children that have ended, and say of one that was killed that it was: it can say nothing itself.

    Its message is answered all the same: the end of its socket tells the node.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if os.WIFSIGNALED(ended[1]):
                note_end(SiteKit(Path(os.environ[SITE_VARIABLE])), ANSWER, -os.WTERMSIG(ended[1]))


def preload(name: str) -> None:
    """Import a module of the lists above."""
    import_late(LATE)
    with contextlib.suppress(ImportError):
        importlib.import_module(name)


def _answer(message: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        end_with_parent()
        answer_task(message)
        code = 0
    except BaseException as error:
        sys.stderr.write(f"worker failed: {type(error).__name__}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)  # the parent's exit handlers are not this process's


if __name__ == "__main__":
    main()
