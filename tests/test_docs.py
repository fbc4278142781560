"""The documents hold what they say: commands exist, marked ones run, links lead somewhere, tables are current."""

import contextlib
import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli.main import build
from cli.settings import with_settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- run -->\n)?```(sh|console|)\n(.*?)```", re.S)
IN_BRACKETS = re.compile(r"[\[\]|…]")


def commands(text: str, *, marked: bool = False) -> list[str]:
    """Lines of the code blocks of a document that call fedcart or make; only of those marked to be run."""
    found = []
    for mark, _, body in BLOCK.findall(text):
        if marked and not mark:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            call = line.removeprefix("$ ").split(" #")[0].split("   ")[0].strip()
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
