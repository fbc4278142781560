"""Was every sum judged as plan and item masks say? What is recorded of it is recomputed, as far as it does not follow from the sum.

The sum itself is nobody's but the server's: that the model is made of it, and of nothing else, is the coordinator's word.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

from common.limits import COORDINATE, LENGTH, ROW, ItemCoordinates, UpdateLimits, count_limits
from common.run import IMPLAUSIBLE, MASKS_FILE, RoundRecord, RunFolder, RunPlan

MOST_PARAMETERS = 1 << 25
_HEADER_BYTES = 4_096
_ROUNDED = 1e-6  # another processor adds up in another order


def judgement_problems(run: RunFolder, plan: RunPlan, records: Sequence[RoundRecord]) -> Iterator[tuple[int, str]]:
    """(line number, what does not hold) of what the sums were judged by. Raises: BadInputError, ValueError for masks that are
    damaged or are not the plan's."""
    without = MASKS_FILE in run.left_out() and not (run.path / MASKS_FILE).is_file()
    try:
        rows = None if without else _rows_of(run, plan)
    except (zipfile.BadZipFile, MemoryError) as error:
        raise ValueError(f"item masks are damaged: {error}") from None
    limits: dict[frozenset[str], UpdateLimits] = {}
    for number, record in enumerate(records, start=1):
        survivors = frozenset(site for site, did in record.sites.items() if did.status == "ok")
        if not record.summed or not survivors <= set(plan.sites):
            if record.plausible or record.shortened:
                yield number, "was judged, and says that there was no sum"
            continue
        if record.kind == "train" and without:  # what limits an update depends on who stocks what
            record = replace(record, plausible=_of_counts(record), shortened={})
        elif record.kind == "train" and survivors not in limits:
            limits[survivors] = UpdateLimits.of(plan, sorted(survivors), rows)
        yield from ((number, what) for what in _of_record(plan, record, limits.get(survivors)))


def _of_counts(record: RoundRecord) -> dict[str, tuple[float, float]]:
    return {name: figure for name, figure in record.plausible.items() if name not in (LENGTH, COORDINATE, ROW)}


def _rows_of(run: RunFolder, plan: RunPlan) -> ItemCoordinates | None:
    """Item masks, if they can be those of the plan: nothing is made of sizes and numbers that somebody else wrote before."""
    if plan.parameters > MOST_PARAMETERS:
        raise ValueError(f"the plan says {plan.parameters} parameters: more than is looked at")
    masks_file, most = run.path / MASKS_FILE, plan.parameters + _HEADER_BYTES
    if not masks_file.exists():
        return None
    with zipfile.ZipFile(masks_file) as packed:
        if len(packed.infolist()) > len(plan.sites) or any(one.file_size > most for one in packed.infolist()):
            raise ValueError("item masks are larger than the plan's")
    rows = ItemCoordinates(run.item_of(), run.item_masks())
    lengths = {len(mask) for mask in rows.masks.values() if mask.ndim == 1}
    shape = rows.item_of.shape == (plan.parameters,) and rows.item_of.dtype.kind == "i"
    if not shape or len(lengths) != 1 or set(plan.sites) != set(rows.masks):
        raise ValueError("item masks are not those of the plan")
    if not (rows.item_of.min() >= -1 and rows.item_of.max() < min(lengths)):
        raise ValueError("item rows are not those of the masks")
    return rows


def _of_record(plan: RunPlan, record: RoundRecord, update: UpdateLimits | None) -> Iterator[str]:
    survivors = sorted(site for site, did in record.sites.items() if did.status == "ok")
    first = {
        block.name: record.plausible[name][0]
        for block in plan.blocks(record.kind)
        if (name := f"first number of the {block.name}") in record.plausible
    }
    possible = count_limits(plan, record.kind, survivors, first)
    possible |= update.possible.largest() if update is not None and record.kind == "train" else {}
    if possible.keys() != record.plausible.keys():
        yield "was not judged by what the plan says: other figures"
    for name in sorted(possible.keys() & record.plausible.keys()):
        if record.plausible[name][1] > possible[name] + abs(possible[name]) * _ROUNDED:
            yield f"was judged by a laxer limit than the plan's: {name}, {record.plausible[name][1]:.4g} for {possible[name]:.4g}"
    beyond = sorted(name for name, (seen, limit) in record.plausible.items() if not seen <= limit)
    if beyond and not record.aborted:
        yield f"was not refused, and shows what no honest sites make: {', '.join(beyond)}"
    if record.aborted == IMPLAUSIBLE and not beyond:
        yield "was refused, and shows nothing that honest sites do not make"
    yield from _of_shortened(record, update)


def _of_shortened(record: RoundRecord, update: UpdateLimits | None) -> Iterator[str]:
    usual, becomes = ({}, {}) if update is None else (update.usual.largest(), update.becomes)
    if record.shortened and (record.aborted or record.kind != "train"):
        yield "says that an update was shortened, and there is none"
        return
    for name, what in sorted(record.shortened.items()):
        if name not in becomes or what.became > becomes[name] * (1 + _ROUNDED):
            yield f"shortened by another limit than the plan's: {name}, to {what.became:.4g}"
        elif not what.seen > what.became or what.number < 1:
            yield f"says that {name} was shortened {what}"
    for name, (seen, _) in sorted(record.plausible.items()):
        told = record.shortened.keys() & {
            name,
            COORDINATE,
            ROW,
        }  # a shorter row may have made the whole short enough
        if name in usual and seen > usual[name] * (1 + _ROUNDED) and not (record.aborted or told):
            yield f"shows {name} {seen:.4g}, beyond {usual[name]:.4g}, and does not say that it was shortened"
