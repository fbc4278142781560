"""Who gets a simulated run folder of real logs, and knows the seed, finds nobody by trying e-mail addresses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from client.site import load_site
from common.audit.verify import verify_path
from common.data.events import pseudonym
from common.data.sequences import holdout_mask
from common.data.split import Split, parts_of
from common.data.store.rows import open_rows
from simulations.pseudonyms import renamed
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate
from tests.tiny_federation import tiny

PEOPLE = [f"person{i}@example.org" for i in range(400)]
SEED = 7


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "shop.csv"
    rng = np.random.default_rng(1)
    lines = ["consumer,timestamp,event,item,category,price"]
    for person in PEOPLE:
        for step in range(int(rng.integers(3, 9))):
            item = int(rng.integers(0, 30))
            when = f"2024-0{rng.integers(1, 9)}-1{rng.integers(0, 9)}T1{step}:00:00"
            lines.append(
                f"{person},{when},{('view', 'cart', 'purchase')[step % 3]},item-{item},shelf-{item % 5},{item + 1}.5"
            )
    path.write_text("\n".join(lines) + "\n")
    return path


def run(log: Path, out: Path, task: str = "next-behaviour") -> Path:
    settings = [
        f"data.events={log}",
        "data.split_by=consumers",
        f"seed={SEED}",
        "training.rounds=1",
        f"task={task}",
    ]
    assert simulate(tiny(*settings), out).status in ("completed", "failed")
    return out


@pytest.fixture(scope="module")
def folder(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(log, tmp_path_factory.mktemp("runs") / "run")


def stored_ids(out: Path) -> dict[str, np.ndarray]:
    ids = {}
    for path in sorted(out.glob("sites/*/state/consumers-*.rows")):
        rows = open_rows(path)
        ids[path.parent.parent.name] = np.concatenate([part.consumers for part in parts_of(rows.sides)])
    return ids


def test_nobody_is_found_by_dictionary(folder: Path) -> None:
    guessed = {pseudonym(p, hashlib.sha256(f"fedcart/simulation/{SEED}".encode()).digest()) for p in PEOPLE}
    ids = stored_ids(folder)
    assert sum(len(part) for part in ids.values()) == len(PEOPLE)
    keys = [path.read_bytes() for path in folder.glob("sites/*/state/consumers.key")]
    for key in keys:  # nor with the keys that lie in the folder
        guessed |= {pseudonym(p, key) for p in PEOPLE}
    assert not guessed & {int(i) for part in ids.values() for i in part}


@pytest.mark.full
def test_the_order_of_the_rows_says_nothing_either(folder: Path, log: Path, tmp_path: Path) -> None:
    """Rows in the order of the seeded pseudonyms could be told by their rank: two runs must order them differently."""
    again = run(log, tmp_path / "again")
    for site in stored_ids(folder):
        a, b = (
            open_rows(next((out / "sites" / site / "state").glob("consumers-*.rows"))) for out in (folder, again)
        )
        for mine, theirs in zip(parts_of(a.sides), parts_of(b.sides), strict=True):
            assert sorted(mine.lengths) == sorted(theirs.lengths)  # the same people
            assert len(mine) < 9 or mine.lengths.tolist() != theirs.lengths.tolist()
            assert mine.consumers.tolist() == sorted(mine.consumers.tolist())


@pytest.mark.full
def test_the_split_repeats(folder: Path, log: Path, tmp_path: Path) -> None:
    again = run(log, tmp_path / "again")
    sizes = [
        [(s, int(holdout_mask(ids, (out / "sites" / s / "state" / "consumers.key").read_bytes(), 0.2).sum())) for s, ids in stored_ids(out).items()]
        for out in (folder, again)
    ]  # fmt: skip
    assert sizes[0] == sizes[1]
    held = sum(n for _, n in sizes[0])
    assert 0.1 * len(PEOPLE) < held < 0.3 * len(PEOPLE)
    assert load_site(folder / "sites" / sizes[0][0][0], simulated=True).split_key()


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.89])
def test_a_renamed_consumer_stays_on_their_side(fraction: float) -> None:
    log = generate(SyntheticSpec(sites=1, consumers=200, items=30), seed=1).log
    split = Split(b"k" * 32, fraction, 0.5)
    other = renamed(log, split)
    assert len(other) == len(log) and len(other.consumers) == len(log.consumers)
    assert not set(other.consumers.tolist()) & set(log.consumers.tolist())
    for side in (0, 1):
        before, after = (np.diff(part.offsets)[split.masks(part.consumers)[side]] for part in (log, other))
        assert sorted(before.tolist()) == sorted(after.tolist())


def test_the_exported_folder_verifies_and_holds_nobody(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "handed-over"
    assert main(["audit", "export", str(folder), str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["intact"]
    assert not (out / "sites").exists() and not (out / "coordinator").exists()
    assert verify_path(out, every_round=True).ok
    assert not [path for path in out.rglob("*") if path.suffix in (".key", ".npz", ".rows", ".safetensors")]
    text = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"shop.csv" not in text and b"example.org" not in text
    assert all(not json.loads(line)["oracle"] for line in (out / "metrics.jsonl").read_text().splitlines())
    assert main(["audit", "show", str(out)]) == 0
    assert main(["audit", "export", str(folder), str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["audit", "export", str(tmp_path), str(tmp_path / "x")]) == 2
