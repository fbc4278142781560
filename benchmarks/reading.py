"""From a log to a site's stored rows: seconds and peak memory, each case in a process of its own.

``python -m benchmarks.reading EVENTS [csv] [parquet] [postgresql://...]``: one size by hand. Of a database the table ``events``
is read, its password from FEDCART_SOURCE_PASSWORD.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from common.strict_json import finite

CHUNK = 1_000_000
ITEMS, PER_CONSUMER = 5_000, 20
SECRET = b"s" * 32


def frames(events: int, seed: int = 1) -> Iterator[pl.DataFrame]:
    """A log in the order of time, consumers mixed, twenty events each; Zipf items. Memory for one chunk."""
    rng = np.random.default_rng(seed)
    consumers = max(1, events // PER_CONSUMER)
    kinds = pl.Series(["view", "view", "view", "cart", "purchase"])
    for start in range(0, events, CHUNK):
        n = min(CHUNK, events - start)
        item = np.minimum(rng.zipf(1.3, n), ITEMS)
        seconds = 1_704_067_200 + (np.arange(start, start + n) * (300 * 86_400 / events)).astype(np.int64)
        yield pl.DataFrame(
            {
                "consumer": pl.Series(rng.integers(0, consumers, n)).cast(pl.String).str.zfill(10),
                "timestamp": pl.from_epoch(pl.Series(seconds)).dt.to_string("%Y-%m-%dT%H:%M:%S"),
                "event": kinds.gather(pl.Series(rng.integers(0, 5, n).astype(np.uint32))),
                "item": pl.Series(item).cast(pl.String),
                "category": pl.Series(item % 40).cast(pl.String),
                "price": np.round(rng.uniform(1, 90, n), 2),
                "quantity": np.ones(n, dtype=np.int64),
            }
        )


def write_log(path: Path, events: int) -> None:
    """Write the log as CSV or Parquet, by the end of the name."""
    if path.suffix == ".csv":
        with path.open("wb") as file:
            for number, frame in enumerate(frames(events)):
                frame.write_csv(file, include_header=number == 0)
        return
    pl.scan_parquet(_parts(path, events)).sink_parquet(path)


def _parts(path: Path, events: int) -> list[Path]:
    parts = []
    for number, frame in enumerate(frames(events)):
        parts.append(path.with_name(f"{path.stem}-{number:04d}.part.parquet"))
        frame.write_parquet(parts[-1])
    return parts


def prepared(log: Any, folder: Path) -> dict[str, Any]:
    """Everything that a site does with a log before it trains: read, judge, settle, encode, split, store."""
    from client.prepared import store_sequences
    from common.data import Split, build_sequences, feature_spec
    from common.data.store.logs import Tally

    spec, tally, started = feature_spec(None, item_buckets=1_000), Tally(), time.monotonic()
    rows = (build_sequences(piece, spec, None, max_events=50) for piece in log.pieces(tally))
    mask = np.ones(1_001, dtype=np.bool_)
    store_sequences(folder / "consumers.rows", rows, mask, Split(SECRET, 0.1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"kept": tally.kept, "seconds": round(time.monotonic() - started, 1), "peak_gib": round(peak, 2),
            "stored_mib": round((folder / "consumers.rows").stat().st_size / 2**20)}  # fmt: skip


def _child(path: str, folder: str, answer: Connection) -> None:
    from common.data.store.logs import FileLog

    if "://" not in path:
        answer.send(prepared(FileLog(Path(path), "fedcart", None, SECRET, Path(folder)), Path(folder)))
        return
    from common.data.sources.opening import open_source
    from common.data.store.source_log import SourceLog
    from common.source_settings import SourceSettings

    told = SourceSettings(
        kind="sql", uri=path, password_env="FEDCART_SOURCE_PASSWORD", query="SELECT * FROM events"
    )
    source = open_source(told, Path(folder))
    answer.send(prepared(SourceLog(source, "fedcart", None, SECRET, Path(folder), ""), Path(folder)))


def measured(path: str) -> dict[str, Any]:
    """One preparation in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(dir=None if "://" in path else Path(path).parent) as folder:
        child = context.Process(target=_child, args=(path, folder, theirs))
        child.start()
        theirs.close()
        try:
            return dict(ours.recv())
        finally:
            child.join()


def run(events: int, kinds: Sequence[str]) -> None:
    """Measure one size in each kind and print it."""
    with tempfile.TemporaryDirectory() as name:
        for kind in kinds:
            path = kind
            if "://" not in kind:
                path = str(Path(name) / f"log.{kind}")
                write_log(Path(path), events)
            words = kind.split(":")[0]
            print(
                json.dumps(finite({"events": events, "from": words, **measured(path)}), allow_nan=False),
                flush=True,
            )


def main(*, smoke: bool = False) -> None:
    """A million events from CSV and Parquet; a few thousand at smoke size."""
    run(20_000 if smoke else 1_000_000, ("csv", "parquet"))


if __name__ == "__main__":
    run(int(float(sys.argv[1])), sys.argv[2:] or ("csv", "parquet"))
