"""``fedcart site``: what the operator of a site does. Heavy parts are imported by the command that needs them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show
from common.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.runtime.approval import Request
    from client.runtime.check import Row
    from client.runtime.status import SiteStatus
    from common.plan import RunPlan

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Operate a site: your data, keys and budget.")

KitArgument = Annotated[Path, typer.Argument(help="folder of the site's kit", metavar="KIT")]
JsonOption = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


@app.command()
def keygen(
    name: Annotated[str, typer.Option(help="name of the site in the federation", metavar="NAME")],
    out: Annotated[Path, typer.Option(help="folder for the keys; later the kit goes there", metavar="DIR")],
    json: JsonOption = False,
) -> None:
    """Make the site's keys. Send only NAME.keys.json to the coordinator; the two .key files never travel."""
    from common.trust.keyfiles import PUBLIC_SUFFIX, make_site_keys

    keys = make_site_keys(out, name)
    public = out / f"{name}{PUBLIC_SUFFIX}"
    if json:
        show.print_json({"name": name, "identity": keys.identity.hex(), "public_file": str(public)})
        return
    typer.echo(f"identity      {keys.identity.hex()}")
    typer.echo(f"send this     {public}")
    show.note("keep identity.key and node.key secret; without them the site cannot take part")


@app.command()
def check(kit: KitArgument, json: JsonOption = False) -> None:
    """Look for everything that could stop this site, and say what to do. Exit 0: ready, 1: something failed."""
    from client.runtime.check import FAILED, check_site, verdict
    from common.deployment import open_site_kit

    rows = check_site(open_site_kit(kit))
    status = verdict(rows)
    if json:
        show.print_json({"status": status, "checks": [asdict(row) for row in rows]})
    else:
        for row in rows:
            typer.echo(f"{_mark(row.status)}  {row.name:<19} {row.found}")
            if row.todo:
                typer.echo(f"{'':9}{'':<19} -> {row.todo}")
        typer.echo(f"\n{_verdict(rows)}")
    raise typer.Exit(1 if status == FAILED else 0)


@app.command()
def start(kit: KitArgument) -> None:
    """Connect to the server and answer until SIGTERM or Ctrl-C; starts again by itself after a lost session."""
    from client.runtime.supervisor import start_site
    from client.site import load_site
    from common.deployment import open_site_kit

    opened = open_site_kit(kit)
    site = load_site(opened.path)

    def close_leftovers() -> None:
        """Whatever an earlier process left half done is closed before anything new begins."""
        site.guard().restart()
        show.note(f"site {site.name}, server {site.file.server.address}, log {opened.log}")

    start_site(opened, show.note, close_leftovers)


@app.command()
def status(kit: KitArgument, json: JsonOption = False) -> None:
    """Show whether the site runs, what is spent and left, and which runs wait for your word."""
    from client.runtime.status import site_status
    from common.deployment import open_site_kit

    found = site_status(open_site_kit(kit))
    if json:
        show.print_json(asdict(found))
    else:
        _show_status(found)


@app.command()
def approve(
    kit: KitArgument,
    run: Annotated[str, typer.Argument(help="name of the run; without it: show what is asked")] = "",
    reject: Annotated[bool, typer.Option("--reject", help="say no instead of yes")] = False,
    json: JsonOption = False,
) -> None:
    """Show the settings of runs that wait, and say yes (or no) to one of them."""
    from client.runtime.approval import WAITING, decide, requests
    from common.deployment import open_site_kit

    opened = open_site_kit(kit)
    if run:
        answers = [decide(opened, run, approve=not reject)]
    elif reject:
        raise BadInputError("--reject needs the name of a run", hint="fedcart site approve KIT RUN --reject")
    else:
        answers = [request for request in requests(opened) if request.status == WAITING]
    if json:
        show.print_json([_plain_request(answer) for answer in answers])
        return
    for answer in answers:
        _show_request(answer)
    if not answers:
        typer.echo("no run waits for an answer")
    elif not run:
        show.note(f"yes: fedcart site approve {kit} {answers[-1].run}    no: the same with --reject")


@app.command()
def recover(
    kit: KitArgument,
    attestation: Annotated[
        Path,
        typer.Option(
            help="SITE.attestation.json, written by `fedcart server status --attestations`", metavar="FILE"
        ),
    ],
    old_keys: Annotated[
        Path | None,
        typer.Option(help="the site's former NAME.keys.json, after a rotation of keys", metavar="FILE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Begin a new ledger after a loss: it charges all that this site has attested to the server."""
    from client.runtime.recovery import recover_site
    from common.deployment import open_site_kit

    budget = recover_site(open_site_kit(kit), attestation, old_keys)
    if json:
        show.print_json(asdict(budget))
        return
    typer.echo(
        f"scope {budget.scope}: epsilon {show.epsilon(budget.epsilon, 4)} of {budget.limit:g} is charged, "
        f"{show.budget_left(budget.left, 4)} left"
    )
    show.note("who was held out then is not known any more, so every old release counts for all consumers")


def _verdict(rows: Sequence[Row]) -> str:
    failed, warned = (sum(row.status == status for row in rows) for status in ("failed", "warning"))
    if failed:
        return f"not ready: {failed} of {show.count(len(rows), 'check')} failed"
    return "ready" + (f", with {show.count(warned, 'warning')}" if warned else "")


def _mark(status: str) -> str:
    colour = {"ok": "green", "warning": "yellow", "failed": "red"}[status]
    return typer.style(f"{status:<7}", fg=colour) if show.results().is_terminal else f"{status:<7}"


def _show_status(found: SiteStatus) -> None:
    budget = found.budget
    typer.echo(f"site          {found.site}")
    typer.echo(f"running       {f'yes, process {found.pid}' if found.pid else 'no'}, server {found.server}")
    typer.echo(f"budget        epsilon {show.epsilon(budget.epsilon, 4)} of {budget.limit:g} spent, "
               f"{show.budget_left(budget.left, 4)} left "
               f"(delta {budget.delta:g}, scope {budget.scope})")  # fmt: skip
    typer.echo(
        f"ledger        {show.count(budget.committed, 'release')}, {budget.open} open, {budget.forfeit} failed, "
        f"{budget.void} given back"
    )
    for request in found.requests:
        typer.echo(f"run           {request.run}: {request.status}")
    for line in found.log:
        typer.echo(f"log           {line}")


def _show_request(request: Request) -> None:
    """What the operator says yes to: every figure here follows from the plan, none is the coordinator's word."""
    from common.plan import RunPlan

    plan = RunPlan.from_json(request.plan)
    config = plan.config
    training, heads = config.training, config.model.heads
    rows = [
        ("run", f"{request.run}: {request.status}"),
        ("task", f"{config.task}, {training.rounds} rounds of {training.local_steps} steps"),
        ("heads", ", ".join(f"{name} (weight {weight:g})" for name, weight in heads.items())),
        ("sites", ", ".join(f"{name} ({declared} consumers)" for name, declared in plan.populations)),
        ("weights", config.aggregation.weights),
        ("aggregation", config.aggregation.mode),
        ("learning rate", f"{training.learning_rate:g}" if training.learning_rate else "the recipe's own"),
        ("features", _features(plan)),
        ("held out", f"{config.privacy.holdout:g} of the consumers, for evaluation"),
        *plan.task.approval_rows(config),
        *_privacy_rows(plan),
        ("settings", request.digest),
    ]
    for name, text in rows:
        typer.echo(f"{name:<13} {text}")


def _features(plan: RunPlan) -> str:
    from json import loads

    spec = loads(plan.features)
    named = {key: spec[key] for key in ("catalogue_items", "item_buckets", "category_buckets") if spec.get(key)}
    found = [f"{value} {key.replace('_', ' ')}" for key, value in named.items()]
    return ", ".join([f"last {plan.config.features.max_events} events of a consumer", *found])


def _privacy_rows(plan: RunPlan) -> list[tuple[str, str]]:
    from common.privacy.accountant import show_epsilon

    privacy = plan.config.privacy
    if not privacy.enabled:
        return [("privacy", "NONE: the policy will refuse this run")]
    noise, rate = plan.task.evaluation_words(plan), plan.task.sampling_rate(plan.config)
    rows = [
        (
            "privacy",
            f"noise multiplier {plan.noise_multiplier:.4f}, sampling rate {rate:g}, "
            f"clip {privacy.clip:g}; {noise}",
        ),
        (
            "epsilon",
            f"{show_epsilon(_run_epsilon(plan))} for all rounds and the closing evaluation (delta {privacy.delta:g}), "
            f"computed here; the coordinator says {privacy.epsilon:g} at most",
        ),
    ]
    if _exceeds(plan):
        rows.append(("WARNING", "the settings cost more than the coordinator says"))
    return rows


def _run_epsilon(plan: RunPlan) -> float:
    """What the whole run can cost one consumer, from its events: ``Guard.reserve`` lets it take no more."""
    from common.privacy.accountant import epsilon_of

    return epsilon_of(plan.total_events(), plan.config.privacy.delta)


def _exceeds(plan: RunPlan) -> bool:
    return _run_epsilon(plan) > plan.config.privacy.epsilon


def _plain_request(request: Request) -> dict[str, object]:
    from common.plan import RunPlan
    from common.privacy.accountant import round_up

    plan = RunPlan.from_json(request.plan)
    said = {"epsilon_said": plan.config.privacy.epsilon, "exceeds": _exceeds(plan)}
    return {**asdict(request), "epsilon": round_up(_run_epsilon(plan)), **said}
