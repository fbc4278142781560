"""The page of ``fedcart segments``: who they are, what they bought, and maps of consumers and items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from client.scoring.maps import EmbeddingMap
    from client.scoring.segments import Conversion, Segments


def segments_page(found: Segments, maps: Mapping[str, EmbeddingMap | None]) -> str:
    """The whole page; it carries no id. ``maps``: title -> map, None where there is none."""
    from common.pages.rendering import templates

    campaigns = sorted({campaign for _, campaign in found.campaigns})
    names = ["", *(segment.name for segment in found.segments)]
    rows = (
        [{"name": name, "cells": [found.campaigns[name, one] for one in campaigns]} for name in names]
        if campaigns
        else []
    )
    return (
        templates()
        .get_template("segments.html.j2")
        .render(
            segments=found.segments,
            total=len(found.consumers),
            since=found.since.strftime("%Y-%m-%d"),
            agreement=found.agreement,
            campaigns=campaigns,
            rows=rows,
            rate=rate_words,
            maps=[_map(title, one) for title, one in maps.items() if one is not None],
        )
    )


def rate_words(one: Conversion) -> str:
    """A conversion with its interval; a dash of nobody."""
    if not one.asked:
        return "–"
    low, high = one.interval
    return f"{one.rate:.1%} ({low:.1%} to {high:.1%}, n {one.asked:,})"


def _map(title: str, one: EmbeddingMap) -> dict[str, Any]:
    from common.pages.scatter import legend

    about = f"{len(one.group):,} points. Near means alike to the model; the axes of such maps have no unit."
    pca = f"the two directions of most difference, {one.kept:.0%} of it"
    drawings = [
        {"name": "PCA", "svg": _drawing(one, one.pca, f"{title}, PCA"), "under": pca},
        {"name": "t-SNE", "svg": _drawing(one, one.tsne, f"{title}, t-SNE"), "under": "neighbours stay neighbours; distances between groups say little"},
    ]  # fmt: skip
    return {"title": title, "about": about, "drawings": drawings, "legend": legend(one.names)}


def _drawing(one: EmbeddingMap, places: Any, label: str) -> Any:
    from common.pages.scatter import Cloud, scatter

    clouds = []
    for number, name in enumerate(one.names):
        rows = np.flatnonzero(one.group == number)
        points = [(float(places[row, 0]), float(places[row, 1])) for row in rows]
        clouds.append(Cloud(name, points, [one.told[row] for row in rows], [one.labels[row] for row in rows]))
    return scatter(clouds, label)
