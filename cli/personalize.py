"""``fedcart personalize``: the shared model with a site's own data on top, and what joining brings, on its own consumers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.options as options
import cli.show as show

if TYPE_CHECKING:
    from client.personal.make import Done
    from client.personal.verdict import Figure, Verdict
    from client.scoring.place import ModelPlace

app = typer.Typer(add_completion=False)

Report = Annotated[Path | None, typer.Option(metavar="FILE", help="write the verdict there too: .html or .json")]


@app.command(epilog="Example: fedcart personalize KITS/sites/north shop.csv --report verdict.html")
def personalize(
    model: options.Model,
    events: options.Events,
    report: Report = None,
    format: options.Format = "",
    catalogue: options.CatalogueFile = None,
    site: options.SiteName = "",
    state: options.State = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Tune the shared model on your own consumers, mix in your own counts, keep what serves you best, and say what it brings.

    Nothing leaves this machine, no privacy is spent. The personal model then answers in predict, detect, explain and
    forecast; it never leaves your site. Ctrl-C leaves everything as it was.
    """
    from client.scoring.consumers import load_local, local_key

    options.check_out(report, force, (".html", ".json"))
    place = options.place_of(model, options.ReadOptions(format, catalogue, site, state))
    log = load_local(events, place.format, local_key(place.state))
    if log.dropped:
        show.note(f"{log.dropped:,} unusable lines left out, `fedcart data check {events}` says why")
    done = _made(place, log, catalogue)
    written = _write(done, report)
    if json:
        show.print_json(
            done.verdicts.to_json() | {"model": str(done.path), "made_of": done.made_of, "files": written}
        )
        return
    _print(done, written)


def _made(place: ModelPlace, log: object, catalogue: Path | None) -> Done:
    from client.personal import make

    with show.working("personalize") as say:
        if make.forecasts_sales(place.folder):
            return make.personalize_sales(place, log, show.warning)  # type: ignore[arg-type]
        return make.personalize(place, log, say, catalogue, show.warning)  # type: ignore[arg-type]


def _write(done: Done, report: Path | None) -> list[str]:
    """The verdict beside the personal model, as JSON and as a page; and where it is wanted."""
    from client.personal.file import REPORT_FILE, VERDICT_FILE
    from common.atomic import write_atomic
    from common.strict_json import readable

    texts = {VERDICT_FILE: readable(done.verdicts.to_json()), REPORT_FILE: page_of(done)}
    paths = [done.path.with_name(VERDICT_FILE), done.path.with_name(REPORT_FILE), *([report] if report else [])]
    for path in paths:
        text = texts[REPORT_FILE if path.suffix == ".html" else VERDICT_FILE]
        write_atomic(path, text.encode(), mode=0o600)
    return [str(path) for path in paths]


def page_of(done: Done) -> str:
    """The verdict as one HTML page."""
    from common.pages.rendering import templates
    from common.tasks import metric_named

    template = templates().get_template("verdict.html.j2")
    return template.render(
        found=done.verdicts, words_of=lambda name: metric_named(name).words, figure=figure, gain=gain
    )


def figure(value: Figure) -> str:
    """A mean with its 95 % bar."""
    from client.personal.verdict import Z

    return f"{show.number(value.value)} ± {show.number(Z * value.error)}"


def gain(verdict: Verdict) -> str:
    """What joining brings, in points, with its 95 % bar."""
    from client.personal.verdict import Z

    value, error = verdict.gain.value, verdict.gain.error
    return "–" if value != value else f"{100 * value:+.1f} ± {show.number(100 * Z * error, 1)} points"


def _print(done: Done, written: list[str]) -> None:
    from common.tasks import metric_named

    found = done.verdicts
    show.line(found.verdicts[0].words)
    show.table(
        f"on your own held-out consumers, {found.consumers:,} others learnt from; bars are 95 %",
        ("", "alone", "shared", "personal", "personal less alone"),
        [
            (
                metric_named(one.metric).words,
                *(figure(one.figures[who]) for who in ("alone", "shared", "personal")),
                gain(one),
            )
            for one in found.verdicts
        ],
    )
    show.line(f"made of       {done.made_of}")
    show.line(f"personal      {done.path} (never leaves this site)")
    show.line(f"verdict       {', '.join(written)}")
