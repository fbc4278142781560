"""Run folders made to deceive who reads them, or the reader itself: each is called broken, by the name of what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import main
from common.audit.verify import verify_path
from common.limits import LENGTH
from common.run.records import FaultRecord, RoundRecord, Shortened, SiteRound
from common.trust.identity import Identity, Roster
from tests.forged_runs import Edit, coordinator_of, lines, put, sign_again

pytestmark = pytest.mark.full
Figures = dict[str, tuple[float, float]]


def in_json(name: str, change: Callable[[Any], object]) -> Edit:
    def edit(run: Path) -> None:
        plain = json.loads((run / name).read_text())
        change(plain)
        (run / name).write_text(json.dumps(plain, sort_keys=True, separators=(",", ":")))

    return edit


def in_text(name: str, change: Callable[[str], str]) -> Edit:
    def edit(run: Path) -> None:
        text = (run / name).read_text()
        assert change(text) != text
        (run / name).write_text(change(text))

    return edit


def twice(name: str, first: str) -> Edit:
    """A name a second time, before the true one: this reader takes the last, another the first."""
    return in_text(name, lambda text: f"{{{first},{text.lstrip()[1:]}")


def resigned(change: Callable[[list[RoundRecord]], list[RoundRecord]]) -> Edit:
    return lambda run: sign_again(run, change)


def second(**changes: Any) -> Edit:
    """The second record changed, all signed anew by the coordinator."""
    return resigned(lambda records: [records[0], replace(records[1], **changes), *records[2:]])


def judged(change: Callable[[Figures], Figures]) -> Edit:
    """What the second sum was judged by changed, all signed anew by the coordinator."""
    return resigned(
        lambda records: [records[0], replace(records[1], plausible=change(records[1].plausible)), *records[2:]]
    )


def lines_of_item_rows(run: Path) -> int:
    return len(np.load(run / "item_of.npy"))


def in_bytes(name: str, content: bytes) -> Edit:
    return lambda run: (run / name).write_bytes(content)


def without_round_two(run: Path) -> None:
    (run / "evidence/round-00002.json").unlink()
    gone = {f"merchant-{n}": SiteRound("lost", "late", "mask") for n in (1, 2, 3)}
    second(aborted="too-few-mask", evidence="", sites=gone, released={})(run)


def a_newer_roster(run: Path) -> None:
    before = Roster.load(run / "roster.json")
    parties = [(party.name, party.public_key) for party in before.sites]
    extra = ("merchant-9", Identity.generate("merchant-9").public_key)
    Roster.signed_by(coordinator_of(run), [*parties, extra], before).save(run / "roster.json")
    sign_again(run, lambda records: records)


def swapped_ledgers(run: Path) -> None:
    one, two = run / "ledgers/merchant-1.jsonl", run / "ledgers/merchant-2.jsonl"
    one.rename(run / "aside")
    two.rename(one)
    (run / "aside").rename(two)


FORGED: dict[str, tuple[Edit, str]] = {
    "a smaller epsilon in a record, signed": (
        second(epsilon=dict.fromkeys(["merchant-1", "merchant-2", "merchant-3"], 0.1)),
        "epsilon",
    ),
    "a rival blamed without a proof, signed": (
        second(faults=(FaultRecord("merchant-2", "", "bad-dealing", 1),)),
        "other faults than those that are proven",
    ),
    "a site that never was, in the sum, signed": (
        second(sites={"merchant-9": SiteRound("ok")}),
        "merchant-9, not in the plan",
    ),
    "no heads, signed": (second(heads={}), "with another witness"),
    "limits of what is plausible raised, signed": (
        judged(lambda figures: {name: (seen, 1e9) for name, (seen, _) in figures.items()}),
        "judged by a laxer limit than the plan's: largest coordinate, 1e+09",
    ),
    "a limit of what is plausible left out, signed": (
        judged(lambda figures: dict(sorted(figures.items())[1:])),
        "not judged by what the plan says: other figures",
    ),
    "an impossible sum that was not refused, signed": (
        judged(lambda figures: {name: (limit + 1, limit) for name, (_, limit) in figures.items()}),
        "was not refused, and shows what no honest sites make: first number",
    ),
    "an unusual sum that was not shortened, signed": (
        judged(lambda figures: {name: (0.99 * limit, limit) for name, (_, limit) in figures.items()}),
        "and does not say that it was shortened",
    ),
    "an update shortened to more than is usual, signed": (
        second(shortened={LENGTH: Shortened(1e3, 1e2)}),
        "shortened by another limit than the plan's: length of the update, to 100",
    ),
    "an update shortened that was shorter, signed": (
        second(shortened={LENGTH: Shortened(1e-3, 1e-2)}),
        "says that length of the update was shortened from 0.001 to 0.01",
    ),
    "an evaluation shortened, signed": (
        resigned(lambda records: [*records[:-1], replace(records[-1], shortened={LENGTH: Shortened(1.0, 0.1)})]),
        "says that an update was shortened, and there is none",
    ),
    "rows of items that no mask has": (
        lambda run: np.save(run / "item_of.npy", np.full(lines_of_item_rows(run), 2_000_000_000, dtype=np.int32)),
        "item rows are not those of the masks",
    ),
    "masks of other items": (
        lambda run: np.savez(run / "masks.npz", **{f"merchant-{n}": np.ones(3, dtype=bool) for n in (1, 2, 3)}),
        "item rows are not those of the masks",
    ),
    "masks without end": (
        lambda run: np.savez_compressed(run / "masks.npz", **{"merchant-1": np.ones(10**8, dtype=bool)}),
        "item masks are larger than the plan's",
    ),
    "masks that are none": (in_bytes("masks.npz", b"no zip"), "damaged"),
    "a sum said to be refused for nothing, signed": (
        second(aborted="implausible", released={}),
        "was refused, and shows nothing that honest sites do not make",
    ),
    "a sum said to have failed, signed": (without_round_two, "changed the model"),
    "a newer roster, all signed": (a_newer_roster, "roster"),
    "a name twice in a record": (
        in_text("metrics.jsonl", lambda t: t.replace('"epsilon":', '"epsilon":{"merchant-1":0.01},"epsilon":', 1)),
        "metrics.jsonl, line 1: is not written as a record is",
    ),
    "blanks in the records": (
        lambda run: (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines(run))),
        "metrics.jsonl, line 1: is not written as a record is",
    ),
    "other ends of lines": (
        lambda run: (run / "metrics.jsonl").write_bytes(
            (run / "metrics.jsonl").read_bytes().replace(b"\n", b"\r\n")
        ),
        "is not written as a record is",
    ),
    "half a line after the last": (
        in_text("metrics.jsonl", lambda t: t + '{"round": 9, "epsilon": {"merchant-1": 0.001}}'),
        "metrics.jsonl, line 5: is half a line",
    ),
    "a name twice in the summary": (twice("summary.json", '"epsilon":{"merchant-1":0.01}'), "summary.json"),
    "a name twice in the manifest": (twice("manifest.json", '"result":{}'), "manifest.json"),
    "another remark in the summary": (
        in_json("summary.json", lambda plain: plain.update(notes=["nothing was released"])),
        "another result than summary.json",
    ),
    "a public figure in the summary": (
        in_json("summary.json", lambda plain: plain["metrics"].update(public={"consumers": 9.0})),
        "another result than summary.json",
    ),
    "an error that never was": (
        in_json("summary.json", lambda plain: plain.update(error="x", exit_code=3)),
        "another result than summary.json",
    ),
    "no summary": (lambda run: (run / "summary.json").unlink(), "summary.json is missing"),
    "a smaller epsilon among the facts": (
        in_json("sites.json", lambda plain: plain.update(epsilon_target=0.1)),
        "another digest of sites.json",
    ),
    "more noise among the facts": (
        in_json("sites.json", lambda plain: plain.update(noise_multiplier=99.0)),
        "another digest of sites.json",
    ),
    "other assumptions among the facts": (
        in_json("sites.json", lambda plain: plain.update(assumptions=[])),
        "another digest of sites.json",
    ),
    "no facts": (lambda run: (run / "sites.json").unlink(), "lists sites.json, which is missing"),
    "left out: no list of names": (
        lambda run: (run / "left-out.json").write_text('{"left_out":{"checkpoints":1}}'),
        "left-out.json",
    ),
    "evidence said to be left out": (
        lambda run: (
            (run / "left-out.json").write_text('{"left_out":["evidence"]}'),
            shutil.rmtree(run / "evidence"),
        ),
        "no evidence for it",
    ),
    "a ledger under another's name": (swapped_ledgers, "merchant-1.jsonl"),
    "a ledger of a site that never was": (
        lambda run: shutil.copy(run / "ledgers/merchant-1.jsonl", run / "ledgers/stranger.jsonl"),
        "stranger.jsonl: ",
    ),
}


def found(run: Path, roster: Roster) -> str:
    return " | ".join(str(finding) for finding in verify_path(run, roster=roster).findings)


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_run_folder_is_called_broken_by_name(copy: Path, name: str) -> None:
    trusted = Roster.load(copy / "roster.json")
    edit, words = FORGED[name]
    edit(copy)
    assert words in found(copy, trusted)


def other_weights(run: Path, _other: Path) -> None:
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "model.safetensors").write_bytes(bytes(weights))


def of_the_other_run(*names: str) -> Callable[[Path, Path], None]:
    def put(run: Path, other: Path) -> None:
        for name in names:
            shutil.copy(other / name, run / name)

    return put


def one_that_he_signs(run: Path, _other: Path) -> None:
    """Other parameters, and a description of them signed as the true one was."""
    from common.model.parameters import load_model, save_model

    vector, layout, metadata = load_model(run)
    save_model(run, vector + 1, layout, metadata, coordinator_of(run))


def a_best_one(run: Path, _other: Path) -> None:
    from common.model.parameters import load_model, save_model

    vector, layout, metadata = load_model(run)
    save_model(run / "best", vector + 1, layout, metadata, coordinator_of(run))


@pytest.mark.parametrize(
    ("exchange", "words"),
    [
        (other_weights, "does not have the digest"),
        (of_the_other_run("model.json"), "model.json: "),
        (of_the_other_run("model.json", "model.safetensors"), "another coordinator"),
        (one_that_he_signs, "model.json: is another model than the records, which the sites signed, say it is"),
        (a_best_one, "best/model.json: is another model"),
        (
            of_the_other_run("checkpoints/round-00003.safetensors"),
            "holds another state than the record of round 3",
        ),
    ],
)
def test_not_even_the_coordinator_can_put_another_model_into_a_run_that_is_over(
    runs: tuple[Path, Path], copy: Path, exchange: Callable[[Path, Path], None], words: str
) -> None:
    exchange(copy, runs[1])
    sign_again(copy, lambda records: records)  # a manifest over what is there now
    assert words in found(copy, Roster.load(copy / "roster.json"))


READ = (
    "summary.json", "plan.json", "manifest.json", "countersigned.json", "roster.json", "sites.json", "left-out.json",
    "evidence/round-00001.json", "metrics.jsonl", "ledgers/merchant-1.jsonl", "ledgers/merchant-1.head.json", "market.json",
    "proofs/round-00001.json", "run.toml", "model.json", "model.safetensors", "checkpoints/round-00003.safetensors",
)  # fmt: skip
UNREADABLE: dict[str, bytes] = {
    "nested without end": b"[" * 100_000 + b"\n",
    "nested without end, as a setting": b"a = " + b"[" * 100_000 + b"\n",
    "no text": b"\xff\xfe\x00\n",
    "a list": b"[]\n",
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}\n",
    "such a number as a setting": b"a = " + b"9" * 5_000 + b"\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", READ)
def test_a_file_that_cannot_be_read_is_a_finding_and_no_error(copy: Path, name: str) -> None:
    trusted, whole = (
        Roster.load(copy / "roster.json"),
        (copy / name).read_bytes() if (copy / name).exists() else None,
    )
    for content in UNREADABLE.values():
        (copy / name).write_bytes(content)
        assert found(copy, trusted), content[:9]
    if whole is not None:
        (copy / name).write_bytes(whole)
        assert not found(copy, trusted)


def a_word(run: Path, name: str, *keys: str) -> None:
    """A word where a figure belongs."""
    lines_of = (run / name).read_text().splitlines() if name.endswith("l") else [(run / name).read_text()]
    plain = json.loads(lines_of[0])
    inner = plain
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = "\x1b[2J"
    (run / name).write_text("\n".join([json.dumps(plain), *lines_of[1:]]) + "\n")


@pytest.mark.parametrize(
    "place",
    [
        ("summary.json", "seconds"), ("summary.json", "exit_code"), ("summary.json", "epsilon", "merchant-1"),
        ("summary.json", "metrics", "released", "loss"), ("summary.json", "baselines", "popularity", "mrr@20"),
        ("summary.json", "aggregation"), ("metrics.jsonl", "released", "loss"), ("metrics.jsonl", "epsilon", "merchant-1"),
        ("metrics.jsonl", "seconds"), ("metrics.jsonl", "round"), ("metrics.jsonl", "oracle", "loss"),
        ("sites.json", "noise_multiplier"), ("sites.json", "rounds"), ("sites.json", "epsilon_target"),
    ],
)  # fmt: skip
def test_a_word_in_the_place_of_a_figure_stops_no_command(
    copy: Path, runs: tuple[Path, Path], place: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    if place == ("summary.json", "aggregation"):
        in_json("summary.json", lambda plain: plain.update(aggregation=7))(copy)
    else:
        a_word(copy, *place)
    for command in (["audit", "show"], ["audit", "verify"], ["report"], ["compare", str(runs[1])]):
        assert main([*command, str(copy)]) in (0, 1, 2)
    said = capsys.readouterr()
    assert "unexpected" not in said.err and "\x1b" not in said.out + said.err


@pytest.mark.parametrize(
    "said", [7, "x", {}, {"attestation": 7}, {"attestation": {}}, {"attestation": {"simulated": {}}}]
)
def test_an_attestation_that_is_none_stops_no_command(
    copy: Path, runs: tuple[Path, Path], said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = lines(copy)
    records[0]["attestations"]["merchant-1"] = said
    put(copy, records)
    for command in (["audit", "show"], ["audit", "verify"], ["report"], ["compare", str(runs[1])]):
        assert main([*command, str(copy)]) in (0, 1, 2)
    assert "unexpected" not in capsys.readouterr().err
