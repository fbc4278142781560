"""``fedcart predict``: next behaviour or purchase intent of a site's own consumers, with the shared model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import local, show
from common.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from client.scoring.consumers import LocalLog
    from client.scoring.model import SharedModel

app = typer.Typer(add_completion=False)
_SHOWN_CONSUMERS, _SHOWN_CHOICES = 10, 5


@app.command(
    epilog="Example: fedcart predict runs/latest shop.csv --task next --top 20 --exclude-known --out next.parquet"
)
def predict(
    model: local.Model,
    events: local.Events,
    task: Annotated[Literal["next", "intent"], typer.Option(help="next behaviour, or purchase intent")] = "next",
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
    format: local.Format = "",
    catalogue: local.CatalogueFile = None,
    site: local.SiteName = "",
    out: local.Out = None,
    with_ids: local.WithIds = False,
    state: local.State = None,
    force: local.Force = False,
    json: local.Json = False,
) -> None:
    """Predict what each consumer does next, or whether they will buy. Nothing leaves this machine.

    Outputs carry pseudonyms, the same on every call, unless --with-ids (such files get mode 0600).
    """
    local.check_out(out, force)
    shared, log = local.open_both(model, events, format, (catalogue, site, state, with_ids))
    if task == "intent":
        columns, facts = _intent(shared, log, threshold, consumer)
    else:
        columns, facts = _next(shared, log, (what, top, exclude_known), consumer)
    if out is not None:
        local.write_rows(out, columns, private=with_ids)
        facts["file"] = str(out)
    if json:
        show.print_json(facts | ({"predictions": local.lines_of(columns)} if out is None else {}))
    else:
        _print(task, columns, facts, out)


def _sequences(shared: SharedModel, log: LocalLog, consumer: str) -> Any:
    chosen = log.at(log.find(consumer)) if consumer else log.log
    return shared.sequences(chosen)


def _next(
    shared: SharedModel, log: LocalLog, asked: tuple[str, int, bool], consumer: str
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    from client.scoring import predict as scoring

    wanted, top, exclude_known = asked
    possible = scoring.available(shared)
    kinds = [word.strip() for word in wanted.split(",") if word.strip()] or list(possible)
    for kind in kinds:
        if kind not in possible:
            raise BadInputError(
                f"this model cannot predict the next {kind!r}",
                hint=f"it can: {', '.join(possible) or 'nothing next'}",
            )
    if not kinds:
        raise BadInputError(
            f"this model was trained for {', '.join(shared.heads)} only",
            hint="use --task intent, or another model",
        )
    sequences = _sequences(shared, log, consumer)
    columns: dict[str, list[Any]] = {
        n: [] for n in ("consumer", "what", "rank", "choice", "category", "probability")
    }
    for kind in kinds:
        found = scoring.predict_next(shared, sequences, kind, top, exclude_known=exclude_known)
        for who, choices, shares in zip(found.consumers, found.choices, found.probabilities, strict=True):
            name = log.shown(int(who))
            for rank, (choice, share) in enumerate(zip(choices, shares, strict=True), start=1):
                if choice == 0:
                    break
                row = (name, kind, rank, scoring.class_name(shared, kind, int(choice)))
                category = shared.category_of(int(choice)) if kind == "item" else ""
                for column, value in zip(columns.values(), (*row, category, float(share)), strict=True):
                    column.append(value)
    return columns, {"task": "next", "consumers": len(sequences), "what": kinds, "exclude_known": exclude_known}


def _intent(
    shared: SharedModel, log: LocalLog, threshold: float | None, consumer: str
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    from dataclasses import asdict

    from client.scoring import predict as scoring
    from common.model.targets import asked_now, row_targets

    shared.need_head("purchase-intent")
    past = shared.sequences(log.log, cut=shared.plan.config.intent.cut_us)
    targets = row_targets(shared.plan.config, past)
    assert targets is not None
    check = scoring.check_intent(shared, past, targets, log.key)
    used = check.threshold if threshold is None else threshold
    sequences = _sequences(shared, log, consumer)
    now = asked_now(shared.plan.config, sequences, int(past.timestamps.max(initial=0)))
    scores: NDArray[np.float64] = scoring.intent_scores(shared, sequences, now)
    columns = {
        "consumer": [log.shown(int(who)) for who in sequences.consumers],
        "probability": scores.tolist(),
        "will_buy": [bool(score >= used) for score in scores],
    }
    question = shared.plan.config.intent.model_dump(mode="json")
    facts = {"task": "intent", "consumers": len(sequences), "question": question, "threshold": used}
    return columns, facts | {"check": asdict(check)}


def _print(task: str, columns: dict[str, list[Any]], facts: dict[str, Any], out: Path | None) -> None:
    if task == "intent":
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
            cells.setdefault((who, kind), []).append(f"{choice} {local.share(probability)}")
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
        [(columns["consumer"][i], local.share(columns["probability"][i])) for i in order],
    )
