"""``fedcart review``: a local page on which a person judges alarms; and what people said, on the command line."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError
from common.strict_json import one_line

if TYPE_CHECKING:
    from client.anomalies.verdicts import VerdictBook

app = typer.Typer(add_completion=False)

List = Annotated[bool, typer.Option("--list", help="print the verdicts")]
Port = Annotated[int, typer.Option(metavar="N", help="port of the page; left out: a free one", min=0, max=65535)]
Undo = Annotated[int | None, typer.Option(metavar="N", help="take verdict N back", min=1)]
Forget = Annotated[
    str | None, typer.Option(metavar="CONSUMER", help="remove all that is kept of a consumer (id or pseudonym)")
]


@app.command(epilog="Example: fedcart review runs/latest")
def review(
    model: options.Model,
    listed: List = False,
    undo: Undo = None,
    forget: Forget = None,
    port: Port = 0,
    state: options.State = None,
    json: options.Json = False,
) -> None:
    """Judge alarms on a local page, or list verdicts, take one back, forget a consumer. Nothing leaves this machine.

    The page is for this machine only, and for whoever has its address: the part behind the # is the key.
    """
    from client.anomalies.verdicts import VerdictBook

    if sum((listed, undo is not None, forget is not None)) > 1:
        raise BadInputError("--list, --undo and --forget at once", hint="one of them")
    place = options.place_of(model, options.ReadOptions(state=state))
    book = VerdictBook(place.home)
    if undo is not None:
        taken = book.undo(undo)
        _tell({"undone": undo, "consumer": f"{taken.consumer:016x}"}, f"verdict {undo} is taken back", json)
    elif forget is not None:
        gone = _forget(book, place, forget)
        _tell(gone, f"{gone['verdicts']:,} verdicts and {gone['alarms']:,} alarms removed", json)
    elif listed:
        _list(book, json)
    else:
        _serve(place, port, json)


def _serve(place: Any, port: int, json: bool) -> None:
    """The page, until it is interrupted."""
    import secrets

    import uvicorn

    from client.anomalies.page import review_app
    from client.scoring.consumers import local_key, named
    from client.serving.run import protocol_class

    token, key, door = secrets.token_urlsafe(24), local_key(place.state), _door(port)
    url = f"http://127.0.0.1:{door.getsockname()[1]}/#{token}"
    app = review_app(place.home, token, lambda name: named(name, key))
    if json:
        typer.echo(one_line({"url": url}))
    else:
        typer.echo(f"review: {url}")
        show.note("for this machine only; Ctrl-C ends it")
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, lifespan="off", http=protocol_class()
    )
    uvicorn.Server(config).run(sockets=[door])


def _door(port: int) -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
    except OSError as error:
        door.close()
        raise BadInputError(
            f"port {port} cannot be used: {error.strerror}", hint="another --port, or none"
        ) from None
    return door


def _tell(facts: dict[str, Any], words: str, json: bool) -> None:
    if json:
        show.print_json(facts)
    else:
        typer.echo(words)


def _forget(book: VerdictBook, place: Any, name: str) -> dict[str, Any]:
    from client.anomalies.alarms import AlarmBook
    from client.scoring.consumers import local_key, named

    alarms, pseudonyms = AlarmBook(place.home), named(name, local_key(place.state))
    return {
        "verdicts": sum(book.forget(who) for who in pseudonyms),
        "alarms": sum(alarms.forget(who) for who in pseudonyms),
    }


def _list(book: VerdictBook, json: bool) -> None:
    from client.anomalies.record import figure_words, verdict_facts, verdict_table

    said = book.said()
    facts, columns = verdict_facts(said), verdict_table(said)
    if json:
        show.print_json(facts | {"said": options.lines_of(columns)})
        return
    if not said:
        typer.echo("nobody has judged an alarm yet")
        return
    rows = [
        (
            str(line["number"]),
            line["said"],
            line["consumer"],
            line["verdict"],
            show.number(line["score"], 2),
            "undone" if line["undone"] else "" if line["counts"] else "said otherwise later",
        )
        for line in options.lines_of(columns)
    ]
    show.table("verdicts", ("number", "said", "consumer", "verdict", "score", ""), rows)
    quality = facts["quality"]
    for name, title in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
        typer.echo(f"{title:<10}{figure_words(quality[name])}")
    typer.echo(facts["words"])
    if facts["remark"]:
        show.note(facts["remark"])
