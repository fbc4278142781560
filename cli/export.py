"""``fedcart export``: small files of the shared model for real-time scoring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.options as options
import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from client.scoring.export import Variant

app = typer.Typer(add_completion=False)
Prune = Annotated[
    float, typer.Option(metavar="SHARE", help="also without this share of the smallest weights, as 0.5")
]
Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="your event log: measure size, speed and quality lost on it")
]


@app.command(epilog="Example: fedcart export runs/latest small --events shop.csv --onnx")
def export(
    model: options.Model,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="folder for the files")],
    events: Log = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX files too (needs the extra onnx)")] = False,
    prune: Prune = 0.0,
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    force: Annotated[bool, typer.Option("--force", help="write into a folder that is not empty")] = False,
    json: options.Json = False,
) -> None:
    """Write the model as one step, event in, state carried: int8 weights for torch, and ONNX."""
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"{folder} is a file", hint="name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise BadInputError(f"{folder} is not empty", hint="--force writes into it, or choose another name")

    import os

    from client.scoring import export as exporting
    from client.scoring.consumers import load_local

    reading = options.ReadOptions(format, catalogue, site, shared=True)  # a personal model never leaves
    place = options.place_of(model, reading)
    shared = options.open_at(place, reading)
    # ids are not needed to compare: a key that nobody keeps
    log = load_local(events, place.format, os.urandom(32)).log if events is not None else None
    sequences = shared.sequences(log) if log is not None else None
    variants, names = exporting.export(shared, folder, sequences, onnx=onnx, prune=prune)
    if json:
        from dataclasses import asdict

        show.print_json({"folder": str(folder), "files": names, "variants": [asdict(v) for v in variants]})
        return
    if variants:
        _print(variants)
    typer.echo(f"{', '.join(names)}: {folder}")


def _print(variants: Sequence[Variant]) -> None:
    first = variants[0]
    rows = [
        (
            v.name,
            show.size(v.size_bytes),
            f"{v.median_us:.0f} µs",
            f"{v.p99_us:.0f} µs",
            show.number(v.nats),
            show.number(v.nats - first.nats, 4),
            show.number(v.recall),
        )
        for v in variants
    ]
    show.table("", ("", "size", "per event", "99 %", "nats", "lost", "R@20"), rows)
