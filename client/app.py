"""``client.app:app``: the Flower ClientApp of a site. The same one runs simulated and deployed.

Each handler is the same few lines: open the site, let ``client.session`` answer, keep the round's memory in
``Context.state``. In a deployment every message is a new process, so torch is imported by the exchange that
trains and by no other. Whatever goes wrong, only a fixed word leaves the site; the story stays in its log.
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

import client.session as session
import common.flower as flower
from client.guard import ChargedError
from client.session import Memory
from client.site import Site, load_site
from client.verification import part
from common import VERSION
from common.bounds import check_run
from common.deployment import SITE_VARIABLE
from common.errors import BadInputError, FedcartError, PolicyRefusedError
from common.local_log import local_log
from common.run import PerformanceSettings

app = ClientApp()
MEMORY = "round"
HELLO = b"fedcart/hello/1\0"

Answer = tuple[dict[str, Any], Memory]
Handler = Callable[[Site, dict[str, Any], Memory, PerformanceSettings], Answer]


def _handle(message: Message, context: Context, handler: Handler) -> Message:
    """Answer one message; an error becomes a code, never a text, with the attestation if something was charged."""
    site, parts = None, dict[str, Any]()
    try:
        site = _open(context)
        parts, memory = handler(site, flower.parts_of(message.content), _remembered(context), _speed(context))
        context.state[MEMORY] = ConfigRecord(memory.__dict__ | {})
        return flower.reply(message, parts)
    except ChargedError as error:
        _log(site, message, error.cause)
        return flower.reply(message, _code_of(error.cause) | {"attestation": session.attested(error.attestation)})
    except Exception as error:  # nothing of an exception may reach the server
        _log(site, message, error)
        charged = {"attestation": parts["attestation"]} if "attestation" in parts else {}
        return flower.reply(message, _code_of(error) | charged)


def _code_of(error: Exception) -> dict[str, Any]:
    parts = {"error": error.code if isinstance(error, FedcartError) else "failed"}
    if isinstance(error, PolicyRefusedError):
        parts["rule"] = error.rule
    return parts


def _handle_in_full_seconds(message: Message, context: Context, handler: Handler) -> Message:
    """As ``_handle``; the answer of a real site waits for the next full second, whatever it is.

    How long training takes says how many consumers there are, to a few milliseconds each.
    """
    began = time.monotonic()
    answer = _handle(message, context, handler)
    if not context.node_config.get("simulated", False):
        spent = time.monotonic() - began
        time.sleep(math.ceil(spent) - spent)
    return answer


def _open(context: Context) -> Site:
    folder = str(context.node_config.get("site") or os.environ.get(SITE_VARIABLE, ""))
    if not folder:
        raise BadInputError("no site kit", hint=f"set {SITE_VARIABLE} to the kit's folder")
    ledger = str(context.node_config.get("ledger", ""))
    simulated = bool(context.node_config.get("simulated", False))
    return load_site(Path(folder), simulated=simulated, ledger_path=Path(ledger) if ledger else None)


def _speed(context: Context) -> PerformanceSettings:
    """The site's own choice of speed, from its node config."""
    chosen = {k: context.node_config[k] for k in ("trainer", "micro_batch") if k in context.node_config}
    return PerformanceSettings.model_validate(chosen)


def _remembered(context: Context) -> Memory:
    record = context.state.config_records.get(MEMORY)
    return Memory(**record) if record else Memory()  # type: ignore[arg-type]


def _log(site: Site | None, message: Message, error: Exception) -> None:
    """The story in the site's own log: our own words, or else type and place; a foreign text could quote data."""
    ours = f"{error.message}; {error.hint}" if isinstance(error, FedcartError) else type(error).__name__
    places = "" if isinstance(error, FedcartError) else "".join(traceback.format_tb(error.__traceback__))
    text = f"{message.metadata.message_type} {message.metadata.group_id}: {ours}\n{places}".rstrip()
    if site is None:  # there is no log file; whoever started this process keeps what it says
        logging.getLogger("fedcart").error(text)
    else:
        local_log(site.kit.log).error(text)


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say who we are, proven for this run and node."""

    def greet(site: Site, request: dict[str, Any], _: Memory, __: PerformanceSettings) -> Answer:
        statement = HELLO + f"{_run_of(request)}/{message.metadata.dst_node_id}".encode()
        return {"site": site.name, "version": VERSION, "signature": site.identity.sign(statement)}, Memory()

    return _handle(message, context, greet)


def _run_of(request: dict[str, Any]) -> str:
    run = part(request, "run", str)
    check_run(run)
    return run


@app.query("propose")
def propose(message: Message, context: Context) -> Message:
    """A run's settings, before its first round: does this site's policy, and its operator, allow them?"""

    def judge(site: Site, request: dict[str, Any], memory: Memory, __: PerformanceSettings) -> Answer:
        session.propose(site, request)
        return {}, memory

    return _handle(message, context, judge)


@app.query("advertise")
def advertise(message: Message, context: Context) -> Message:
    """Exchange 1, the one that trains."""
    return _handle_in_full_seconds(
        message, context, lambda site, request, _, speed: session.advertise(site, request, speed)
    )


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Exchange 2."""
    return _handle(message, context, lambda site, request, memory, _: session.share(site, request, memory))


@app.query("accept")
def accept(message: Message, context: Context) -> Message:
    """Exchange 3."""
    return _handle(message, context, lambda site, request, memory, _: session.accept(site, request, memory))


@app.query("mask")
def mask(message: Message, context: Context) -> Message:
    """Exchange 4."""
    return _handle(message, context, lambda site, request, memory, _: session.mask(site, request, memory))


@app.query("confirm")
def confirm(message: Message, context: Context) -> Message:
    """Exchange 5."""
    return _handle(message, context, lambda site, request, memory, _: session.confirm(site, request, memory))


@app.query("unmask")
def unmask(message: Message, context: Context) -> Message:
    """Exchange 6."""
    return _handle(message, context, lambda site, request, memory, _: session.unmask(site, request, memory))


@app.query("contribute")
def contribute(message: Message, context: Context) -> Message:
    """The one exchange of plain aggregation (simulations)."""
    return _handle_in_full_seconds(
        message, context, lambda site, request, _, speed: (session.contribute(site, request, speed), Memory())
    )


@app.query("close")
def close(message: Message, context: Context) -> Message:
    """The run has ended: forget it, and sign its record."""

    def forget(site: Site, request: dict[str, Any], _: Memory, __: PerformanceSettings) -> Answer:
        return session.close(site, request), Memory()

    return _handle(message, context, forget)


@app.query("keep")
def keep(message: Message, context: Context) -> Message:
    """The finished model, for this site to use."""

    def receive(site: Site, request: dict[str, Any], memory: Memory, _: PerformanceSettings) -> Answer:
        return session.keep(site, request), memory

    return _handle(message, context, receive)
