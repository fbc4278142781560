"""Flower's deployment runtime at the coordinator: SuperLink, app bundles, control.

Flower is imported late, by name from the table of ``common/flower.py``. The decisions (who may call, what is
submitted) are the callers'.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import WorkFailedError
from common.flower import patched, private
from server.runtime.arrivals import FROM_SITES, TO_SITES, Arrivals, patient, telling
from server.runtime.door import DoorLimits, hurry_handshakes, impatient, open_doors
from server.runtime.gate import admitted_only, refuse
from server.runtime.senders import own_words

FLEET_PATH = "/v1/fleet/"
CONTROL_PATH = "/v1/control/"
CONTROL_HEADER = b"x-fedcart-control"
IN_MEMORY = ":flwr-in-memory:"  # a file costs seconds a round, and keeps nothing that a run folder does not keep

YOUNG = 20_000  # objects before a collection: a request makes thousands

AsgiApp = Callable[..., Any]


def build_bundle(pyproject: str) -> bytes:
    """An app bundle that holds nothing but ``pyproject.toml``."""
    build_fab_from_files: Any = private("build_fab_from_files")

    content: bytes = build_fab_from_files({"pyproject.toml": pyproject.encode()})[0]
    return content


@dataclass(frozen=True)
class LinkSettings:
    """What a SuperLink needs. Sites reach ``public`` (fleet interface only); all else is on ``private``.

    ``node_keys``: of the sites that are admitted, PEM.
    """

    public: tuple[str, int]
    private: tuple[str, int]
    authority: Path
    certificate: Path
    key: Path
    secret: Path
    node_keys: tuple[bytes, ...] = ()
    door: DoorLimits = field(default_factory=DoorLimits)


def run_superlink(settings: LinkSettings, control_token: bytes) -> None:
    """Serve until SIGTERM.

    Guarantee: the control and runtime interfaces answer on the private address only, the control interface
    only to whoever shows ``control_token``.
    """
    _serve_with(lambda app: _serve_both(app, settings, control_token))
    host, port = settings.private
    sys.argv = [
        "flower-superlink", "--isolation", "process", "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--superexec-auth-secret-file", str(settings.secret),
        "--ssl-ca-certfile", str(settings.authority), "--ssl-certfile", str(settings.certificate),
        "--ssl-keyfile", str(settings.key), "--database", IN_MEMORY,
        "--host", host, "--port", str(port),
    ]  # fmt: skip
    private("flower_superlink").flower_superlink()


def _serve_with(serve: Callable[[AsgiApp], Coroutine[Any, Any, None]]) -> None:
    """The SuperLink hands its application to ``serve`` instead of serving it on one address."""
    patched("flower_superlink", "uvicorn.run")

    def run(app: AsgiApp, **_: Any) -> None:
        gc.freeze()  # a sixth of the time went into looking through the modules for garbage
        gc.set_threshold(YOUNG)
        asyncio.run(serve(app))

    private("flower_superlink").uvicorn.run = run


async def _serve_both(app: AsgiApp, settings: LinkSettings, control_token: bytes) -> None:
    import signal

    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    def server(asgi: AsgiApp, address: tuple[str, int], lifespan: Any, http: Any = "auto") -> uvicorn.Server:
        config = uvicorn.Config(
            asgi, host=address[0], port=address[1], lifespan=lifespan, http=http, access_log=False, log_level="warning",
            ssl_certfile=settings.certificate, ssl_keyfile=settings.key, timeout_graceful_shutdown=5,
        )  # fmt: skip
        return Server(config)

    down, up = Arrivals(TO_SITES), Arrivals(FROM_SITES)
    inside = patient(telling(_only_with_token(app, control_token), down), up)
    servers = [
        server(inside, settings.private, "on"),
        server(_public(app, (down, up), settings), settings.public, "off", _protocol(settings.door)),
    ]
    hurry_handshakes()
    doors: list[Any] = [None, open_doors(settings.public, settings.door)]

    def stop() -> None:
        down.end()
        up.end()
        for one in servers:
            one.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    tasks = [asyncio.ensure_future(one.serve(door)) for one, door in zip(servers, doors, strict=True)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _public(app: AsgiApp, arrivals: tuple[Arrivals, Arrivals], settings: LinkSettings) -> AsgiApp:
    down, up = arrivals
    return _only_fleet(admitted_only(own_words(telling(patient(app, down), up)), settings.node_keys))


def _protocol(limits: DoorLimits) -> Any:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    return impatient(AutoHTTPProtocol, limits.headers_s)


def _only_fleet(app: AsgiApp) -> AsgiApp:
    async def filtered(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(FLEET_PATH) and "/." not in scope["path"]:
            await app(scope, receive, send)
        else:
            await refuse(send, 404)

    return filtered


def _only_with_token(app: AsgiApp, token: bytes) -> AsgiApp:
    import hmac

    async def filtered(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(CONTROL_PATH):
            shown = dict(scope["headers"]).get(CONTROL_HEADER, b"")
            if not hmac.compare_digest(shown, token):
                await refuse(send, 404)
                return
        await app(scope, receive, send)

    return filtered


class Control:
    """The coordinator's calls to its own SuperLink."""

    def __init__(self, address: str, authority: bytes, token: bytes) -> None:
        ControlHttpClient = private("ControlHttpClient")
        RuntimeVersionHttpInterceptor = private("RuntimeVersionHttpInterceptor")

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
        try:
            return method(request)
        except Exception as error:  # the HTTP client under it is Flower's affair
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if status:
                raise WorkFailedError(
                    f"the server refuses {method.__name__}: status {status}", hint="is it the server of this kit?"
                ) from error
            raise WorkFailedError("the server does not answer", hint="fedcart server start KIT") from error

    def nodes(self) -> dict[bytes, tuple[int, str]]:
        """Registered nodes: public key -> (node id, status word)."""
        ListNodesRequest = private("ListNodesRequest")

        answer = self._call(self._client.ListNodes, ListNodesRequest())
        return {bytes(n.public_key): (int(n.node_id), str(n.status)) for n in answer.nodes_info}

    def register(self, public_key: bytes, name: str) -> int:
        """Admit a node by its EC public key, return its node id."""
        RegisterNodeRequest = private("RegisterNodeRequest")

        return int(
            self._call(self._client.RegisterNode, RegisterNodeRequest(public_key=public_key, name=name)).node_id
        )

    def unregister(self, node_id: int) -> None:
        """Remove a node."""
        UnregisterNodeRequest = private("UnregisterNodeRequest")

        self._call(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def start_run(self, bundle: bytes, settings: dict[str, bool | float | int | str]) -> int:
        """Submit the bundle, return Flower's run id. Raises: WorkFailedError if it is not accepted."""
        import hashlib

        fab_to_proto: Any = private("fab_to_proto")
        user_config_to_proto: Any = private("user_config_to_proto")
        StartRunRequest = private("StartRunRequest")
        Fab = private("Fab")

        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(settings))
        answer = self._call(self._client.StartRun, request)
        if not answer.HasField("run_id"):
            raise WorkFailedError("the server does not accept the run", hint="see the server's log")
        return int(answer.run_id)

    def stop_run(self, run_id: int) -> None:
        """Stop a run."""
        StopRunRequest = private("StopRunRequest")

        self._call(self._client.StopRun, StopRunRequest(run_id=run_id))

    def run_status(self, run_id: int) -> tuple[str, str, str]:
        """Flower's (status, sub-status, details) of a run; empty words if it is unknown."""
        ListRunsRequest = private("ListRunsRequest")

        runs = self._call(self._client.ListRuns, ListRunsRequest(run_id=run_id)).run_dict
        if run_id not in runs:
            return "", "", ""
        status = runs[run_id].status
        return str(status.status), str(status.sub_status), str(status.details)
