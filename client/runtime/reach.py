"""One look at the server over TLS, as ``site check`` needs it: does it answer, as whom, at what time."""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import WorkFailedError
from common.proxies import Proxy, proxy_for

PROXY_HINT = "the node goes the same way: let the proxy pass this address, or name the server in no_proxy"


@dataclass(frozen=True)
class Reached:
    """What was seen. ``clock_ahead_s``: this machine's clock minus the server's (one second of grain).

    ``proxy``: through which web proxy of the environment, empty if through none.
    """

    seconds: float
    certificate_pem: bytes
    clock_ahead_s: float
    proxy: str = ""


def reach_server(address: str, authority: Path, timeout_s: float) -> Reached:
    """Connect the way the node does, verify certificate and name against the authority, ask for the time.

    Raises: WorkFailedError saying whether name, line, proxy, certificate or answer failed; BadInputError for a useless proxy.
    """
    from common.deployment import split_address

    host, port = split_address(address)
    began, proxy = time.monotonic(), proxy_for(host, port)
    through = f" through the proxy {proxy} (https_proxy)" if proxy else ""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        connection = _connection(host, port, proxy, timeout_s, context)
        connection.connect()
        certificate = _certificate_of(connection.sock)
        connection.request("GET", "/")
        date = connection.getresponse().headers.get("Date", "")
        connection.close()
    except ssl.SSLCertVerificationError as error:
        raise WorkFailedError(
            f"the certificate of {address} is refused: {error.verify_message}",
            hint="wrong ca.crt, wrong address, or an expired certificate: compare with the coordinator",
        ) from error
    except socket.gaierror as error:
        if proxy:
            raise WorkFailedError(f"unknown host {proxy.host!r}: the proxy", hint=PROXY_HINT) from error
        raise WorkFailedError(f"unknown host {host!r}", hint="check [server] address in site.toml") from error
    except (OSError, http.client.HTTPException) as error:
        raise WorkFailedError(
            f"{address} does not answer{through}: {error}",
            hint=PROXY_HINT if proxy else "is the server started, and does the firewall let this port out?",
        ) from error
    theirs = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    ahead = time.time() - theirs
    return Reached(time.monotonic() - began, certificate, 0.0 if 0 <= ahead < 1 else ahead, str(proxy or ""))


def _connection(
    host: str, port: int, proxy: Proxy | None, timeout_s: float, context: ssl.SSLContext
) -> http.client.HTTPSConnection:
    if proxy is None:
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    connection = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=timeout_s, context=context)
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    connection.set_tunnel(host, port, headers)
    return connection


def _certificate_of(sock: object) -> bytes:
    der = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    return ssl.DER_cert_to_PEM_cert(der).encode() if der else b""
