"""The command line as a whole: exit codes, words, and what a user never sees."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from cli import main as front
from common.errors import BadInputError, BudgetExhaustedError, VerificationError

ROOT = Path(__file__).resolve().parents[2]


def _raising(error: BaseException) -> front.FrontDoor:
    door = front.build()

    @click.command("fail")
    def fail() -> None:
        raise error

    door.get_command = lambda ctx, name: fail if name == "fail" else None  # type: ignore[method-assign]
    return door


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            BadInputError("no such file: x", hint="check the path"),
            2,
            "error: no such file: x\nhint: check the path\n",
        ),
        (BudgetExhaustedError("epsilon 8.1 > 8", hint="ask"), 3, "error: epsilon 8.1 > 8\nhint: ask\n"),
        (VerificationError("entry 3: bad signature"), 1, "error: entry 3: bad signature\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.UsageError("Bad thing."), 2, "error: bad thing\nhint: `fedcart fail --help`"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "error: unexpected ZeroDivisionError: division by zero\nhint: ",
        ),
    ],
)
def test_whatever_happens_becomes_an_error_line_and_the_agreed_exit_code(monkeypatch, capsys, error, code, said):
    monkeypatch.delenv("FEDCART_DEBUG", raising=False)
    door = _raising(error)
    monkeypatch.setattr(front, "build", lambda: door)
    assert front.main(["fail"]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_only_the_debug_switch_shows_a_traceback(monkeypatch, capsys):
    monkeypatch.setenv("FEDCART_DEBUG", "1")
    door = _raising(BadInputError("x", hint="y"))
    monkeypatch.setattr(front, "build", lambda: door)
    assert front.main(["fail"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [[], ["simulte"], ["--nonsense"], ["simulate", "--rounds", "x"], ["simulate", "a", "b"]]
)
def test_bad_usage_is_told_with_error_and_hint(capsys, args):
    assert front.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert not lines[0].endswith(".")
    assert lines[1].startswith("hint: ")


def test_a_misspelt_command_gets_a_guess(capsys):
    front.main(["simulte"])
    assert "did you mean `simulate`" in capsys.readouterr().err


def test_the_overview_lists_only_commands_that_exist(capsys):
    assert front.main(["--help"]) == 0
    out = capsys.readouterr().out
    for entries in front.SECTIONS.values():
        for entry in entries:
            exists = (ROOT / (entry.module.replace(".", "/") + ".py")).is_file()
            assert (f"\n  {entry.name} " in out) == exists


def test_every_listed_command_loads_and_explains_itself():
    door = front.build()
    for name in door.list_commands(click.Context(door)):
        command = door.get_command(click.Context(door), name)
        assert command is not None
        assert command.help or command.get_short_help_str()
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


def test_arguments_are_explained_too(capsys):
    front.main(["simulate", "--help"])
    assert "[SCENARIO]  TOML file" in capsys.readouterr().out


def test_a_foreign_package_named_common_is_refused(tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import cli.main; sys.exit(cli.main.main(['--version']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: the package `common` comes from" in done.stderr
    assert "hint: " in done.stderr


def test_a_closed_pipe_is_no_error_message():
    script = (
        "import sys, click, cli.main as m\n"
        "door = m.build()\n"
        "@click.command('big')\n"
        "def big():\n    print('x' * 1_000_000)\n"
        "door.get_command = lambda ctx, name: big\n"
        "m.build = lambda: door\n"
        "sys.exit(m.main(['big']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_ctrl_c_ends_with_130():
    script = (
        "import sys, time, click, cli.main as m\n"
        "door = m.build()\n"
        "@click.command('wait')\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(30)\n"
        "door.get_command = lambda ctx, name: wait\n"
        "m.build = lambda: door\n"
        "sys.exit(m.main(['wait']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.strip() == b"interrupted"


def test_an_interrupt_inside_an_import_is_exit_code_130_too(tmp_path):
    """CPython remembers an interrupt that went through ``exec`` of a string, and dies of it at the end of a module."""
    script = """import cli.main as front
def interrupted():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return front.INTERRUPTED
front.main = interrupted
"""
    (tmp_path / "interrupted.py").write_text(script + "front.start()")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, env=environment)
    assert run.returncode == 130
