"""``fedcart site models, use, rollback``: the models that a site was given, and which of them it works with."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show

if TYPE_CHECKING:
    from client.library import KeptModel
    from common.deployment import SiteKit

KitArgument = Annotated[Path, typer.Argument(help="folder of the site's kit", metavar="KIT")]
JsonOption = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


def models(
    kit: KitArgument,
    add: Annotated[
        Path | None,
        typer.Option(help="take a model that was handed over as a folder or run folder", metavar="FOLDER"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the models that this site was given, the newest first, and which one is in use.

    The coordinator sends a model at the end of its run, to who was away at the next run, and when it is asked:
    fedcart server deliver. A site cannot call for one by itself; --add takes one that came another way, and verifies it alike.
    """
    from client.library import damaged_models, kept_models, model_in_use
    from common.deployment import open_site_kit
    from common.errors import BadInputError

    opened = open_site_kit(kit)
    if add is not None:
        show.note(f"kept: {_add(opened, add).name}")
    known, used = kept_models(opened), ""
    try:
        used = model_in_use(opened).name
    except BadInputError as error:
        show.note(f"none is in use: {error.message}; {error.hint}")
    if json:
        show.print_json([_plain(one, used) for one in known])
        return
    rows = [
        (one.name, "in use" if one.name == used else "", one.task, one.which, str(one.rounds), _day(one.finished),
         str(len(one.sites)), "yes" if one.took_part else "no", one.catalogue[:12] or "–")
        for one in known
    ]  # fmt: skip
    heads = ("model", "", "task", "which", "rounds", "finished", "sites", "took part", "catalogue")
    show.table("", heads, rows, words=("took part",))
    for name in damaged_models(opened):
        show.warning(
            f"{name} is damaged and not used: remove {opened.models / name}, the coordinator sends it again"
        )


def use(
    kit: KitArgument,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="name as `site models` shows it, or latest")],
    json: JsonOption = False,
) -> None:
    """Work with this model from now on, whatever comes later; `latest`: with the newest again."""
    from client.library import use_model
    from common.deployment import open_site_kit

    _say(use_model(open_site_kit(kit), name), as_json=json)


def rollback(kit: KitArgument, json: JsonOption = False) -> None:
    """Work with the model that was in use before this one, and stay with it until you choose another."""
    from client.library import roll_back
    from common.deployment import open_site_kit

    _say(roll_back(open_site_kit(kit)), as_json=json)


def _add(kit: SiteKit, folder: Path) -> KeptModel:
    from client.library import Arrival, keep_model
    from client.site import load_site
    from common.errors import BadInputError
    from common.run import METADATA_FILE, WEIGHTS_FILE

    try:
        arrival = Arrival((folder / METADATA_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes())
    except OSError as error:
        raise BadInputError(
            f"no model in {folder}: {error.strerror}", hint="name the folder of both files"
        ) from None
    return keep_model(load_site(kit.path), arrival)


def _say(model: KeptModel, *, as_json: bool) -> None:
    if as_json:
        show.print_json(_plain(model, model.name))
    else:
        show.line(
            f"in use        {model.name}, behind {show.count(model.rounds, 'round')}, {_day(model.finished)}"
        )


def _plain(model: KeptModel, used: str) -> dict[str, object]:
    return asdict(model) | {"folder": str(model.folder), "sites": list(model.sites), "in_use": model.name == used}


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
