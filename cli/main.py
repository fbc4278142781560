"""The program: finds the command, runs it, turns whatever happens into words and an exit code.

Exit codes: 0 ok · 1 the check failed, or the work could not be finished · 2 bad usage or bad input, found
before the work · 3 refused by policy or budget · 130 interrupted. Nobody ever sees a traceback, unless
``FEDCART_DEBUG=1`` asks for it. Every command lives in its own module, imported only when it is called, and
a module keeps heavy imports (torch, polars, flwr) inside its functions: ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import difflib
import importlib
import importlib.util
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

INTERRUPTED = 130
BAD_USAGE = 2


@dataclass(frozen=True)
class CommandEntry:
    """One command: its name, the module whose ``app`` (a typer app) it is, and its line in the overview.

    ``locks``: it needs processes and locks as Linux and macOS have them.
    """

    name: str
    module: str
    summary: str
    locks: bool = False


SECTIONS: dict[str, tuple[CommandEntry, ...]] = {
    "Try it on one machine": (
        CommandEntry(
            "simulate", "cli.simulate", "Run a whole federation here: what does privacy cost?", locks=True
        ),
        CommandEntry("report", "cli.report_command", "Write the report of a run folder as one HTML page."),
        CommandEntry("compare", "cli.compare", "Runs side by side: settings, quality, epsilon, time."),
        CommandEntry("demo", "cli.demo", "A server and four sites as processes, from keys to audit.", locks=True),
    ),
    "Prepare data": (
        CommandEntry("data", "cli.data", "Check, describe, synthesise event logs; build a catalogue."),
    ),
    "Run a federation": (
        CommandEntry("provision", "cli.provision", "Make the kits of a new federation: roster, keys, settings."),
        CommandEntry("site", "cli.site", "Operate a site: keys, check, start, status, recovery.", locks=True),
        CommandEntry("server", "cli.server", "Coordinate: start, run, resume, status.", locks=True),
    ),
    "Use the model on your own data": (
        CommandEntry("predict", "cli.predict", "Predict next behaviour or purchase intent."),
        CommandEntry("evaluate", "cli.evaluate", "Precision, recall, F1 and confusion on your own consumers."),
        CommandEntry("detect", "cli.detect", "Find anomalous behaviour: bots, takeovers, brushing."),
        CommandEntry("watch", "cli.watch", "Report anomalous behaviour as it happens, one line per alarm."),
        CommandEntry("review", "cli.review", "Judge alarms: verdicts, and what follows from them."),
        CommandEntry("forecast", "cli.forecast", "Forecast sales per category."),
        CommandEntry("stock", "cli.stock", "Plan stock per item: forecast, reorder point, order."),
        CommandEntry("segments", "cli.segments", "Kinds of consumers, their conversion, an audience."),
        CommandEntry("explain", "cli.explain", "Show which events led to a prediction, as a picture."),
        CommandEntry(
            "personalize", "cli.personalize", "Your own data on top of the shared model; what joining brings."
        ),
        CommandEntry("serve", "cli.serve", "Answer live over HTTP: events in, alarms and next items out."),
        CommandEntry("forget", "cli.forget", "One consumer out of everything that this site keeps."),
        CommandEntry("export", "cli.export", "Write a small, quantized model for real-time scoring."),
    ),
    "Trust, but verify": (
        CommandEntry("audit", "cli.audit", "What was spent, is the record intact, does the noise hold?"),
    ),
    "Read on": (
        CommandEntry("help", "cli.help_command", "A topic in a few lines (epsilon, budget, ...), or a command."),
    ),
}


class FrontDoor(click.Group):
    """The root command: knows all names and one line about each, imports a module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all commands whose module exists."""
        return [entry.name for entries in SECTIONS.values() for entry in entries if _exists(entry)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and build one command; None if there is none of that name."""
        for entries in SECTIONS.values():
            for entry in entries:
                if entry.name == cmd_name and _exists(entry):
                    return _load(entry)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names. Raises: click.UsageError with the nearest name."""
        if args and not args[0].startswith("-"):
            if self.get_command(ctx, args[0]) is None:
                near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
                guess = f", did you mean `{near[0]}`" if near else ""
                raise click.UsageError(f"no such command: {args[0]}{guess}", ctx)
            if _needs_locks(args[0]) and not {"-h", "--help"} & set(args):
                from common.atomic import require_locks

                require_locks()
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the overview, section by section, without importing anything."""
        for title, entries in SECTIONS.items():
            rows = [(entry.name, entry.summary) for entry in entries if _exists(entry)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_spacing=3)


def _exists(entry: CommandEntry) -> bool:
    return importlib.util.find_spec(entry.module) is not None


def _needs_locks(name: str) -> bool:
    return any(one.locks for entries in SECTIONS.values() for one in entries if one.name == name)


def _load(entry: CommandEntry) -> click.Command:
    import typer.core
    from typer.main import get_command

    typer.core.HAS_RICH = False  # help as plain text: quick to show, easy to search, the same in a file
    command = get_command(importlib.import_module(entry.module).app)
    command.name = entry.name
    return command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from common import VERSION

        click.echo(f"fedcart {VERSION}")
        ctx.exit()


def build() -> FrontDoor:
    """The root command, ready to be called or tested."""
    return FrontDoor(
        name="fedcart",
        help="Merchants and regions train one shared sequence model on their consumers' behaviour; no raw data, "
        "no single site's update, and no more than a promised amount of information about any consumer leaves a site.",
        epilog="Start with `fedcart simulate`. `fedcart help` lists topics. Every command has --help; results can be had with --json.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_print_version,
                help="Show the version.",
            )
        ],
        no_args_is_help=False,
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run the program. Returns the exit code; errors are printed to stderr as ``error:`` and ``hint:`` lines.

    With ``--json`` an error is the last line of stderr, as ``{"schema": 1, "error": ..., "hint": ..., "code": ...}``.
    """
    words = list(args) if args is not None else sys.argv[1:]
    say = _say_json if "--json" in itertools.takewhile(lambda word: word != "--", words) else _say
    try:
        _check_house()
        result = build().main(words, "fedcart", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its exit
        return 1
    except (KeyboardInterrupt, click.Abort):
        say(Told("interrupted", "", "interrupted", INTERRUPTED))
        return INTERRUPTED
    except Exception as error:
        return _explain(error, say)


def start() -> None:
    """The installed command: ``main``, whose exit code ends the process.

    CPython ends a process by SIGINT, whatever its exit code, if an interrupt once went through ``exec`` of a string,
    although it was handled later: so does every import that makes a dataclass. An interrupted command leaves by itself.
    """
    code = main()
    if code == INTERRUPTED:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@dataclass(frozen=True)
class Told:
    """What is said of an error: what happened, what to do, a fixed word for programs, and the exit code."""

    message: str
    hint: str
    code: str
    exit_code: int


def _explained(error: Exception) -> Told:
    """What happened and what to do."""
    from common.errors import FedcartError

    if isinstance(error, FedcartError):
        return Told(error.message, error.hint, error.code, error.exit_code)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return Told("missing command", _usage_hint(error), "bad-usage", BAD_USAGE)
    if isinstance(error, click.ClickException):
        return Told(_our_style(error.format_message()), _usage_hint(error), "bad-usage", BAD_USAGE)
    if isinstance(error, MemoryError):
        return Told("out of memory", "fewer consumers, a smaller model, or fewer --workers", "out-of-memory", 1)
    name = type(error).__name__
    hint = "FEDCART_DEBUG=1 shows where; please report it"
    return Told(f"unexpected {name}: {error}".rstrip(": "), hint, "unexpected", 1)


def _explain(error: Exception, say: Callable[[Told], None] | None = None) -> int:
    """Print what happened and what to do. Returns the exit code."""
    if os.environ.get("FEDCART_DEBUG") == "1":
        traceback.print_exception(error)
    told = _explained(error)
    (say or _say)(told)
    return told.exit_code


def _say(told: Told) -> None:
    from common.plain_text import shown

    if told.exit_code == INTERRUPTED:
        click.echo(told.message, err=True)
        return
    click.echo(f"error: {shown(told.message)}", err=True)
    if told.hint:
        click.echo(f"hint: {shown(told.hint)}", err=True)


def _say_json(told: Told) -> None:
    from common.strict_json import SCHEMA, one_line

    plain = {"error": told.message, "hint": told.hint, "code": told.code}
    click.echo(one_line({"schema": SCHEMA} | plain), err=True)


def _our_style(message: str) -> str:
    message = " ".join(message.split()).removesuffix(".")
    return message[:1].lower() + message[1:]


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "fedcart"
    return f"`{path} --help` shows how it is used"


def _check_house() -> None:
    """Refuse to run beside foreign packages of our names, as a PYTHONPATH or the current folder could bring in."""
    import common

    ours = Path(__file__).resolve().parent.parent
    place = Path(common.__file__ or next(iter(common.__path__))).resolve()
    if ours not in place.parents:
        click.echo(f"error: the package `common` comes from {place.parent}, not from {ours}", err=True)
        click.echo("hint: unset PYTHONPATH, leave that folder, or give fedcart its own environment", err=True)
        raise SystemExit(BAD_USAGE)
    from common.house import require_own_packages  # that it is ours is known now

    require_own_packages()


if __name__ == "__main__":
    start()
