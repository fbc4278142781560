"""``fedcart provision``: kits for every party of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show

if TYPE_CHECKING:
    from server.provision import Provisioned

app = typer.Typer(add_completion=False)


@app.command(epilog="docs/deploy.md shows a federation.toml. Run it again to add a site or renew the certificate.")
def provision(
    federation: Annotated[Path, typer.Argument(help="federation.toml: name, coordinator, sites, addresses")],
    out: Annotated[Path, typer.Option(help="folder for the kits", metavar="KITS")],
    json: Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")] = False,
) -> None:
    """Make a kit per site and one for the coordinator: keys, certificates, roster, settings, policy."""
    from dataclasses import asdict

    from server.provision import provision as make_kits

    made = make_kits(federation, out)
    if json:
        show.print_json(asdict(made))
        return
    _explain(made)


def _explain(made: Provisioned) -> None:
    from common.deployment import Kits

    rows = []
    for site in made.sites:
        keys = "made here: trial only" if site in made.keys_made_here else "the site's own"
        rows.append((site, "new" if site in made.added else "kept", keys, str(Kits(made.kits).site(site).path)))
    show.table("", ("site", "kit", "private keys", "folder"), rows)
    typer.echo(f"coordinator   {Kits(made.kits).coordinator.path}, certificate until {made.certificate_until}")
    if made.catalogue:
        typer.echo(f"catalogue     {made.catalogue}, in every kit")
    typer.echo(f"app bundle    {made.bundle[:16]} (pinned by every site)")
    if made.added and len(made.added) < len(made.sites):
        show.note("new parties: give every older site the new roster.json; nothing else of theirs changed")
    if made.catalogue_changed:
        show.note("the catalogue is another one than before: give every older site the new catalogue.json too")
    if made.catalogue_warning:
        show.warning(f"the catalogue was {made.catalogue_warning}")
    if made.stock_remark:
        show.note(f"in a run whose settings leave it open, {made.stock_remark}")
    if made.removed:
        show.note(f"no longer admitted: {', '.join(made.removed)}; restart the server to disconnect them")
    for remark in filter(None, made.delta_remarks):
        show.warning(f"{remark}; a scope's delta is fixed with its ledger, so it takes a new scope")
    for site, delta in made.deltas.items():
        show.note(
            f"{site}: delta {show.exact(delta)} in its policy, for its many consumers; a run must state it or less"
        )
    if made.keys_made_here:
        show.warning(
            f"private keys of {len(made.keys_made_here)} sites were made here; for real data each site makes its own "
            "(fedcart site keygen) and sends only its public .keys.json"
        )
    show.note("next: hand each site its folder over a safe channel; keep KITS/authority offline")
