"""Edits of a run folder, by a stranger and by a coordinator who signs what he likes: verification names each of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.audit.verify import verify_path
from common.privacy.attestation import SignedAttestation
from common.run.records import RoundRecord
from common.trust.identity import Identity, Roster
from tests.forged_runs import Edit, lines, put, sign_again

pytestmark = pytest.mark.full


def on_every_line(change: Callable[[dict[str, Any]], Any]) -> Edit:
    def edit(run: Path) -> None:
        records = lines(run)
        for record in records:
            change(record)
        put(run, records)

    return edit


def cut(run: Path) -> None:
    put(run, lines(run)[:2])
    for path in (run / "evidence").iterdir():
        if int(path.stem.split("-")[1]) > 2:
            path.unlink()


def repeated(run: Path) -> None:
    records = lines(run)
    for record in records[1:]:
        record["attestations"], record["epsilon"] = records[0]["attestations"], records[0]["epsilon"]
    put(run, records)


def without_one_site(record: dict[str, Any]) -> None:
    record["attestations"].pop("merchant-1", None)
    record["epsilon"].pop("merchant-1", None)


def lost(record: dict[str, Any]) -> None:
    record["sites"]["merchant-2"] = {"status": "lost", "reason": "late", "phase": "advertise"}


def plain(run: Path) -> None:
    on_every_line(lambda record: record.update(aggregation="plain"))(run)
    shutil.rmtree(run / "evidence")


def edited(name: str, key: str, value: Any) -> Edit:
    def edit(run: Path) -> None:
        content = json.loads((run / name).read_text())
        content[key] = value
        (run / name).write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))

    return edit


def everything_removed(run: Path) -> None:
    put(run, [])
    shutil.rmtree(run / "evidence")
    shutil.rmtree(run / "ledgers")
    edited("summary.json", "private", value=False)(run)


def flipped(name: str) -> Edit:
    def edit(run: Path) -> None:
        path = max(run.glob(name))
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))

    return edit


def removed(pattern: str) -> Edit:
    def edit(run: Path) -> None:
        for path in run.glob(pattern):
            path.unlink()

    return edit


def run_toml(run: Path) -> None:
    path = run / "run.toml"
    assert "epsilon = 6.0" in path.read_text()
    path.write_text(path.read_text().replace("epsilon = 6.0", "epsilon = 0.1"))


def an_interrupted_summary(run: Path) -> None:
    cut(run)
    (run / "manifest.json").unlink()
    edited("summary.json", "status", "interrupted")(run)


BY_A_STRANGER: dict[str, tuple[Edit, str]] = {
    "rounds left out": (cut, "the tail of metrics.jsonl was cut"),
    "rounds left out, and said to be under way": (an_interrupted_summary, "did not sign the last record"),
    "an attestation repeated": (repeated, "not newer than the one before"),
    "released figures replaced": (
        on_every_line(lambda r: r.update(released=dict.fromkeys(r["released"], 0.999))),
        "not as the coordinator signed it",
    ),
    "a site's attestations removed": (on_every_line(without_one_site), "has no attestation of it"),
    "rounds said to be plain": (plain, "not what the plan says"),
    "a survivor shown as lost": (on_every_line(lost), "names other survivors"),
    "settings edited": (run_toml, "run.toml: has other settings"),
    "everything removed": (everything_removed, "names another last record"),
    "plan edited": (edited("plan.json", "noise_multiplier", 9.9), "with another query"),
    "checkpoints removed": (removed("checkpoints/*.safetensors"), "which is missing"),
    "a checkpoint replaced": (flipped("checkpoints/*.safetensors"), "exchanged or edited"),
    "the model replaced": (flipped("model.safetensors"), "another digest of model.safetensors"),
    "the model's description edited": (flipped("model.json"), "another digest of model.json"),
    "a model added where there was none": (removed("model.json"), "lists model.json, which is missing"),
    "the result edited": (
        edited("summary.json", "epsilon", {"merchant-1": 0.1}),
        "another result than summary.json",
    ),
    "countersignatures removed": (removed("countersigned.json"), "lists countersigned.json, which is missing"),
    "the manifest removed": (removed("manifest.json"), "manifest.json: is missing"),
    "the manifest edited": (edited("manifest.json", "files", {}), "not as the coordinator signed it"),
    "evidence removed": (removed("evidence/*"), "no evidence for it"),
    "item masks exchanged": (flipped("masks.npz"), "another digest of masks.npz"),
    "heads exchanged": (
        on_every_line(lambda r: r.update(heads={"merchant-1": [3, "ab" * 32]})),
        "another witness",
    ),
    "rounds in another order": (lambda run: put(run, lines(run)[::-1]), "does not follow the record before it"),
    "a round twice": (lambda run: put(run, [lines(run)[0], *lines(run)]), "not the one that comes next"),
    "another state": (on_every_line(lambda r: r.update(state="00" * 32)), "another model than the round before"),
}


@pytest.mark.parametrize("name", BY_A_STRANGER)
@pytest.mark.parametrize("deployed", [True, False])
def test_an_edited_run_folder_is_not_intact(copy: Path, name: str, deployed: bool) -> None:
    trusted = Roster.load(copy / "roster.json")
    assert verify_path(copy, roster=trusted).ok
    edit, words = BY_A_STRANGER[name]
    if deployed:
        shutil.rmtree(copy / "ledgers")
        (copy / "ledgers").mkdir()
    edit(copy)
    verdict = verify_path(copy, roster=trusted)
    assert not verdict.ok
    assert words in " | ".join(str(finding) for finding in verdict.findings)


@pytest.mark.parametrize("what", ["evidence", "attestations", "countersigned.json", "ledgers"])
def test_parts_of_another_run_do_not_fit(runs: tuple[Path, Path], copy: Path, what: str) -> None:
    """Both runs were made by one coordinator, but with other keys of the sites; a federation's roster would be the same."""
    records, others = lines(copy), lines(runs[1])
    if what == "attestations":
        for record, other in zip(records, others, strict=True):
            record[what], record["epsilon"] = other[what], other["epsilon"]
        put(copy, records)
    elif (copy / what).is_dir():
        shutil.rmtree(copy / what)
        shutil.copytree(runs[1] / what, copy / what)
    else:
        shutil.copy(runs[1] / what, copy / what)
    assert not verify_path(copy).ok


def shorter(records: list[RoundRecord]) -> list[RoundRecord]:
    return records[:2]


def better(records: list[RoundRecord]) -> list[RoundRecord]:
    return [replace(record, released=dict.fromkeys(record.released, 0.999)) for record in records]


def cheaper(records: list[RoundRecord]) -> list[RoundRecord]:
    first = records[0]
    return [replace(r, attestations=first.attestations, epsilon=first.epsilon, heads=first.heads) for r in records]


def one_less(records: list[RoundRecord]) -> list[RoundRecord]:
    gone = {"merchant-1"}
    return [
        replace(
            record,
            attestations={site: said for site, said in record.attestations.items() if site not in gone},
            epsilon={site: value for site, value in record.epsilon.items() if site not in gone},
        )
        for record in records
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shorter, "did not sign the last record"),
        (better, "did not sign the last record"),
        (cheaper, "not newer than the one before"),
        (one_less, "has no attestation of it"),
    ],
)
def test_a_coordinator_who_signs_other_records_is_found_too(
    copy: Path, change: Callable[[list[RoundRecord]], list[RoundRecord]], words: str
) -> None:
    sign_again(copy, lambda records: records)
    assert verify_path(copy).findings == []
    sign_again(copy, change)
    assert words in " | ".join(str(finding) for finding in verify_path(copy).findings)


def test_a_sites_own_ledger_shows_what_the_coordinator_left_out(copy: Path, tmp_path: Path) -> None:
    """He cuts the record and throws the sites' last word away: the folder alone is a run that ended early."""
    ledgers = tmp_path / "at-the-sites"
    shutil.move(copy / "ledgers", ledgers)
    (copy / "ledgers").mkdir()
    cut(copy)
    (copy / "countersigned.json").unlink()
    (copy / "manifest.json").unlink()
    for name in ("model.safetensors", "model.json"):
        (copy / name).unlink()
    edited("summary.json", "status", "interrupted")(copy)
    edited("summary.json", "epsilon", lines(copy)[-1]["epsilon"])(copy)
    alone = verify_path(copy)
    assert all(finding.where.startswith("ledgers/") for finding in alone.findings)  # they are at the sites
    assert any("could have been left out" in note.what for note in alone.notes)
    for site in ("merchant-1", "merchant-3"):
        found = verify_path(copy, ledgers=[ledgers / f"{site}.jsonl"]).findings
        assert any("which the records do not show" in finding.what for finding in found)


def test_a_site_that_was_set_back_shows_from_another_sites_record(copy: Path, tmp_path: Path) -> None:
    """A restored copy of a whole state folder: the ledger is intact in itself, but not the one that all sites were shown."""
    ledger = copy / "ledgers" / "merchant-2.jsonl"
    shortened = b"".join(ledger.read_bytes().splitlines(keepends=True)[:3])
    ledger.write_bytes(shortened)
    ledger.with_suffix(".head.json").unlink()
    found = " | ".join(str(finding) for finding in verify_path(copy).findings)
    assert "tail is cut" in found


def test_a_site_is_called_one_that_forked_for_what_it_has_signed_only(copy: Path) -> None:
    """A coordinator can show all sites an entry that never was: then nobody knows whose word is false."""

    def twin(records: list[RoundRecord]) -> list[RoundRecord]:
        heads = {site: (sequence, "ab" * 32) for site, (sequence, _) in records[2].heads.items()}
        return [*records[:2], replace(records[2], heads=heads), *records[3:]]

    sign_again(copy, twin)
    found = " | ".join(str(finding) for finding in verify_path(copy).findings)
    assert "shows two entries" in found and "it is a fork, or the coordinator made it up" in found
    assert "has signed two" not in found


@pytest.mark.parametrize("signed", [True, False])
def test_two_entries_under_one_sequence_are_a_fork_if_the_site_has_signed_both(copy: Path, signed: bool) -> None:
    key = copy / "sites/merchant-1/identity.key"
    site = Identity.load("merchant-1", key) if signed else Identity.generate("merchant-1")

    def twin(records: list[RoundRecord]) -> list[RoundRecord]:
        first, second = (
            SignedAttestation.from_json(r.attestations["merchant-1"]).attestation for r in records[:2]
        )
        other = SignedAttestation.sign(replace(second, sequence=first.sequence, head="ab" * 32), site)
        said = records[1].attestations | {"merchant-1": other.to_json()}
        return [records[0], replace(records[1], attestations=said), *records[2:]]

    sign_again(copy, twin)
    found = " | ".join(str(finding) for finding in verify_path(copy).findings)
    assert ("shows a fork: merchant-1 has signed two different entries" in found) == signed
    for other in ("merchant-2", "merchant-3"):
        assert f"{other} has signed" not in found


def test_where_no_line_is_left_none_is_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs[0], copy)
    put(copy, [])
    found = verify_path(copy).findings
    assert found and not any("line 0" in finding.where for finding in found)
