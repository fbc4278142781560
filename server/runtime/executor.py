"""Starts a process for each server app that the SuperLink has: ``python -m server.runtime.executor KIT ADDRESS``.

In place of ``flower-superexec``, which writes the token of a task into the command line of its process: every user of
the machine can read that, and with the token end the run or speak in its name.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common.deployment import CoordinatorKit, open_coordinator_kit
from common.flower import private
from common.processes import child_environment, end_with_parent, python_command

POLL_S = 0.2
BUSY_POLL_S = 1.0  # while an app runs: what it does must not wait for who asks whether there is another
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
HANDSHAKE_FILE = "executor.secret"


def run_executor(kit: CoordinatorKit, address: str) -> None:
    """Take one task after another until SIGTERM. ``address`` is the SuperLink's private one."""
    client = _runtime(kit, address)
    running: list[subprocess.Popen[str]] = []
    while True:
        token = _take_task(client)
        if token:
            running.append(start_task(kit, address, token))
        running = [task for task in running if task.poll() is None]  # and the ended ones are waited for
        time.sleep(BUSY_POLL_S if running else POLL_S)


def start_task(kit: CoordinatorKit, address: str, token: str) -> subprocess.Popen[str]:
    """Start the process of one server app.

    Guarantee: the token goes through its standard input; no command line, environment or file has it.
    """
    task = subprocess.Popen(
        python_command("server.runtime.task", address, str(kit.authority)),
        env=child_environment(),
        stdin=subprocess.PIPE,
        text=True,
    )
    assert task.stdin is not None
    task.stdin.write(token + "\n")
    task.stdin.close()
    return task


def _runtime(kit: CoordinatorKit, address: str) -> Any:
    RuntimeHttpClient = private("RuntimeHttpClient")
    RuntimeVersionHttpInterceptor = private("RuntimeVersionHttpInterceptor")
    SuperExecAuthHttpInterceptor = private("SuperExecAuthHttpInterceptor")

    secret = (kit.state / HANDSHAKE_FILE).read_bytes()
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=kit.authority.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={ACQUIRE}),
        ],
        retry_invoker=private("make_simple_http_retry_invoker")(),  # the SuperLink may still be starting
    )


def _take_task(client: Any) -> str:
    """The token of a server app that waits, else empty."""
    AcquireTaskRequest = private("AcquireTaskRequest")
    TaskType = private("TaskType")

    answer = client.AcquireTask(AcquireTaskRequest(supported_task_types={TaskType.SERVER_APP}))
    return str(answer.token) if answer.HasField("task") else ""


if __name__ == "__main__":
    end_with_parent()
    private("disable_process_dumping")(strict=False)  # its memory has the secret
    run_executor(open_coordinator_kit(Path(sys.argv[1])), sys.argv[2])
