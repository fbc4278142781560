"""The documents hold what they say: commands exist, marked ones run, links lead somewhere, tables are current."""

import contextlib
import doctest
import gzip
import importlib
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest

from cli.main import build, main
from cli.settings import with_settings
from common import VERSION
from tests.tiny_federation import run_tiny

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"\s*```(\w*)")
RUN = "<!-- run -->"
IN_BRACKETS = re.compile(r"[\[\]|…]")


def code(text: str, *, marked: bool = False) -> Iterator[str]:
    """Lines of the shell blocks of a document, in fences or indented by four; only of those marked to be run."""
    inside: str | None = None
    wanted, before = False, ""
    for line in text.replace("\\\n", " ").splitlines():
        if (fence := FENCE.match(line)) is not None:
            inside = fence[1] if inside is None else None
            wanted = before.strip() == RUN
        elif inside in ("sh", "console", "") if inside is not None else line.startswith("    ") and not marked:
            yield from [line] if wanted or not marked else []
        before = line
    assert inside is None, "a block has no end"


def commands(text: str, *, marked: bool = False) -> list[str]:
    """Lines of the code blocks of a document that call fedcart or make; only of those marked to be run."""
    found = []
    for line in code(text, marked=marked):
        call = line.strip().removeprefix("$ ").split(" #")[0].split("   ")[0].strip()
        if call.startswith(("fedcart ", "make ", ".venv/bin/fedcart ")):
            found.append(call.removeprefix(".venv/bin/"))
    return found


def shown() -> list[tuple[str, str]]:
    return [
        (path.name, call)
        for path in DOCUMENTS
        for call in commands(path.read_text())
        if not IN_BRACKETS.search(call)  # a synopsis, not a call
    ]


def parse(call: str) -> None:
    """Parse a call as the program would, without running it. Raises: click.UsageError, ValueError."""
    words = shlex.split(call)[1:]
    words = words[: words.index(">")] if ">" in words else words
    command: click.Command | None = build()
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            return
        name, *words = words
        context = click.Context(command)
        command = command.get_command(context, name)
        if command is None:
            raise click.UsageError(f"no such command: {name}")
    assert command is not None
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context(command.name, words)


@pytest.mark.parametrize(("document", "call"), shown())
def test_every_command_in_the_documents_exists_with_these_options(document, call):
    if call.startswith("make "):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert all(word in targets for word in call.split()[1:] if "=" not in word)
        return
    parse(call)


def test_a_command_that_does_not_exist_would_be_noticed():
    for wrong in ("fedcart simulate --speed 3", "fedcart simulatte", "fedcart simulate --rounds many"):
        with pytest.raises(click.UsageError):
            parse(wrong)


@pytest.mark.full
@pytest.mark.parametrize(
    "document", [p for p in DOCUMENTS if commands(p.read_text(), marked=True)], ids=lambda p: p.name
)
def test_the_marked_commands_of_a_document_run_one_after_another(document, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for call in commands(document.read_text(), marked=True):
        done = subprocess.run(
            ["bash", "-c", call], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{call}: {done.stderr[-2000:]}"


PLACES = {"FILE": "export.csv", "OUT": "market.csv", "shop.csv": "export.csv"}
SMALL = ("data.consumers=900", "data.items=60", "training.local_steps=1", "model.dim=8", "model.hidden=8")
ELSEWHERE = {  # run by other tests: by hand they take minutes
    "fedcart audit self-test": "tests/cli/test_audit_command.py",
    "fedcart demo": "tests/e2e/test_demo.py",
}


def shop(folder: Path) -> None:
    """What the documents take for granted: a shop's log, the public log of purchases, runs and a ledger."""
    rng, kinds = random.Random(1), ("view", "view", "cart", "purchase")
    when = [datetime(2024, 1, 1) + timedelta(minutes=20 * n) for n in range(9_000)]
    lines = [
        f"c{rng.randrange(240)},{t.isoformat()},{rng.choice(kinds)},i{rng.randrange(30)},k{rng.randrange(4)},{rng.randrange(1, 9)},1"
        for t in when
    ]
    (folder / "export.csv").write_text(
        "user_id,timestamp,event,item,category,price,quantity\n" + "\n".join(lines) + "\n"
    )
    lands = ("France", "Spain", "Italy", "Poland")
    invoices = [
        f"{n},S{rng.randrange(40)},THING,{rng.randrange(1, 5)},{t:%Y-%m-%d %H:%M:%S},2.5,{(c := rng.randrange(400))},{lands[c % 4]}"
        for n, t in enumerate(when)
    ]
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    with gzip.open(folder / "online_retail.csv.gz", "wt") as file:
        file.write(header + "\n".join(invoices) + "\n")
    for name in ("RUN", "JANUARY", "FEBRUARY"):
        run_tiny(folder / name, "training.rounds=1")
    shutil.copytree(folder / "RUN" / "ledgers", folder / "LEDGER")


def as_run_here(call: str) -> list[str]:
    """A command of a document, with what it names in capitals, on a model and a market that a test can pay."""
    words = [PLACES.get(word, word) for word in shlex.split(call)[1:]]
    if words[0] == "simulate":
        made_up = "--events" not in words
        words += [w for key in SMALL if made_up or not key.startswith("data") for w in ("--set", key)]
    return words + (["--events", "5000"] if words[:2] == ["data", "synth"] else [])


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["README", "docs/simulate", "docs/data", "docs/audit", "docs/papers", "docs/tasks", "docs/decisions"]
)
def test_the_commands_of_a_document_run_in_an_empty_folder(name, tmp_path, monkeypatch, capfd):
    shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    calls = [c for c in commands((ROOT / f"{name}.md").read_text()) if not IN_BRACKETS.search(c)]
    assert calls
    for call in dict.fromkeys(calls):
        if call in ELSEWHERE or call.startswith("make "):
            continue
        if "--out first" in call:
            shutil.rmtree("first", ignore_errors=True)  # two documents begin with it
        code = main(as_run_here(call))
        assert code == 0, f"{call}: {capfd.readouterr().err[-1500:]}"


def test_commands_that_are_run_elsewhere_are():
    for call, place in ELSEWHERE.items():
        words = call.split()
        assert words[-1] in (ROOT / place).read_text().lower(), place


def test_the_settings_in_the_documents_are_those_of_the_program():
    text = (ROOT / "docs" / "simulate.md").read_text()
    assert with_settings(text) == text, "run: python -m cli.settings docs/simulate.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(document):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", document.read_text(), flags=re.S)
    for target in re.findall(r"\[[^\]]+\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_no_document_names_a_path_of_one_machine(document):
    assert not re.search(r"(/home/|/root/|/work/|/Users/|C:\\\\)", document.read_text())


PACKAGES = ("common", "client", "server", "simulations", "fedcart")


@pytest.mark.parametrize(
    "name",
    sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(r">>> (?!.*\+SKIP)", path.read_text())
    ),
)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def test_docstrings_speak_one_dialect():
    for package in (*PACKAGES, "cli"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"\*\*(Raises|Guarantee|Shapes|Units|Source)", path.read_text()), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_tests_that_a_document_names_are_there(document):
    named = re.findall(r"`(tests/[\w/]+(?:\.py)?/?)`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_version_to_cite_is_the_programs():
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [VERSION]


def test_the_hooks_before_a_commit_are_the_checks_of_make():
    section = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    checks = re.findall(r"\$\(BIN\)/(.+?)(?: \.)?\n", section)  # a hook gets the files, or asks for none
    hooks = re.findall(r"entry: \.venv/bin/(.+?),", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == checks == ["ruff check", "ruff format --check", "mypy"]
