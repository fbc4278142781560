"""The process of one server app: ``python -m server.runtime.task ADDRESS AUTHORITY``, the token on standard input.

What ``flwr-serverapp`` does, which would want the token in its command line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from queue import Queue

from common.errors import BadInputError
from common.flower import private

MOST_TOKEN_BYTES = 4_096


def run_task(address: str, authority: Path, token: str) -> None:
    """Run the server app of a task to its end, or until the process that started this one is gone."""
    log: Queue[str | None] = Queue()
    private("mirror_output_to_queue")(log)  # as Flower does: what is printed is kept with the run
    try:
        private("run_serverapp")(
            runtime_api_address=address,
            log_queue=log,
            token=token,
            insecure=False,
            certificates=authority.read_bytes(),
            parent_pid=os.getppid(),
            runtime_dependency_install=False,
        )
    finally:
        private("restore_output")()


def read_token() -> str:
    """The token, one line of standard input. Raises: BadInputError."""
    token = sys.stdin.readline(MOST_TOKEN_BYTES).strip()
    if not token:
        raise BadInputError("no token on standard input", hint="only server.runtime.executor starts this")
    return token


if __name__ == "__main__":
    run_task(sys.argv[1], Path(sys.argv[2]), read_token())
