"""The auditor's page: epsilon over rounds with the limit, what each round cost, and the whole statement."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cli.show as show
from cli.report.audit_view import Audit, SiteAudit, event_words, left_after
from cli.report.page import EPSILON_LINES, Figure, Tile
from common import VERSION
from common.pages.charts import Axis, Series, column_chart, line_chart
from common.pages.rendering import templates
from common.privacy import TRAIN_SIDE

ROWS_SHOWN = 2_000  # in the page; a longer history is in the CSV file


def render_audit(audit: Audit) -> str:
    """One self-contained HTML page."""
    sites = sorted(audit.sites, key=lambda site: (-site.budget.epsilon, site.budget.site))
    rows = [_row(site, row) for site in audit.sites for row in site.rows]
    return (
        templates()
        .get_template("audit.html.j2")
        .render(
            audit=audit,
            version=VERSION,
            tiles=_tiles(audit, sites),
            banners=_banners(audit),
            spending=[f for f in _spending(sites) if f.drawing],
            diagnostics=[f for f in _diagnostics(audit) if f.drawing],
            totals=[_total(site) for site in sites],
            adversaries=[(a.who, a.sees, show.epsilon(a.epsilon), a.why) for a in audit.statement.adversaries],
            cross=_cross(audit),
            rows=rows[:ROWS_SHOWN],
            rows_left_out=max(0, len(rows) - ROWS_SHOWN),
        )
    )


def _tiles(audit: Audit, sites: list[SiteAudit]) -> list[Tile]:
    if not sites:
        return []
    worst = sites[0].budget
    alike = len(sites) > 1 and sites[-1].budget.epsilon == worst.epsilon
    where = f"at {'every site' if alike else worst.site}, δ = {show.exact(worst.delta)}"
    tiles = [Tile("ε so far", show.epsilon(worst.epsilon), "public", where)]
    limits = [site for site in sites if site.budget.left is not None]
    if limits:
        least = min(limits, key=lambda site: site.budget.left or 0.0)
        tiles.append(
            Tile(
                "Least left",
                show.budget_left(least.budget.left),
                "public",
                f"at {least.budget.site}, of {show.exact(least.budget.limit)}",
            )
        )
        fits = [site.rounds_left for site in limits if site.rounds_left is not None]
        if fits:
            tiles.append(Tile("Rounds left", str(min(fits)), "public", "at the last round's settings"))
    tiles.append(
        Tile("Sites", str(len(sites)), "public", f"{sum(len(s.charged) for s in sites)} releases charged")
    )
    state = "intact" if audit.verdict.ok else "NOT INTACT"
    tiles.append(Tile("Record", state, "public", f"{audit.verdict.attestations} attestations checked"))
    return tiles


def _banners(audit: Audit) -> list[tuple[str, str, str]]:
    banners = [("bad", "NOT INTACT", str(finding)) for finding in audit.verdict.findings[:10]]
    if not audit.statement.private:
        banners.append(("bad", "NOT PRIVATE", "This run gives no guarantee about any consumer."))
    tone = "info" if audit.statement.simulated else "warn"
    banners += [
        (tone, "note", sentence) for sentence in audit.statement.warnings if not sentence.startswith("NOT PRIVATE")
    ]
    if audit.not_attested:
        known = ", ".join(f"{one.site} in round {one.round} ({one.what})" for one in audit.not_attested[:10])
        more = len(audit.not_attested) - 10
        banners.append(
            (
                "warn",
                "NOT ATTESTED",
                f"Invited, cost unknown here: {known}{f' and {more} more' if more > 0 else ''}",
            )
        )
    return banners


def _spending(sites: list[SiteAudit]) -> list[Figure]:
    """Epsilon after each charged release, and what it added. The horizontal axis counts a site's releases."""
    if not sites:
        return []
    curves = {site.budget.site: [(0.0, 0.0), *_curve(site)] for site in sites}
    worst = sites[0].budget.site
    if len({tuple(curve) for curve in curves.values()}) == 1 and len(sites) > 1:
        lines = [Series(f"each of {len(sites)} sites", "public", curves[worst])]
    elif len(sites) > EPSILON_LINES:
        lines = [Series(f"most ({worst})", "public", curves[worst])]
        lines += [Series(f"least ({sites[-1].budget.site})", "site", curves[sites[-1].budget.site])]
    else:
        lines = [Series(name, "public" if name == worst else "site", curve) for name, curve in curves.items()]
    limits = sorted({site.budget.limit for site in sites if site.budget.limit is not None})
    levels = [(f"limit {show.exact(limit)}", limit) for limit in limits[:3]]
    axis = Axis(x="releases charged", from_zero=True)
    added = [(after[0], after[1] - before[1]) for before, after in pairwise(curves[worst])]
    noise = [(float(i), e.noise_multiplier) for i, e in _training(sites[0])]
    return [
        Figure(
            "Epsilon so far, per site", ("public",), line_chart(lines, axis, references=levels, label="epsilon")
        ),
        Figure(
            "What each release added",
            ("public",),
            column_chart(added, lambda value: show.epsilon(value), label="epsilon added", unit="release"),
            f"at {worst}; the first ones cost most: composition grows slower than a sum",
        ),
        Figure(
            "Noise multiplier in training",
            ("public",),
            line_chart([Series("noise multiplier", "public", noise)], axis, label="noise multiplier"),
            f"at {worst}: noise standard deviation over the clipping norm, per step",
        ),
    ]


def _diagnostics(audit: Audit) -> list[Figure]:
    """What only a simulation can show about clipping and noise."""
    figures = []
    for name, title in (("clip_fraction", "Share of consumers clipped"), ("signal_to_noise", "Signal to noise")):
        for kind in ("released", "public", "oracle"):
            points = [
                (float(r.round), getattr(r, kind)[name])
                for r in audit.records
                if r.kind == "train" and name in getattr(r, kind)
            ]
            drawing = line_chart([Series(name, kind, points)], Axis(from_zero=True), label=title)
            figures.append(Figure(title, (kind,), drawing))
    return figures


def _curve(site: SiteAudit) -> list[tuple[float, float]]:
    return [(float(i), row.epsilon_so_far) for i, row in enumerate(site.charged, start=1)]


def _training(site: SiteAudit) -> list[tuple[int, Any]]:
    return [(i, e) for i, row in enumerate(site.charged, start=1) for e in row.events if e.sub_scope == TRAIN_SIDE]


def _total(site: SiteAudit) -> dict[str, str]:
    budget = site.budget
    reading = budget.reading()
    return {
        "site": budget.site,
        "scope": budget.scope,
        "charged": str(len(site.charged)),
        "epsilon": show.epsilon(budget.epsilon),
        "limit": show.exact(budget.limit),
        "left": show.budget_left(budget.left),
        "rounds_left": "–" if site.rounds_left is None else str(site.rounds_left),
        "rdp": show.epsilon(reading.rdp),
        "pld": show.epsilon(reading.pld),
        "delta": show.exact(budget.delta),
        "source": site.source,
    }


def _cross(audit: Audit) -> list[tuple[str, str]]:
    cross = audit.statement.cross_site
    if cross is None or cross.sites < 2:
        return []
    return [
        ("known at one site only", show.epsilon(cross.disjoint)),
        (f"known at all {cross.sites} sites", show.epsilon(cross.everywhere)),
    ]


def _row(site: SiteAudit, row: Any) -> dict[str, str]:
    return {
        "site": site.budget.site,
        "run": row.run,
        "round": str(row.round),
        "state": row.state,
        "time": row.time.replace("T", " ").removesuffix("Z"),
        "events": event_words(row.events),
        "alone": show.epsilon(row.epsilon_this_round) if row.state != "void" else "–",
        "so_far": show.epsilon(row.epsilon_so_far),
        "left": show.budget_left(left_after(site, row)),
    }
