"""``fedcart review``: what people said about alarms, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.anomalies.verdicts import VerdictBook

app = typer.Typer(add_completion=False)

List = Annotated[bool, typer.Option("--list", help="print the verdicts")]
Undo = Annotated[int | None, typer.Option(metavar="N", help="take verdict N back", min=1)]
Forget = Annotated[
    str | None, typer.Option(metavar="CONSUMER", help="remove all that is kept of a consumer (id or pseudonym)")
]


@app.command(epilog="Example: fedcart review runs/latest --list")
def review(
    model: options.Model,
    listed: List = False,
    undo: Undo = None,
    forget: Forget = None,
    state: options.State = None,
    json: options.Json = False,
) -> None:
    """The verdicts on alarms: list them, take one back, forget a consumer. Nothing leaves this machine."""
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
    else:
        _list(book, json)


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
