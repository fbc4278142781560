"""What it costs that records bind, shares are proven and sessions are signed: bytes and CPU per site and round of a default run.

    python -m benchmarks.hardening [--smoke]

One whole run of the defaults in this process, with a clock around what would not be there without it: the signed session
(roster, witness), the proofs in a dealing, the exchange ``accept``, the signature under what is revealed; at the server the
checks of dealings, signed records with the digests in them, the manifest; the close of the run divided by its rounds. Bytes are
those of the messages themselves. Prints JSON: shares of the whole round, training included. Only the ratios mean anything.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import client.session as session
import common.secagg.client as secagg_client
import common.secagg.dealing as dealing
import common.secagg.shamir as shamir
import server.asking as asking
import server.state as states
import simulations.run
from benchmarks.simulation import _InThisProcess
from common.flower import Parts, payload_bytes
from common.run import Observer, RoundRecord, RunFolder, build_config
from common.secagg import messages
from common.secagg.client import ClientProtocol
from common.strict_json import finite
from common.trust import Identity
from server.exchange import Answer, Exchange
from simulations.run import simulate

SITE, SERVER = "site", "server"
RARELY = "oracle_every=1000"  # exact metrics, which no deployment computes, in the first and the last round only
PLAIN_SHARES = 0.5  # of the sharings in a dealing: seed and mask key; the other half are the blinds of the proofs
SMOKE = ["data.items=50", "data.consumers=800", "training.local_steps=1", "training.rounds=2"]
ACCEPT, CLOSE = "accept", "close"


class Clock:
    """CPU seconds of named parts; a part within a part is counted once, for the outer one."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inside = False

    def around(self, name: str, true: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its time under a name."""

        def timed(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return true(*arguments, **named)
            self._inside, began = True, time.process_time()
            try:
                return true(*arguments, **named)
            finally:
                self._inside = False
                self.spent[name] += time.process_time() - began

        return timed


TIMED: tuple[tuple[str, object, str], ...] = (
    (SITE, session, "check_invitation"),
    (SITE, secagg_client, "deal"),
    (SITE, ClientProtocol, "accept"),
    (SITE, secagg_client, "reveal_statement"),
    (SITE, session, "close"),
    (SITE, Identity, "sign"),  # those outside of the other parts, older ones too
    (SERVER, dealing.Dealing, "__init__"),
    (SERVER, dealing.Dealing, "check"),
    (SERVER, dealing.Dealing, "piece"),
    (SERVER, asking, "_params"),
    (SERVER, states, "model_digest"),
    (SERVER, RunFolder, "last_record"),
    (SERVER, simulations.run, "close_run"),
)


@contextmanager
def timed(clock: Clock, of_sharing: list[float]) -> Iterator[None]:
    """Everything in ``TIMED`` under the clock; beside it the time of all sharings of a dealing."""
    split = shamir.split

    def sharing(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return split(*arguments, **named)
        finally:
            of_sharing[0] += time.process_time() - began

    with ExitStack() as patched:
        for who, where, name in TIMED:
            around = clock.around(f"{who}: {name.strip('_')}", getattr(where, name))
            patched.enter_context(mock.patch.object(where, name, around))
        digest = property(clock.around(f"{SERVER}: record digest", RoundRecord.digest.fget))
        patched.enter_context(mock.patch.object(RoundRecord, "digest", digest))
        patched.enter_context(mock.patch.object(shamir, "split", sharing))
        patched.enter_context(mock.patch.object(simulations.run, "WorkerPool", _InThisProcess))
        yield


class Bytes:
    """What goes to the sites and comes from them, by exchange."""

    def __init__(self) -> None:
        self.down: Counter[str] = Counter()
        self.up: Counter[str] = Counter()

    def around(self, true: Callable[..., dict[str, Answer]]) -> Callable[..., dict[str, Answer]]:
        """``Exchange.ask``, counted."""

        def ask(line: Exchange, phase: str, requests: Mapping[str, Parts], **named: Any) -> dict[str, Answer]:
            answers = true(line, phase, requests, **named)
            self.down[phase] += sum(payload_bytes(parts) for parts in requests.values())
            self.up[phase] += sum(payload_bytes(answer.parts) for answer in answers.values())
            return answers

        return ask


class Watch(Observer):
    """When rounds begin and end."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []
        self.marks = [time.process_time()]

    def round_done(self, record: RoundRecord) -> None:
        """A round is over."""
        self.records.append(record)
        self.marks.append(time.process_time())


def added_bytes(sites: int) -> tuple[int, int]:
    """Bytes up and down per site and round beside those of the exchange ``accept``, and without the close."""
    entry = messages.ENTRY_BYTES - messages.BOX_BYTES
    proofs = (
        sites * entry + messages.BOX_BYTES + messages.SIGNATURE_BYTES + messages.DIGEST_BYTES
    )  # its own box too
    attested = len(json.dumps(finite({"roster": "0" * 64, "witness": "0" * 64}), allow_nan=False))
    signed_session = 2 * messages.DIGEST_BYTES + messages.SIGNATURE_BYTES
    return proofs + attested + messages.SIGNATURE_BYTES, signed_session + attested


def main(*, smoke: bool = False) -> None:
    """Print shares of bytes and of CPU."""
    clock, of_sharing, watch, sent = Clock(), [0.0], Watch(), Bytes()
    config = build_config({}, [RARELY, *(SMOKE if smoke else [])])
    counted = mock.patch.object(Exchange, "ask", sent.around(Exchange.ask))
    with tempfile.TemporaryDirectory() as name, timed(clock, of_sharing), counted:
        simulate(config, Path(name) / "run", watch)
    sites, trained = config.data.sites, [r for r in watch.records if r.kind == "train"]
    asked = len(watch.records) * sites  # the closing evaluation is a round like the others, but for the training
    _report_bytes(
        sent, sites, len(watch.records), sum(r.bytes_up + r.bytes_down for r in trained) / len(trained) / sites
    )
    _report_cpu(clock, of_sharing[0], asked, watch)


def _report_bytes(sent: Bytes, sites: int, rounds_asked: int, of_a_round: float) -> None:
    """Bytes of one site in one round: added ones, and all."""
    each = sites * rounds_asked
    up, down = added_bytes(sites)
    up += round(sent.up[ACCEPT] / each + sent.up[CLOSE] / each)
    down += round(sent.down[ACCEPT] / each + sent.down[CLOSE] / each)
    emit(
        "bytes", sites=sites, round=round(of_a_round), added_up=up, added_down=down,
        added_percent=round(100 * (up + down) / of_a_round, 2),
    )  # fmt: skip


def _report_cpu(clock: Clock, of_sharing: float, asked: int, watch: Watch) -> None:
    """CPU milliseconds of one site in one round, and of the server: added ones, and all (the server's part is in it)."""
    spent = dict(clock.spent)
    spent["site: deal"] -= of_sharing * PLAIN_SHARES
    for name, seconds in sorted(spent.items()):
        emit("part", name=name, ms_per_site_and_round=round(1000 * seconds / asked, 3))
    total = {
        who: 1000 * sum(s for name, s in spent.items() if name.startswith(who)) / asked for who in (SITE, SERVER)
    }
    rounds_only = [after - before for before, after in pairwise(watch.marks[1:-1])]
    whole = 1000 * statistics.median(rounds_only) * len(watch.records) / asked
    emit(
        "cpu", round_ms=round(whole, 1), site_ms=round(total[SITE], 3), server_ms=round(total[SERVER], 3),
        site_percent=round(100 * total[SITE] / whole, 2), both_percent=round(100 * sum(total.values()) / whole, 2),
    )  # fmt: skip


def emit(what: str, **values: object) -> None:
    """One line of JSON."""
    print(json.dumps(finite({"benchmark": "hardening", "claim": what, **values}), allow_nan=False), flush=True)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
