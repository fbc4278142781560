"""``fedcart predict``: next behaviour or purchase intent of a site's own consumers, with the shared model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import cli.options as options
import cli.show as show

app = typer.Typer(add_completion=False)
INTENT_WORDS = ("intent", "purchase-intent")
Task = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="next (behaviour), intent (of purchase), or another head that the model has"
    ),
]
_SHOWN_CONSUMERS, _SHOWN_CHOICES = 10, 5


@app.command(
    epilog="Example: fedcart predict runs/latest shop.csv --task next --top 20 --exclude-known --out next.parquet"
)
def predict(
    model: options.Model,
    events: options.Events,
    task: Task = "next",
    top: Annotated[int, typer.Option(metavar="K", help="choices per consumer", min=1, max=1000)] = 20,
    what: Annotated[
        str, typer.Option(metavar="LIST", help="next: of item, category, event; left out: all the model has")
    ] = "",
    exclude_known: Annotated[
        bool, typer.Option("--exclude-known", help="next: leave out items that a consumer has had")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="intent: will buy from this probability on; left out: chosen on your log", min=0, max=1),
    ] = None,
    consumer: Annotated[str, typer.Option(metavar="ID", help="only this consumer")] = "",
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    out: options.Out = None,
    with_ids: options.WithIds = False,
    shared_only: options.SharedOnly = False,
    state: options.State = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Predict what each consumer does next, or whether they will buy. Nothing leaves this machine.

    Outputs carry pseudonyms, the same on every call, unless --with-ids (such files get mode 0600).
    """
    options.check_out(out, force)
    kinds = _kinds(task, what)
    shared, log = options.open_both(
        model, events, options.ReadOptions(format, catalogue, site, state, with_ids, shared_only)
    )
    from client.scoring import tables

    if task in INTENT_WORDS:
        columns, facts = tables.intent_table(shared, log, threshold=threshold, consumer=consumer)
    else:
        asked = tables.NextQuestion(kinds, top, exclude_known=exclude_known, consumer=consumer)
        columns, facts = tables.next_table(shared, log, asked)
    if not options.delivered(columns, facts, options.Target(out, json, "predictions"), private=with_ids):
        _print(columns, facts, out)


def _kinds(task: str, what: str) -> tuple[str, ...]:
    """What is to be predicted; none: all that the model has. Raises: BadInputError for a word nobody knows."""
    from common.errors import BadInputError, ConfigError
    from common.extensions import require_head
    from common.tasks import TASKS

    kinds = tuple(word.strip() for word in what.split(",") if word.strip())
    if task == "next":
        return kinds
    if kinds:
        raise BadInputError(f"--what {what} belongs to --task next", hint="leave one of them out")
    if task not in (*INTENT_WORDS, *TASKS):
        try:
            require_head(task)
        except ConfigError as error:
            raise BadInputError(
                f"nothing is known here that predicts {task!r}",
                hint=f"--task next, intent, or a head that the model has; {error.hint}",
            ) from None
    return (task,)


def _print(columns: dict[str, list[Any]], facts: dict[str, Any], out: Path | None) -> None:
    if facts["task"] == "intent":
        _print_intent(columns, facts)
    elif out is None:
        _print_next(columns)
    if out is not None:
        typer.echo(f"{len(columns['consumer']):,} predictions of {facts['consumers']:,} consumers: {out}")


def _print_next(columns: dict[str, list[Any]]) -> None:
    shown = list(dict.fromkeys(columns["consumer"]))[:_SHOWN_CONSUMERS]
    cells: dict[tuple[str, str], list[str]] = {}
    for who, kind, rank, choice, probability in zip(
        *(columns[name] for name in ("consumer", "what", "rank", "choice", "probability")), strict=True
    ):
        if rank <= _SHOWN_CHOICES and who in shown:
            cells.setdefault((who, kind), []).append(f"{choice} {options.share(probability)}")
    rows = [(who, kind, *(cells.get((who, kind)) or ["–"])) for who, kind in cells]
    width = max((len(row) for row in rows), default=2)
    padded = [row + ("",) * (width - len(row)) for row in rows]
    show.table("", ("consumer", "next", *(f"{i}." for i in range(1, width - 1))), sorted(padded))
    rest = len(set(columns["consumer"])) - len(shown)
    if rest > 0:
        show.note(f"and {rest:,} more consumers: write them with --out FILE")


def _print_intent(columns: dict[str, list[Any]], facts: dict[str, Any]) -> None:
    check = facts["check"]
    buyers = sum(columns["will_buy"])
    typer.echo(f"{buyers:,} of {facts['consumers']:,} consumers will buy (probability ≥ {facts['threshold']:.3f})")
    if check["note"]:
        show.warning(check["note"])
    if check["metrics"]:
        names = list(check["metrics"])
        rows = [
            (who, *(show.number(check[key][n]) for n in names))
            for who, key in (("this model", "metrics"), ("boosted trees", "trees"))
        ]
        show.table(
            f"checked on {check['test']:,} of your own consumers, threshold chosen on {check['validation']:,} others",
            ("", *(name.replace("_", " ") for name in names)),
            rows,
        )
    order = sorted(range(len(columns["consumer"])), key=lambda i: -columns["probability"][i])[:_SHOWN_CONSUMERS]
    show.table(
        "most likely",
        ("consumer", "probability"),
        [(columns["consumer"][i], options.share(columns["probability"][i])) for i in order],
    )
