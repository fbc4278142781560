"""Private imports of Flower's deployment runtime: SuperNode, SuperLink, app bundles, control interface.

Like ``common/flower.py``, and apart from it because these parts are imported late: they cost half a second
that no command-line help should pay. The decisions (what may run, who may call) are the callers'.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RefusedError, WorkFailedError

BUSY_WINDOW_S = 120.0
BUSY_POLL_S = 0.2
IDLE_POLL_S = 1.0
REPLY_POLL_S = 0.03
FLEET_PATH = "/v1/fleet/"
CONTROL_PATH = "/v1/control/"
CONTROL_HEADER = b"x-fedcart-control"

CheckBundle = Callable[[str, bytes], None]
AsgiApp = Callable[..., Any]


def build_bundle(pyproject: str) -> bytes:
    """An app bundle that holds nothing but ``pyproject.toml``."""
    from flwr.cli.build import build_fab_from_files

    content: bytes = build_fab_from_files({"pyproject.toml": pyproject.encode()})[0]
    return content


# --- the site's side -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeSettings:
    """What a SuperNode needs. ``secret`` guards its local interface; ``private_key`` is the EC node key."""

    address: str
    authority: bytes
    private_key: Any
    secret: bytes


class Pace:
    """Stands in for ``time`` in the SuperNode's loop: quick while messages come, quiet otherwise."""

    def __init__(self) -> None:
        self._last_message = 0.0

    def message_seen(self) -> None:
        """Poll quickly from now on."""
        self._last_message = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep for less than Flower asks: its 3 s are idle waits, its 0.5 s wait for a local answer."""
        busy = time.monotonic() - self._last_message < BUSY_WINDOW_S
        idle = BUSY_POLL_S if busy else IDLE_POLL_S
        time.sleep(min(seconds, REPLY_POLL_S if seconds < 1 else idle))


def run_supernode(
    settings: NodeSettings,
    check_bundle: CheckBundle,
    on_ready: Callable[[str], None],
    on_message: Callable[[], None],
) -> None:
    """Connect to the SuperLink and serve until the process ends; messages wait for ``take_task``.

    ``on_ready`` gets the address of the local interface, ``on_message`` is called when a task is waiting.
    Guarantee: a bundle for which ``check_bundle(claimed digest, content)`` raises RefusedError is neither
    stored nor handed to any other process, and its message is dropped.
    """
    internal: Any = importlib.import_module("flwr.supernode.start_client_internal")
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.nodestate import NodeStateFactory

    pace = Pace()
    internal.time = pace

    def message_stored() -> None:
        pace.message_seen()
        on_message()

    internal.http_request_response = _guarded(internal.http_request_response, check_bundle, message_stored)
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    on_ready(_start_local_interface(states, settings.secret))
    internal.start_client_internal(
        state_factory=states,
        server_address=settings.address,
        node_config={},
        root_certificates=settings.authority,
        insecure=False,
        authentication_keys=(settings.private_key, settings.private_key.public_key()),
        isolation="process",
        superexec_auth_secret=settings.secret,
        runtime_dependency_install=False,
    )


def _start_local_interface(states: Any, secret: bytes) -> str:
    """Serve the SuperNode's local interface on a free loopback port, return its address."""
    import uvicorn
    from flwr.supercore.exit import add_exit_handler
    from flwr.supernode.main import create_app

    app = create_app(state_factory=states, superexec_auth_secret=secret)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, access_log=False, log_level="warning"))
    thread = threading.Thread(target=server.run, name="local-interface", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.01)
    if not server.started:
        raise WorkFailedError("the local interface does not start", hint="look for a full disk or no free ports")
    add_exit_handler(lambda: setattr(server, "should_exit", True))
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"127.0.0.1:{port}"


def _guarded(
    connect: Callable[..., Any], check_bundle: CheckBundle, stored: Callable[[], None]
) -> Callable[..., Any]:
    """Wrap Flower's connection so that everything a server claims about a run passes ``check_bundle``."""

    @contextlib.contextmanager
    def guarded_connect(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*args, **kwargs) as connection:
            node_id, receive, send, get_run, get_fab, pull, push, confirm = connection
            get_run, get_fab = _guarded_bundle(get_run, get_fab, check_bundle)

            def confirm_and_tell(run_id: int, message_id: str) -> None:
                confirm(run_id, message_id)
                stored()

            def send_without_duration(message: Any, tree: Any, _duration: float) -> Any:
                return send(message, tree, 0.0)

            yield node_id, receive, send_without_duration, get_run, get_fab, pull, push, confirm_and_tell

    return guarded_connect


def _guarded_bundle(get_run: Any, get_fab: Any, check_bundle: CheckBundle) -> tuple[Any, Any]:
    from flwr.cli.config_utils import get_fab_metadata
    from flwr.supercore.constant import TaskType
    from flwr.supercore.fab import Fab
    from flwr.supercore.run import RunNotRunningException

    runs: dict[int, Any] = {}

    def remembered_run(run_id: int) -> Any:
        runs[run_id] = get_run(run_id)
        return runs[run_id]

    def checked_bundle(claimed: str, run_id: int) -> Any:
        try:
            check_bundle(claimed, b"")
            content = bytes(get_fab(claimed, run_id).content)
            check_bundle(claimed, content)
        except RefusedError as error:  # Flower's word for "drop this message and go on"
            raise RunNotRunningException from error
        run = runs.pop(run_id)  # nothing the server says about the run may choose what is loaded
        run.fab_id, run.fab_version = get_fab_metadata(content)
        run.override_config, run.primary_task_type = {}, TaskType.SERVER_APP
        return Fab(claimed, content, {})

    return remembered_run, checked_bundle


class TaskSource:
    """Takes waiting tasks from the SuperNode's local interface."""

    def __init__(self, address: str, secret: bytes) -> None:
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
        from flwr.supercore.runtime import RuntimeHttpClient

        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
                ),
            ],
        )

    def take_task(self) -> str | None:
        """The token of a waiting task, or None."""
        from flwr.proto.runtime_pb2 import AcquireTaskRequest
        from flwr.supercore.constant import TaskType

        answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types={TaskType.CLIENT_APP}))
        return str(answer.token) if answer.HasField("task") and answer.token else None


def import_client_task() -> Any:
    """Import all that answering a message needs, before the message is there."""
    return importlib.import_module("flwr.supernode.runtime.run_clientapp")


def run_client_task(address: str, token: str, parent_pid: int) -> None:
    """Answer one message in this process, then exit it.

    Guarantee: what the server learns of a failure is the word ``failed``, and what the log learns is the type
    of the error and its place in the program, never its text.
    """
    from flwr.app import Error

    task = import_client_task()
    flower_log = task.log

    def log_without_text(level: int, text: str, *values: object, exc_info: Any = None) -> None:
        if isinstance(exc_info, BaseException):
            flower_log(level, "client app failed: %s", _place_of(exc_info))
        else:
            flower_log(level, text, *values)

    task.log = log_without_text
    task.Error = lambda code, reason=None: Error(code=code, reason="failed")  # noqa: ARG005
    task.run_clientapp(runtime_api_address=address, token=token, insecure=True, parent_pid=parent_pid)


def _place_of(error: BaseException) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__} in " + "".join(f"{Path(f.filename).name}:{f.lineno}" for f in last)


# --- the coordinator's side ----------------------------------------------------------------------------


@dataclass(frozen=True)
class LinkSettings:
    """What a SuperLink needs. Sites reach ``public`` (fleet interface only); all else is on ``private``."""

    public: tuple[str, int]
    private: tuple[str, int]
    authority: Path
    certificate: Path
    key: Path
    database: Path
    secret: Path


def run_superlink(settings: LinkSettings, control_token: bytes) -> None:
    """Serve until SIGTERM.

    Guarantee: the control and runtime interfaces answer on the private address only, the control interface
    only to whoever shows ``control_token``.
    """
    command: Any = importlib.import_module("flwr.superlink.cli.flower_superlink")
    host, port = settings.private
    sys.argv = [
        "flower-superlink", "--isolation", "process", "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--superexec-auth-secret-file", str(settings.secret),
        "--ssl-ca-certfile", str(settings.authority), "--ssl-certfile", str(settings.certificate),
        "--ssl-keyfile", str(settings.key), "--database", str(settings.database),
        "--host", host, "--port", str(port),
    ]  # fmt: skip
    command.uvicorn.run = lambda app, **_: asyncio.run(_serve_both(app, settings, control_token))
    command.flower_superlink()


async def _serve_both(app: AsgiApp, settings: LinkSettings, control_token: bytes) -> None:
    import signal

    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    def server(asgi: AsgiApp, address: tuple[str, int], lifespan: Any) -> uvicorn.Server:
        config = uvicorn.Config(
            asgi, host=address[0], port=address[1], lifespan=lifespan, access_log=False, log_level="warning",
            ssl_certfile=settings.certificate, ssl_keyfile=settings.key, timeout_graceful_shutdown=5,
        )  # fmt: skip
        return Server(config)

    servers = [
        server(_only_with_token(app, control_token), settings.private, "on"),
        server(_only_fleet(app), settings.public, "off"),
    ]

    def stop() -> None:
        for one in servers:
            one.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    tasks = [asyncio.ensure_future(one.serve()) for one in servers]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _only_fleet(app: AsgiApp) -> AsgiApp:
    async def filtered(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(FLEET_PATH):
            await app(scope, receive, send)
        else:
            await _refuse(send)

    return filtered


def _only_with_token(app: AsgiApp, token: bytes) -> AsgiApp:
    import hmac

    async def filtered(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(CONTROL_PATH):
            shown = dict(scope["headers"]).get(CONTROL_HEADER, b"")
            if not hmac.compare_digest(shown, token):
                await _refuse(send)
                return
        await app(scope, receive, send)

    return filtered


async def _refuse(send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Control:
    """The coordinator's calls to its own SuperLink."""

    def __init__(self, address: str, authority: bytes, token: bytes) -> None:
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        class ShowToken:
            def intercept(self, context: Any, call_next: Any) -> Any:
                context.request.headers[CONTROL_HEADER.decode()] = token.decode()
                return call_next(context)

        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=authority,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI"), ShowToken()],
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        import httpx

        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            raise WorkFailedError(
                f"the server refuses {method.__name__}: status {error.response.status_code}",
                hint="is it the server of this kit?",
            ) from error
        except httpx.HTTPError as error:
            raise WorkFailedError(
                "the server does not answer", hint="start it: fedcart server start KIT"
            ) from error

    def nodes(self) -> dict[bytes, tuple[int, str]]:
        """Registered nodes: public key -> (node id, status word)."""
        from flwr.proto.control_pb2 import ListNodesRequest

        answer = self._call(self._client.ListNodes, ListNodesRequest())
        return {bytes(n.public_key): (int(n.node_id), str(n.status)) for n in answer.nodes_info}

    def register(self, public_key: bytes, name: str) -> int:
        """Admit a node by its EC public key, return its node id."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        return int(
            self._call(self._client.RegisterNode, RegisterNodeRequest(public_key=public_key, name=name)).node_id
        )

    def unregister(self, node_id: int) -> None:
        """Remove a node."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        self._call(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def start_run(self, bundle: bytes, settings: dict[str, bool | float | int | str]) -> int:
        """Submit the bundle, return Flower's run id. Raises: WorkFailedError if it is not accepted."""
        import hashlib

        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(settings))
        answer = self._call(self._client.StartRun, request)
        if not answer.HasField("run_id"):
            raise WorkFailedError("the server does not accept the run", hint="see the server's log")
        return int(answer.run_id)

    def stop_run(self, run_id: int) -> None:
        """Stop a run."""
        from flwr.proto.control_pb2 import StopRunRequest

        self._call(self._client.StopRun, StopRunRequest(run_id=run_id))

    def run_status(self, run_id: int) -> tuple[str, str, str]:
        """Flower's (status, sub-status, details) of a run; empty words if it is unknown."""
        from flwr.proto.control_pb2 import ListRunsRequest

        runs = self._call(self._client.ListRuns, ListRunsRequest(run_id=run_id)).run_dict
        if run_id not in runs:
            return "", "", ""
        status = runs[run_id].status
        return str(status.status), str(status.sub_status), str(status.details)
