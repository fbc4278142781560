"""What each site of a simulation makes of the model with its own data on top: *oracle* numbers, no server sees them.

The same code that ``fedcart personalize`` runs at a real site, over the kits of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import BadInputError
from common.run import RunPlan
from simulations.workers import Done, WorkerPool

if TYPE_CHECKING:
    from client.personal.verdict import Verdict

MOST_SITES = 12  # of a run with more, so many from the smallest to the largest
Progress = Callable[[int, int], None]
Row = dict[str, Any]
_SECONDS = 0.5


def own_data_table(
    pool: WorkerPool, kits: Mapping[str, Path], plan: RunPlan, vector: bytes, progress: Progress
) -> list[Row]:
    """One row per compared site, the smallest first: consumers, and the verdicts or why there are none."""
    chosen = spread_over_sizes(plan)
    jobs = {pool.submit(verdicts_at, str(kits[site]), plan.to_json(), vector): site for site in chosen}
    done: list[Done] = []
    rows: list[Row] = []
    while len(done) < len(jobs):
        for finished in pool.collect(_SECONDS):
            rows.append({"site": jobs[finished.job]} | finished.unwrap())
            done.append(finished)
            progress(len(done), len(jobs))
    return sorted(rows, key=lambda row: (row["consumers"], row["site"]))


def spread_over_sizes(plan: RunPlan) -> list[str]:
    """All sites of a small run; of a large one some from the smallest to the largest."""
    by_size = [site for site, _ in sorted(plan.populations, key=lambda pair: pair[1])]
    if len(by_size) <= MOST_SITES:
        return by_size
    return [by_size[round(place)] for place in np.linspace(0, len(by_size) - 1, MOST_SITES)]


def verdicts_at(kit: str, plan_json: str, vector: bytes) -> Row:
    """A job of a worker: what one site makes of the model. Plain data in, plain data out."""
    from client.site import load_site

    plan, parameters = RunPlan.from_json(plan_json), np.frombuffer(vector, dtype=np.float32).copy()
    site = load_site(Path(kit), simulated=True)
    try:
        if plan.task.network == "sales":
            consumers, verdicts = plan.population(site.name), _of_sales(kit, plan, parameters)
        else:
            from client.personal.make import made_of
            from client.personal.start import OwnConsumers, SharedStart

            known = site.prepared(plan)
            consumers = len(known.sides.train)
            own = OwnConsumers.of(known.sides, site.secret())
            verdicts = made_of(SharedStart(plan, parameters, known.mask), own, lambda _what, _done, _total: None)[
                2
            ]
    except BadInputError as error:
        return {"consumers": plan.population(site.name), "verdicts": [], "why": error.message}
    return {"consumers": consumers, "verdicts": [one.to_json() for one in verdicts], "why": ""}


def _of_sales(kit: str, plan: RunPlan, vector: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[Verdict, ...]:
    from client.personal.sales import personalize_sales
    from client.scoring.forecast import SharedSalesModel
    from client.tasks.sales_training import flat_model
    from common.tasks.sales_series import SalesSpec
    from simulations.tasks.sales import exact_series

    model, flat = flat_model(plan.config)
    flat.load(vector)
    model.eval()
    spec = SalesSpec.of(plan.config)
    return (personalize_sales(SharedSalesModel(model, plan.config, spec, {}), exact_series(kit, plan), spec)[1],)


def remarks_on(rows: Sequence[Row]) -> list[str]:
    """One line per site for the screen: what joining brings it (oracle)."""
    lines = []
    for row in rows:
        size = f"{row['site']} ({row['consumers']:,} consumers)"
        if not row["verdicts"]:
            lines.append(f"{size}: {row['why']}")
            continue
        first = row["verdicts"][0]
        figures = ", ".join(
            f"{who} {_shown(first['figures'][who]['value'])}" for who in ("alone", "shared", "personal")
        )
        lines.append(f"{size}: {first['metric']} {figures}; {first['words'].partition(' (')[0]}")
    return [f"own data on top (oracle): {line}" for line in lines]


def _shown(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"
