"""``fedcart forget``: one consumer out of everything that this site keeps, and what cannot be undone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

app = typer.Typer(add_completion=False)
Token = Annotated[
    Path | None, typer.Option(metavar="FILE", help="token of a running service, which is then asked")
]


@app.command(epilog="Example: fedcart forget c17 KITS/sites/north")
def forget(
    consumer: Annotated[
        str, typer.Argument(metavar="CONSUMER", help="the id as your events have it, or its pseudonym")
    ],
    kit: Annotated[Path | None, typer.Argument(metavar="KIT", help="the site's kit; or --state, not both")] = None,
    token_file: Token = None,
    state: options.State = None,
    json: options.Json = False,
) -> None:
    """Forget one consumer: live state, verdicts, alarms, prepared files, what has not left yet, personal models.

    Says what was removed where, and what cannot be undone. Refused while a process holds the kit; a service that runs on
    this machine is asked to forget, with its token if it has one.
    """
    from client.serving import forgetting
    from client.serving.asking import ask_to_forget
    from client.serving.names import candidates

    home = forgetting.home_of(kit, state)
    candidates(consumer, home.key)  # a name that says nothing is found before anything is touched
    address = forgetting.refuse_held(home, None if token_file is None else str)
    if token_file is not None and not token_file.exists():
        raise BadInputError(
            f"there is no {token_file}", hint="the file that `fedcart serve --token-file` was given"
        )
    asked = ask_to_forget(address, consumer, token_file) if address and token_file is not None else []
    with forgetting.alone(home, live=not address):
        done = [*asked, *forgetting.forget(home, consumer, live=not address)]
    stays = forgetting.what_stays(home)
    if json:
        show.print_json({"removed": [asdict(one) for one in done], "stays": stays})
        return
    show.table(
        "removed",
        ("place", "entries", "what"),
        [(d.place, f"{d.count:,}", d.words) for d in done],
        words=("what",),
    )
    show.line()
    show.line("what cannot be undone here")
    for words in stays:
        show.line(f"- {words}")
