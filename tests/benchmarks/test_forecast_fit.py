"""The forecast that the program ships is what the kept cells give, and the fit finds curves that are there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import _forecast_fit as fitting
from benchmarks.forecast import CELLS, read


def test_the_program_ships_what_the_kept_cells_give():
    text = fitting.PROGRAM.read_text()
    shipped = text.split(fitting.BEGIN)[1].split(fitting.END)[0]
    assert shipped.split() == fitting.report(read(CELLS)).split()


def test_every_cell_says_what_it_is_of():
    cells = read(CELLS)
    assert {cell["kind"] for cell in cells} == {"bounds", "run", "alone"}
    for cell in cells:
        assert 0 < cell.get("recall@20", cell.get("untrained", 0.0)) < 1


def made_up(slope: float, constants: dict[str, float]) -> fitting.Table:
    x = np.tile(np.linspace(1, 5, 9), len(constants))
    log = np.repeat(list(constants), 9)
    line = slope * x + np.array([constants[name] for name in log])
    run = np.array([f"{name}/{i}" for i, name in enumerate(log)])
    return fitting.Table(x[:, None], 1 / (1 + np.exp(-line)), log, run)


def test_a_curve_that_is_there_is_found_with_the_constant_of_each_log():
    slopes, constants = fitting.curve(made_up(1.5, {"one": -4.0, "other": -6.0}))
    assert slopes[0] == pytest.approx(1.5, abs=0.1)
    assert constants["one"] - constants["other"] == pytest.approx(2.0, abs=0.2)


def test_a_log_that_is_left_out_is_foretold_by_the_others_and_its_error_is_shown():
    alike = fitting.fit(made_up(1.5, {"one": -4.0, "other": -4.0, "third": -4.0}))
    apart = fitting.fit(made_up(1.5, {"one": -2.0, "other": -4.0, "third": -7.0}))
    assert alike.unseen < 0.02
    assert apart.unseen > 0.3
    assert apart.half < 0.05  # with other runs of the same log it is known


def test_a_range_holds_so_many_of_the_left_out_cells():
    off, log = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array(["a"] * 5)
    assert (off <= fitting._half(off, log)).mean() >= fitting.INSIDE
    assert math.isclose(fitting._half(off, log), 0.4)
