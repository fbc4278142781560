"""``fedcart audit papers``: figures as the audit shows them, each with an origin that can be followed; gaps marked; no paper of a
broken record; nothing that somebody else wrote acts in Markdown, HTML or YAML."""

import hashlib
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from cli.main import main
from cli.report.audit_view import read_audit
from common.audit.papers import QUESTIONS
from common.privacy import PrivacyEvent, show_epsilon
from common.privacy.entries import FIRST_PREVIOUS, Commit, Open, Reserve, make_line
from common.run import RunFolder
from common.trust import Identity
from tests.cli.test_audit_command import make_audited_run
from tests.cli.test_report import Outline
from tests.signed_runs import signed_run

pytestmark = pytest.mark.full

PAPERS = ("dpia", "article-30", "nist-800-226")
MARK = "TO BE FILLED BY A PERSON"
HOSTILE = "</td><script>alert(1)</script> | **x** [a](http://b.c) \n# head\n- `q` \u202eexe \x1b[2J $x$ 1. --- !!python/object: {a"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_audited_run(tmp_path_factory.mktemp("papers") / "run")


def drawn_up(capsys, out: Path, *words: object, code: int = 0) -> dict:
    assert main(["audit", "papers", *map(str, words), "--out", str(out), "--json"]) == code
    out_text, _ = capsys.readouterr()
    return json.loads(out_text) if code == 0 else {}


def ledger_by_hand(path: Path, site: str, events: tuple[PrivacyEvent, ...], delta: float = 1e-5) -> Path:
    """A ledger of one release, its chain and signatures by hand."""
    key = Identity.from_seed("site", b"s" * 32)
    reserve = Reserve(
        run="r", round=1, attempt=1, query="1" * 64, config="2" * 64, code="0", events=events, order=8.0,
        holdout=0.0, split_key="3" * 64,
    )  # fmt: skip
    opening = Open(site=site, scope="people", delta=delta, public_key=key.public_key.hex(), simulated=False)
    previous, lines = FIRST_PREVIOUS, []
    for number, body in enumerate((opening, reserve, Commit(reserve=1, outbox="4" * 64))):
        time = f"2026-03-0{number + 1}T00:00:00Z"
        lines.append(make_line(body, sequence=number, previous=previous, time=time, identity=key))
        previous = json.loads(lines[-1])["hash"]
    path.write_bytes(b"".join(lines))
    return path


def hash_by_hand(line: str) -> str:
    plain = json.loads(line)
    del plain["hash"], plain["signature"]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"fedcart/ledger-entry/1\0" + text.encode()).hexdigest()


def test_the_figures_are_those_of_audit_show(run, tmp_path, capsys):
    made = drawn_up(capsys, tmp_path / "papers", run)
    assert main(["audit", "show", str(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(t["who"], t["epsilon"], t["limit"], t["delta"]) for t in made["totals"]] == [
        (s["site"], s["epsilon"], s["limit"], s["delta"]) for s in shown["sites"]
    ]
    rows = [
        (s["site"], r["round"], r["epsilon_this_round"], r["epsilon_so_far"])
        for s in shown["sites"]
        for r in s["rows"]
    ]
    assert [(r["site"], r["round"], r["epsilon"], r["so_far"]) for r in made["releases"]] == rows
    assert [row["epsilon"] for row in made["together"]] == [
        shown["statement"]["cross_site"]["disjoint"], shown["statement"]["cross_site"]["everywhere"],
    ]  # fmt: skip
    assert made["simulated"] and made["private"] and made["intact"]


def test_every_figure_names_an_entry_or_a_record_that_can_be_followed(run, tmp_path, capsys):
    made = drawn_up(capsys, tmp_path / "papers", run)
    records = {record.round: record for record in RunFolder(run).metrics()}
    followed = 0
    for figure in [*made["totals"], *made["releases"]]:
        assert figure["references"]
        for one in figure["references"]:
            if one["kind"] == "record":
                assert records[one["number"]].digest == one["digest"]
            else:  # an attested entry is in the ledger too
                lines = (run / "ledgers" / f"{one['site']}.jsonl").read_text().splitlines()
                assert json.loads(lines[one["number"]])["sequence"] == one["number"]
                assert hash_by_hand(lines[one["number"]]) == one["digest"]
            followed += 1
    assert followed > 10
    for name in PAPERS:
        text = (tmp_path / "papers" / f"{name}.md").read_text()
        used = set(re.findall(r"\\\[(\d+)\\\]", text))
        listed = re.findall(r"^\| (\d+) \| .* `([0-9a-f]{64})` \|$", text, re.M)
        assert {number for number, _ in listed} == used != set()
        for row in (line for line in text.splitlines() if line.startswith("| ") and "7." in line):
            assert "\\[" in row, row


def test_without_ledgers_the_attested_entries_are_named(tmp_path, capsys):
    run = make_audited_run(tmp_path / "run", rounds=1, simulated=False)
    ledgers = {file.stem: file.read_text().splitlines() for file in (run / "ledgers").iterdir()}
    for file in (run / "ledgers").iterdir():
        file.unlink()
    made = drawn_up(capsys, tmp_path / "papers", run)
    for total in made["totals"]:
        record, entry = total["references"]
        assert record["kind"] == "record"
        assert hash_by_hand(ledgers[total["who"]][entry["number"]]) == entry["digest"]


def test_a_ledger_made_by_hand_has_the_known_epsilon(tmp_path, capsys):
    file = ledger_by_hand(tmp_path / "shop.jsonl", "shop", (PrivacyEvent(1.0, 1.0, 1),))
    made = drawn_up(capsys, tmp_path / "papers", file)
    (total,) = made["totals"]
    assert total["epsilon"] == pytest.approx(4.377178, abs=2e-6)  # a Gaussian of sigma 1 at delta 1e-5
    assert "4.378" in (tmp_path / "papers" / "nist-800-226.md").read_text()
    end = file.read_text().splitlines()[2]
    assert total["references"] == [
        {
            "kind": "ledger",
            "run": "shop",
            "file": "shop.jsonl",
            "number": 2,
            "digest": hash_by_hand(end),
            "site": "shop",
        }
    ]
    entry = yaml.safe_load((tmp_path / "papers" / "opendp-deployment.yaml").read_text())
    assert entry["deployment"]["privacy_loss"]["privacy_parameters"] == {
        "epsilon": total["epsilon"],
        "delta": 1e-5,
    }
    assert entry["deployment"]["basic"]["publication_date"] == "2026-03-02"


def test_shared_noise_shows_both_figures_and_what_is_trusted(tmp_path, capsys):
    file = ledger_by_hand(tmp_path / "shop.jsonl", "shop", (PrivacyEvent(1.0, 1.0, 1, honest=4, colluders=2),))
    made = drawn_up(capsys, tmp_path / "papers", file)
    (total,) = made["totals"]
    assert total["epsilon"] < total["alone"] == pytest.approx(4.377178, abs=2e-3)
    audit = read_audit(file)
    trust = next(s.sentences[0] for s in audit.statement.sections if s.title == "Trust model")
    for name in ("dpia", "nist-800-226"):
        text = (tmp_path / "papers" / f"{name}.md").read_text()
        row = (
            f"| shop | {show_epsilon(total['epsilon'], 3)} | the server and up to 2 other sites together | 4.378 |"
        )
        assert row.replace("4.378", show_epsilon(total["alone"], 3)) in text
        assert "4.378" in text and trust in text
    entry = yaml.safe_load((tmp_path / "papers" / "opendp-deployment.yaml").read_text())
    loss = entry["deployment"]["privacy_loss"]
    assert loss["privacy_parameters"]["epsilon"] == total["epsilon"]
    assert (
        f"if no other site is honest: epsilon {show_epsilon(total['alone'], 3)}"
        in loss["privacy_parameters_details"]
    )


def test_one_changed_byte_in_the_record_gives_no_papers(tmp_path, capsys):
    run = make_audited_run(tmp_path / "run", rounds=1)
    metrics = run / "metrics.jsonl"
    text = metrics.read_text()
    place = text.index('"epsilon_after":') + len('"epsilon_after":')
    metrics.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    drawn_up(capsys, tmp_path / "papers", run, code=1)
    assert main(["audit", "papers", str(run), "--out", str(tmp_path / "papers")]) == 1
    err = capsys.readouterr().err
    assert "error: no papers: run: " in err
    assert str(read_audit(run).verdict.findings[0]) in err
    assert not (tmp_path / "papers").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_without_privacy_says_so_in_every_paper(tmp_path, capsys):
    folder = RunFolder.create(tmp_path / "run")
    sites = {name: Identity.from_seed(name, name.encode().ljust(32, b"-")) for name in ("north", "south")}
    open_run = signed_run(folder, sites, ["privacy.enabled=false"], (0.0, 0.0))
    open_run.append(1, {}, private=False, aborted="lost", plausible={})
    made = drawn_up(capsys, tmp_path / "papers", folder.path)
    assert made["totals"] == [] and not made["private"]
    assert len(made["files"]) == 7
    for name in made["files"]:
        mark = {"md": "> **NOT PRIVATE**: ", "html": "<b>NOT PRIVATE</b>", "yaml": 'name: "NOT PRIVATE: '}[
            name.split(".")[1]
        ]
        assert mark in (tmp_path / "papers" / name).read_text(), name
    entry = yaml.safe_load((tmp_path / "papers" / "opendp-deployment.yaml").read_text())
    assert set(entry["deployment"]) == {"basic", "administrative"}


def test_a_coordinators_kit_stands_for_all_its_runs_and_they_add_up_as_the_audit_says(tmp_path, capsys):
    runs = [make_audited_run(tmp_path / "kit" / "runs" / name, rounds=n) for name, n in (("a", 1), ("b", 2))]
    made = drawn_up(capsys, tmp_path / "papers", tmp_path / "kit")
    assert main(["audit", "show", *map(str, runs), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [t["epsilon"] for t in made["totals"]] == [scope["epsilon"] for scope in shown["scopes"]]
    assert max(t["epsilon"] for t in made["totals"]) == shown["epsilon"]
    assert all(len(total["references"]) == 2 for total in made["totals"])


def test_over_several_ledgers_no_figure_in_any_paper_is_below_their_sum(tmp_path, capsys):
    files = []
    for name, event in (
        ("one", PrivacyEvent(1.0, 1.0, 1)),
        ("two", PrivacyEvent(1.0, 1.0, 1, honest=4, colluders=2)),
    ):
        (tmp_path / name).mkdir()
        files.append(ledger_by_hand(tmp_path / name / f"{name}.jsonl", name, (event,)))
    made = drawn_up(capsys, tmp_path / "papers", *files)
    (total,) = made["totals"]  # both are of the scope "people"
    said = yaml.safe_load((tmp_path / "papers" / "opendp-deployment.yaml").read_text())["deployment"]
    figures = re.findall(r"epsilon (\d+\.\d+)", said["deployment_model"]["actors"])
    assert figures and {float(figure) >= total["epsilon"] for figure in figures} == {True}
    for name in PAPERS[::2]:
        text = (tmp_path / "papers" / f"{name}.md").read_text()
        assert "holds against everybody" not in text and "whoever commands no more sites" in text


def test_a_delta_is_written_out_and_never_rounded(tmp_path, capsys):
    file = ledger_by_hand(tmp_path / "shop.jsonl", "shop", (PrivacyEvent(1.0, 1.0, 1),), delta=1.2345644e-05)
    drawn_up(capsys, tmp_path / "papers", file)
    for name in ("dpia.md", "nist-800-226.html", "opendp-deployment.yaml"):
        text = (tmp_path / "papers" / name).read_text()
        assert "1.2345644e-05" in text and "1.23456e-05" not in text


def test_the_statement_is_word_for_word_that_of_the_audit(run, tmp_path, capsys):
    drawn_up(capsys, tmp_path / "papers", run)
    words = " ".join(Outline((tmp_path / "papers" / "nist-800-226.html").read_text()).words)
    statement = read_audit(run).statement
    sentences = [s for section in statement.sections for s in section.sentences]
    for sentence in (*sentences, *statement.assumptions, *statement.not_covered):
        assert sentence in words
    for one in statement.adversaries:
        assert one.sees in words and one.why in words


def test_what_nobody_has_said_is_marked_and_listed_and_what_somebody_says_is_shown_as_such(run, tmp_path, capsys):
    details = tmp_path / "details.toml"
    assert main(["audit", "papers", "--write-details", str(details)]) == 0
    capsys.readouterr()
    assert main(["audit", "papers", "--write-details", str(details)]) == 2  # it may have answers in it
    capsys.readouterr()
    empty = drawn_up(capsys, tmp_path / "empty", run, "--details", details)
    assert set(empty["gaps"]) == {question.key for question in QUESTIONS}
    for name in PAPERS[:2]:
        text = (tmp_path / "empty" / f"{name}.md").read_text()
        body, listed = text.split("## What a person must still fill")
        assert body.count(f"**{MARK}** (`") == listed.count(f"**{MARK}** (`") > 0
    answers = "".join(
        f'{line[:-2]}"A{n}"\n' if line.endswith('""') else f"{line}\n"
        for n, line in enumerate(details.read_text().splitlines())
    )
    details.write_text(re.sub('published = ".*"', "published = 2026-05-01", answers))
    full = drawn_up(capsys, tmp_path / "full", run, "--details", details)
    assert full["gaps"] == {}
    for name in PAPERS[:2]:
        text = (tmp_path / "full" / f"{name}.md").read_text()
        assert MARK not in text
        assert "*(stated by a person, not by the record)*" in text
        assert text.rstrip().split("## What a person must still fill")[1].strip().startswith("Nothing.")
    entry = (tmp_path / "full" / "opendp-deployment.yaml").read_text()
    assert MARK not in entry and "2026-05-01" in entry


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[controler]\nname = "x"', "nothing asks for controler.name"),
        ("[controller]\nname = 3", "controller.name is not a text"),
        ('name = "x"', "is in no table"),
        ("[controller", "is not valid TOML"),
        ('[registry]\npublished = "soon"', "is no day"),
    ],
)
def test_details_that_cannot_be_meant_are_refused_before_the_work(text, words, run, tmp_path, capsys):
    (tmp_path / "details.toml").write_text(text)
    code = main(
        ["audit", "papers", str(run), "--out", str(tmp_path / "p"), "--details", str(tmp_path / "details.toml")]
    )
    assert code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_an_existing_folder_is_replaced_only_when_forced_and_keeps_what_is_not_ours(run, tmp_path, capsys):
    out = tmp_path / "papers"
    drawn_up(capsys, out, run)
    (out / "dpia.md").write_text("old")
    (out / "mine.txt").write_text("mine")
    drawn_up(capsys, out, run, code=2)
    assert (out / "dpia.md").read_text() == "old"
    drawn_up(capsys, out, run, "--force")
    assert (out / "dpia.md").read_text().startswith("# Data protection impact assessment")
    assert (out / "mine.txt").read_text() == "mine"
    assert {path.suffix for path in out.iterdir()} == {".md", ".html", ".yaml", ".txt"}


def test_names_and_answers_of_others_do_nothing(tmp_path, capsys):
    file = ledger_by_hand(tmp_path / "shop.jsonl", HOSTILE[:190], (PrivacyEvent(1.0, 1.0, 1),))
    details = tmp_path / "details.toml"
    keys = {question.key for question in QUESTIONS} - {"registry.published"}
    details.write_text(as_toml(keys))
    drawn_up(capsys, tmp_path / "papers", file, "--details", details)
    for name in PAPERS:
        page = (tmp_path / "papers" / f"{name}.html").read_text()
        outline = Outline(page)
        assert all(link.startswith("#from-") for link in outline.fetched)
        assert "alert(1)" in " ".join(outline.words)
        text = (tmp_path / "papers" / f"{name}.md").read_text()
        assert "\x1b" not in text + page and "\u202e" not in text + page
        kinds = kinds_in(text)
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "fence", "hr", "ordered_list_open"}
        assert "head" not in {line.strip("# ") for line in text.splitlines() if line.startswith("#")}
    entry = yaml.safe_load((tmp_path / "papers" / "opendp-deployment.yaml").read_text())
    said = entry["deployment"]["basic"]["intended_use"]
    assert "alert(1)" in said
    assert not kinds_in(said) & {"html_inline", "html_block", "link_open", "heading_open", "bullet_list_open"}


def as_toml(keys: set[str]) -> str:
    text = ""
    for table in sorted({key.split(".")[0] for key in keys}):
        text += f"[{table}]\n"
        text += "".join(
            f"{key.split('.')[1]} = {json.dumps(HOSTILE)}\n" for key in sorted(keys) if key.startswith(f"{table}.")
        )
    assert tomllib.loads(text)
    return text


def kinds_in(text: str) -> set[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return {one.type for token in tokens for one in (token, *(token.children or ()))}


def problems(value: object, schema: dict, where: str = "") -> list[str]:
    """What of a JSON schema does not hold, as far as the registry's schema goes."""
    kinds = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int}
    asked = schema.get("type")
    found = []
    if asked and not any(isinstance(value, kinds[one]) for one in ([asked] if isinstance(asked, str) else asked)):
        return [f"{where} is no {asked}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value!r}")
    if isinstance(value, dict):
        own = schema.get("properties", {})
        found += [f"{where} lacks {name}" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{where} has {name}" for name in value if name not in own]
        found += [
            p for name, one in value.items() if name in own for p in problems(one, own[name], f"{where}.{name}")
        ]
    if isinstance(value, list):
        found += [f"{where} is too short"] if len(value) < schema.get("minItems", 0) else []
        found += [
            p for n, one in enumerate(value) for p in problems(one, schema.get("items", {}), f"{where}[{n}]")
        ]
    if schema.get("format") == "date":
        found += [] if re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)) else [f"{where} is no date"]
    return found


SCHEMA = Path(os.environ.get("FEDCART_DATA_DIR", "missing")) / "registry" / "deployments-schema.yaml"


@pytest.mark.skipif(not SCHEMA.is_file(), reason="the registry's schema is not in FEDCART_DATA_DIR")
def test_the_entry_is_valid_by_the_registrys_public_schema(run, tmp_path, capsys):
    schema = yaml.safe_load(SCHEMA.read_text())
    drawn_up(capsys, tmp_path / "papers", run)
    entry = yaml.safe_load((tmp_path / "papers" / "opendp-deployment.yaml").read_text())
    assert problems(entry, schema) == []
    assert entry["tier"] == 3
    assert problems(entry | {"tier": 9, "more": 1}, schema) == [" has more", ".tier is 9"]
