"""``fedcart serve``: the model of a run folder or a kit, answering live over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.options as options
import cli.show as show

if TYPE_CHECKING:
    from client.scoring.place import ModelPlace
    from client.serving.opening import ServeOptions
    from client.serving.run import Address

app = typer.Typer(add_completion=False)
Host = Annotated[str, typer.Option(help="address to listen on; any but loopback needs a token or mTLS")]
Port = Annotated[int, typer.Option(metavar="N", help="0: any free one", min=0, max=65_535)]
Token = Annotated[Path | None, typer.Option(metavar="FILE", help="token that callers show; made if not there")]
Certificate = Annotated[Path | None, typer.Option(metavar="FILE", help="certificate of this service, PEM")]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="its key, PEM")]
Authority = Annotated[
    Path | None, typer.Option(metavar="FILE", help="mTLS: callers show a certificate of this authority")
]
Past = Annotated[
    Path | None, typer.Option(metavar="FILE", help="your event log: what came before, if nothing is kept")
]
Sales = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="a sales model beside, for /forecast; needs --events")
]
Consumers = Annotated[int, typer.Option(metavar="N", help="consumers kept in memory", min=1)]
Ids = Annotated[int, typer.Option(metavar="N", help="event ids remembered", min=1)]
Rate = Annotated[float, typer.Option(help="share of recent behaviour to report", min=1e-6, max=0.5)]
KeepEvery = Annotated[float, typer.Option(metavar="SECONDS", help="keep the state so often", min=0.1)]
Input = Annotated[bool, typer.Option("--stdin", help="read events from standard input too: JSON lines in and out")]
Fresh = Annotated[bool, typer.Option("--fresh", help="begin with an empty memory, put the kept state aside")]


@app.command(epilog="Example: fedcart serve runs/latest --port 8080 --events shop.csv")
def serve(
    model: options.Model,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    token_file: Token = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_client_ca: Authority = None,
    events: Past = None,
    sales: Sales = None,
    consumers: Consumers = 100_000,
    ids: Ids = 100_000,
    rate: Rate = 0.01,
    keep_every: KeepEvery = 30.0,
    stdin: Input = False,
    fresh: Fresh = False,
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    shared_only: options.SharedOnly = False,
    state: options.State = None,
    json: options.Json = False,
) -> None:
    """Answer live: events in, alarms out; next items, intent, forecast, explanation of every consumer.

    Events have consumer, timestamp, event and, where known, id, item, category, price, quantity, cleaned by the rules of
    event files. State survives a restart: at most the seconds since it was kept last are to be sent again.
    """
    from client.serving.opening import ServeOptions
    from client.serving.run import Address, read_token

    token = read_token(token_file) if token_file is not None else b""
    address = Address(host, port, token, tls_cert, tls_key, tls_client_ca, 0 if stdin else None)
    address.check()
    reading = options.ReadOptions(format, catalogue, site, state, shared=shared_only)
    place = options.place_of(model, reading)
    own = options.personal_file(place, reading)
    wanted = ServeOptions(consumers, ids, rate, catalogue, own, events, sales, fresh=fresh)
    _hold_and_run(place, wanted, (address, keep_every), json)


def _hold_and_run(place: ModelPlace, wanted: ServeOptions, where: tuple[Address, float], as_json: bool) -> None:
    from client.serving.hold import hold
    from client.serving.opening import serving_folder

    address, keep_every = where
    if not address.local and address.certificate is None:
        show.warning("the token travels unencrypted: use --tls-cert and --tls-key, or a proxy that does")
    with hold(serving_folder(place.home)) as tell:

        def listening(where: str) -> None:
            tell(where)
            _said(where, as_json)

        _run(place, wanted, address, keep_every, listening)


def _run(
    place: ModelPlace, wanted: ServeOptions, address: Address, every_s: float, tell: Callable[[str], None]
) -> None:
    from client.serving.door import Door
    from client.serving.http import build_app
    from client.serving.opening import open_service
    from client.serving.page import index_page
    from client.serving.run import serve as run

    service = open_service(place, wanted)
    if service.restored:
        show.note(f"{service.restored:,} consumers remembered from {service.parts.path}")
    door = Door(address.token, local=address.local)
    figures = address.local and not address.token
    run(service, build_app(service, door, lambda: index_page(service, figures=figures)), address, every_s, tell)
    live = service.parts.live
    show.note(
        f"stopped; {service.counters.of['events']:,} events, {len(live.store) if live else 0:,} consumers kept"
    )


def _said(address: str, as_json: bool) -> None:
    if as_json:
        import os

        from common.strict_json import one_line

        print(one_line({"address": address, "pid": os.getpid()}), flush=True)
    else:
        show.note(f"serving on {address}, stop with Ctrl-C")
