"""``fedcart evaluate``: precision, recall, F1 and confusion of the next event and category, on a site's own consumers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import cli.options as options
import cli.sales_log as pictures
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.confusion import NextCheck

app = typer.Typer(add_completion=False)
_SHOWN, _PAIRS = 12, 5
What = Annotated[
    Literal["event", "category"] | None, typer.Option(help="only this; left out: all that the model has of them")
]


@app.command(epilog="Example: fedcart evaluate runs/latest shop.csv --what event --plot confusion.svg")
def evaluate(
    model: options.Model,
    events: options.Events,
    what: What = None,
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    out: options.Out = None,
    plot: pictures.Plot = None,
    shared_only: options.SharedOnly = False,
    state: options.State = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Judge the model class by class: everybody's last event is held back and predicted from those before.

    The figures are your site's own; where the model has learnt from these consumers, they flatter it. --out: the confusion.
    """
    options.check_out(out, force)
    options.check_out(plot, force, pictures.PICTURES)
    if plot is not None and what is None:
        raise BadInputError("a picture shows one confusion", hint="--what event, or --what category")
    shared, log = options.open_both(
        model, events, options.ReadOptions(format, catalogue, site, state, shared=shared_only)
    )
    from client.scoring.confusion import check_next, checkable

    asked = (what,) if what else checkable(shared)
    if not asked:
        raise BadInputError(
            f"this model has neither the next event nor the next category, it was trained for: {', '.join(shared.heads)}",
            hint="train one with --set model.heads.next-event=0.1 or next-category",
        )
    found = [check_next(shared, log.log, one) for one in asked]
    if plot is not None:
        from client.scoring.confusion_picture import draw

        pictures.write_picture(plot, f"next {what}", draw(found[0]))
    _tell(found, out, plot, json=json)


def _tell(found: list[NextCheck], out: Path | None, plot: Path | None, *, json: bool) -> None:
    from client.scoring.confusion import confusion_table

    tables = [confusion_table(one) for one in found]
    columns: dict[str, list[Any]] = {name: [v for table in tables for v in table[name]] for name in tables[0]}
    facts: dict[str, Any] = {"label": "your site's own", "next": {one.what: _facts(one) for one in found}}
    if plot is not None:
        facts["picture"] = str(plot)
    if options.delivered(columns, facts, options.Target(out, json, "confusion"), private=False):
        return
    for one in found:
        _print(one)
    for path in (out, plot):
        if path is not None:
            typer.echo(f"written: {path}")


def _facts(one: NextCheck) -> dict[str, Any]:
    names = ("precision", "recall", "f1")
    return {
        "asked": one.asked,
        "accuracy": one.accuracy,
        "accuracy_of_majority": one.majority,
        "accuracy_of_repeat_last": one.repeat_last,
        "macro": dict(zip(names, one.macro, strict=True)),
        "weighted": dict(zip(names, one.weighted, strict=True)),
        "classes": [
            {"name": c.name, "asked": c.asked, "predicted": c.predicted, **{n: getattr(c, n) for n in names}}
            for c in one.classes
        ],
    }


def _print(one: NextCheck) -> None:
    rows = [
        (c.name, f"{c.asked:,}", f"{c.predicted:,}", *map(show.number, (c.precision, c.recall, c.f1)))
        for c in one.classes[:_SHOWN]
    ]
    if len(one.classes) > _SHOWN:
        rows.append((f"and {len(one.classes) - _SHOWN} more", "", "", "", "", ""))
    rows += [
        (name, f"{one.asked:,}", "", *map(show.number, mean))
        for name, mean in (("macro mean", one.macro), ("weighted mean", one.weighted))
    ]
    title = f"next {one.what} of {one.asked:,} of your own consumers"
    show.table(title, ("", "came", "predicted", "precision", "recall", "F1"), rows)
    typer.echo(
        f"right: {one.accuracy:.1%}; always the most frequent: {one.majority:.1%}; the last one again: {one.repeat_last:.1%}"
    )
    wrong = [
        (int(one.confusion[i, j]), one.classes[i].name, one.classes[j].name)
        for i in range(len(one.classes))
        for j in range(len(one.classes))
        if i != j and one.confusion[i, j]
    ]
    pairs = sorted(wrong, key=lambda pair: -pair[0])[:_PAIRS]
    show.table(
        "most often confused",
        ("came", "predicted", "times"),
        [(a, b, f"{n:,}") for n, a, b in pairs],
        words=("predicted",),
    )
