"""What a host without torch needs beside the ONNX file: the names of the model's ids, and the program that uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from client.scoring.edge import FORMAT, NAMES_FILE
from client.scoring.model import SharedModel
from client.scoring.step import step_facts
from common.atomic import write_atomic
from common.strict_json import readable

PROGRAM_FILE = "score.py"


def write_edge(shared: SharedModel, folder: Path) -> list[str]:
    """Write the names and the program; returns the names of both files."""
    write_atomic(folder / NAMES_FILE, readable(edge_facts(shared)).encode())
    write_atomic(folder / PROGRAM_FILE, (Path(__file__).parent / "edge.py").read_bytes())
    return [NAMES_FILE, PROGRAM_FILE]


def edge_facts(shared: SharedModel) -> dict[str, Any]:
    """Inputs and outputs of the step, and every name that an event may use with the model's own id of it."""
    facts, spec, names = step_facts(shared), shared.spec, shared.catalogue
    known = names.items if names is not None else ()
    local = shared.rows.translate(np.arange(1, len(known) + 1)) if known else np.zeros(0, dtype=np.int64)
    category = names.item_category[1:] if names is not None else np.zeros(0, dtype=np.int64)
    buckets = np.arange(1, spec.item_buckets + 1)
    rows = shared.rows.translate(buckets + spec.catalogue_items) if len(buckets) else buckets
    return {
        "format": FORMAT,
        "inputs": list(facts.inputs),
        "heads": list(facts.heads),
        "state": list(facts.state),
        "copy_bonus": facts.copy_bonus,
        "events": list(spec.event_types),
        "items": [[name, int(i), int(c)] for name, i, c in zip(known, local, category, strict=True)],
        "categories": list(names.categories) if names is not None else [],
        "item_buckets": spec.item_buckets,
        "category_buckets": spec.category_buckets,
        "bucket_rows": {str(number): int(row) for number, row in zip(buckets, rows, strict=True) if row},
        "price_edges": list(spec.price_edges),
        "gap_edges_s": list(spec.gap_edges_s),
    }
