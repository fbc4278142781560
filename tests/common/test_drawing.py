"""Drawings that stand alone: valid, escaped, and nothing in them is left to a viewer's default, which is black."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from client.scoring.forecast import Forecast
from client.scoring.forecast_picture import draw
from client.scoring.picture import AttributionBar, svg
from common.pages.charts import Axis, Series, line_chart
from common.pages.drawing import STYLE, Scale, grid, html_page, standing_alone
from fedcart.picture import Picture

SPACE = "{http://www.w3.org/2000/svg}"


def forecast(most: float) -> Forecast:
    values = np.full((2, 3, 4), most / 2)
    bands = np.stack([np.stack([values * (1 - k), values * (1 + k)]) for k in (0.2, 0.4)])
    days = tuple(date(2026, 3, 1) + timedelta(days=i) for i in range(4))
    history = np.broadcast_to(np.linspace(0, most, 20), (2, 3, 20))
    sums = values.sum(axis=-1), bands.sum(axis=-1)
    return Forecast(("a & b", "<c>", "all"), days, values, bands, *sums, history, days[0], values, {}, 0)


def lines() -> str:
    points = [(float(i), 0.1 * i) for i in range(1, 6)]
    many = [Series(kind, kind, points) for kind in ("oracle", "released", "public", "site")]
    return str(line_chart(many, Axis(), references=[("popular", 0.3)], label="accuracy > 0"))


DRAWINGS = {
    "lines": standing_alone(lines()),
    "explanation": svg(
        "why <this> & that", "in nats", [AttributionBar("<b>", 0.5, 0.25), AttributionBar("c", -1.0)]
    ),
    "forecast": draw(forecast(30.0), "sales <next>"),
}


@pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=DRAWINGS)
def test_it_is_a_file_of_its_own_whose_every_mark_has_a_colour(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)
    assert root.tag == f"{SPACE}svg"
    parents = {child: parent for parent in root.iter() for child in parent}
    for mark in root.iter():
        if mark.tag in (f"{SPACE}{name}" for name in ("rect", "line", "path", "circle", "polygon")):
            names = mark.get("class", "").split() or parents[mark].get("class", "").split()
            inside = "" if mark.get("class") else f" {mark.tag.removeprefix(SPACE)}"
            known = [f".fedcart .{kind}{inside}{{" for kind in (".".join(names), names[0])]
            assert any(one in STYLE for one in known), f"{mark.tag} {names} would be black"


def test_a_drawing_changes_nothing_else_on_the_page_that_shows_it() -> None:
    assert all(one.startswith(".fedcart ") for one in STYLE.split("}")[:-1])


def test_a_plot_can_be_saved_as_a_drawing_and_as_a_page(tmp_path: Path) -> None:
    plot = Picture("a <title>", lines())
    assert ElementTree.parse(plot.save(tmp_path / "x.svg")).getroot().tag == f"{SPACE}svg"
    page = plot.save(tmp_path / "x.html").read_text()
    assert "<title>a &lt;title&gt;</title>" in page and "accuracy &gt; 0" in page
    assert "a &lt;title&gt;" in plot._repr_html_()
    assert "<script" not in html_page("<script>", plot.svg)


@pytest.mark.parametrize("most", [1.0, 7.0, 30.0, 3_088.0])
def test_the_marks_of_a_forecast_say_where_they_stand(most: float) -> None:
    marks = list(ElementTree.fromstring(draw(forecast(most), "t")).iter(f"{SPACE}text"))
    marks = [mark for mark in marks if mark.get("text-anchor") == "end" and "-" not in (mark.text or "-")]
    bottom, left = float(marks[0].get("y", 0)), marks[0].get("x")
    chart = [mark for mark in marks if mark.get("x") == left and float(mark.get("y", 0)) <= bottom]
    pixels = {float((mark.text or "").replace(",", "")): float(mark.get("y", 0)) for mark in chart}
    low, high = min(pixels), max(pixels)
    assert low == 0 and high >= most
    for value, y in pixels.items():
        assert y == pytest.approx(pixels[low] + value / high * (pixels[high] - pixels[low]), abs=0.02)


def test_a_scale_keeps_what_lies_beyond_at_its_end() -> None:
    y = Scale(0.0, 10.0, 100.0, 0.0, (0.0, 10.0))
    assert [y.inside(value) for value in (-5, 5, 50)] == [100.0, 50.0, 0.0]
    assert grid(y, 40, 90).count("<line") == 2
