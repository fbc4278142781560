"""``fedcart help``: a topic in a few lines, or the help of a command."""

from __future__ import annotations

import difflib
from typing import Annotated

import click
import typer

import cli.show as show
from cli.topics import TOPICS
from common.errors import BadInputError

app = typer.Typer(add_completion=False)


@app.command("help")
def explain(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(help="a topic, or a command with its subcommand", metavar="[TOPIC|COMMAND]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the text as JSON")] = False,
) -> None:
    """Explain a topic in a few lines, or a command. Without a word: which topics there are."""
    asked = words or []
    if not asked:
        text = _overview()
    elif len(asked) == 1 and asked[0] in TOPICS:
        text = TOPICS[asked[0]].text
    else:
        text = _of_command(context, asked)
    if json:
        show.print_json(
            {"asked": asked, "text": text, "topics": {name: topic.title for name, topic in TOPICS.items()}}
        )
    else:
        typer.echo(text.rstrip("\n"))


def _overview() -> str:
    width = max(map(len, TOPICS)) + 2
    lines = [f"  {name:<{width}}{topic.title}" for name, topic in TOPICS.items()]
    return "\n".join(
        ["fedcart help TOPIC:", *lines, "", "fedcart help COMMAND is the same as fedcart COMMAND --help."]
    )


def _of_command(context: typer.Context, words: list[str]) -> str:
    """The help of a command. Raises: BadInputError with the nearest topic or command."""
    root = context.find_root()
    found: click.Command = root.command
    inner: click.Context = root
    for word in words:
        deeper = found.get_command(inner, word) if isinstance(found, click.Group) else None
        if deeper is None:
            known = [*TOPICS, *(found.list_commands(inner) if isinstance(found, click.Group) else ())]
            near = difflib.get_close_matches(word, known, n=1)
            guess = f", did you mean {near[0]}" if near else ""
            raise BadInputError(
                f"no topic and no command: {' '.join(words)}{guess}", hint="fedcart help lists the topics"
            )
        inner = click.Context(deeper, info_name=word, parent=inner)
        found = deeper
    return found.get_help(inner)
