"""The house: who may import whom, where third parties may live, and what a quick answer may not load.

The rules are those of the design page 00-overview; a broken one is named with its file.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import common.model_files as model_files
from cli.main import SECTIONS
from common.run import hold, paths

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "common": set[str](),
    "client": {"common"},
    "server": {"common"},
    "simulations": {"common", "client", "server"},
    "cli": {"common", "client", "server", "simulations", "fedcart"},
    "fedcart": {"common", "client", "server", "simulations"},
}
FLOORS = (  # inside common: a file imports from its own line and from those above it
    ("errors", "bounds", "cbor"),
    ("wire", "atomic", "processes", "plain_text", "strict_json", "house", "source_settings"),
    ("trust",),
    ("privacy",),
    ("contribution",),
    ("secagg",),
    ("data",),
    ("tasks",),
    ("extensions", "model_files", "recipes"),
    ("run",),
    ("model",),
    ("limits",),
    ("deployment", "flower", "local_log"),
    ("supervisor", "kit_files"),
    ("audit", "pages"),
)
CONFINED = {
    "cryptography": ("common/trust/",),
    "opacus": ("client/training/dpsgd/",),
    "flwr": (
        "common/flower.py",
        "client/app.py",
        "client/runtime/",
        "server/app.py",
        "server/exchange.py",
        "server/runtime/",
        "simulations/",
    ),
}
NEVER = {
    "common/privacy/": ("torch", "flwr", "opacus", "common.secagg"),
    "common/secagg/": ("torch", "flwr", "opacus", "common.privacy"),
    "server/secure_sum.py": ("torch",),
}
NOT_AT_IMPORT_TIME = {"torch": ("cli/", "fedcart/", "client/app.py", "server/app.py")}
HEAVY = ("torch", "flwr", "polars", "opacus", "sklearn", "scipy", "dp_accounting", "ray")


def sources() -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for package in LAYERS
        for path in sorted((ROOT / package).rglob("*.py"))
    }


SOURCES = sources()


@cache
def imports(name: str) -> tuple[tuple[str, bool], ...]:
    """(module, whether at import time) of every import of a file."""
    tree = SOURCES[name]
    found: list[tuple[str, bool]] = []
    package = name.removesuffix(".py").removesuffix("/__init__").split("/")

    def visit(node: ast.AST, now: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, now) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + name.endswith("__init__.py")] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            found.append((base, now))
            found.extend((f"{base}.{alias.name}", now) for alias in node.names)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            visit(child, now and not later)

    visit(tree, True)
    return tuple(found)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_down_and_third_parties_stay_where_they_belong(name):
    layer = name.split("/")[0]
    for module, at_import in imports(name):
        first = module.split(".")[0]
        assert first not in LAYERS or first == layer or first in LAYERS[layer], f"{name} imports {module}"
        assert first not in ("tests", "benchmarks"), f"{name} imports {module}"
        assert first not in CONFINED or name.startswith(CONFINED[first]), f"{name} imports {module}"
        for place, banned in NEVER.items():
            if name.startswith(place):
                assert not any(within(module, b) for b in banned), f"{name} imports {module}"
        places = NOT_AT_IMPORT_TIME.get(first, ())
        assert not (at_import and places and name.startswith(places)), f"{name} imports {module} at import time"


def floor(module: str) -> int:
    part = module.removesuffix(".py").replace("/", ".").split(".")[1]
    return next(k for k, parts in enumerate(FLOORS) if part in parts)


ROOMS = {
    package: {
        alias.name
        for node in ast.walk(SOURCES[f"{package.replace('.', '/')}/__init__.py"])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for package in (
        "client.guard",
        "common.data",
        "common.model",
        "common.privacy",
        "common.run",
        "common.tasks",
        "common.trust",
    )
}
"""Packages that offer names themselves."""


@pytest.mark.parametrize("package", ROOMS)
def test_what_a_package_offers_is_taken_from_it(package):
    assert ROOMS[package]
    inside = package.replace(".", "/") + "/"
    for name in SOURCES:
        past = [
            m for m, _ in imports(name) if m.startswith(package + ".") and m.rsplit(".", 1)[1] in ROOMS[package]
        ]
        past = [m for m in past if m.rsplit(".", 1)[0] != package]
        assert name.startswith(inside) or not past, f"{name} imports {past}: take them from {package}"


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith("common/") and n != "common/__init__.py"])
def test_arrows_inside_common_point_down(name):
    for module, _ in imports(name):
        if module.startswith("common.") and (ROOT / module.replace(".", "/")).parent.is_dir():
            assert floor(module) <= floor(name), f"{name} imports {module}, which stands above it"


RUN_FILES = {
    value: key
    for module in (paths, hold, model_files)
    for key, value in vars(module).items()
    if key.endswith("_FILE") and isinstance(value, str)
}


def constants(tree: ast.Module) -> set[str]:
    """String constants of a file that are not docstrings, f-strings included."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in SOURCES
        if not n.startswith("common/run/") and n not in ("common/model_files.py", "common/trust/identity.py")
    ],
)
def test_only_the_room_of_a_run_names_its_files(name):
    named = RUN_FILES.keys() & constants(SOURCES[name])
    assert not named, f"{name} names {sorted(named)}: import {[RUN_FILES[n] for n in sorted(named)]}"


KIT_FILES = {
    "site.toml",
    "policy.toml",
    "coordinator.toml",
    "ledger.jsonl",
    "identity.key",
    "node.key",
    "consumers.key",
}


@pytest.mark.parametrize(
    "name", [n for n in SOURCES if n not in ("common/deployment/kit.py", "common/trust/identity.py")]
)
def test_only_one_place_names_the_files_of_a_kit(name):
    named = {
        word for word in constants(SOURCES[name]) if word in KIT_FILES or word.startswith((".head.", "round-0"))
    }
    assert not named - ({".head.json"} if name == "common/privacy/attestation.py" else set()), (
        f"{name} names {named}: see SiteKit, Kits, common.trust.identity and common.run.round_file"
    )


def test_the_names_of_a_run_are_those_that_were_written_in_many_places():
    assert {
        "metrics.jsonl",
        "summary.json",
        "plan.json",
        "sites.json",
        "run.toml",
        "model.json",
    } <= RUN_FILES.keys()


@pytest.mark.parametrize("name", [n for n in SOURCES if n != "common/strict_json.py"])
def test_json_is_written_without_bare_nan(name):
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
            words = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert words.get("allow_nan") == "False", f"{name}, line {node.lineno}: use common.strict_json"


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_pickles_or_downloads(name):
    for module, _ in imports(name):
        assert module.split(".")[0] not in ("pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"), name
        assert module.split(".")[0] not in ("requests", "httpx", "urllib3", "aiohttp"), name
        assert not within(module, "urllib.request"), name
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = ast.unparse(node.func)
            assert call not in ("torch.load", "torch.save", "eval", "exec"), f"{name}: {call}"
            allowed = [k for k in node.keywords if k.arg == "allow_pickle"]
            assert not any(ast.unparse(k.value) == "True" for k in allowed), f"{name}: allow_pickle"


def test_no_files_import_each_other_in_a_circle_not_even_lazily():
    names = {n.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): n for n in SOURCES}
    edges = {n: {names[m] for m, _ in imports(n) if m in names and names[m] != n} for n in SOURCES}
    while leaves := [n for n, targets in edges.items() if not targets]:
        edges = {n: targets - set(leaves) for n, targets in edges.items() if n not in leaves}
    assert edges == {}, "these files import each other, or files that do"


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_are_short(name):
    tree = SOURCES[name]
    last = tree.body[-1].end_lineno if tree.body else 0
    assert last <= 400, f"{name} has {last} lines: split it by idea"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node, clean=False)
            length = node.end_lineno - node.lineno + 1 - (said.count("\n") + 1 if said else 0)
            assert length <= 40, f"{name}: {node.name} has {length} lines"


def test_modules_import_few_of_ours_outside_of_their_functions():
    names = {n.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): n for n in SOURCES}
    edges = 0
    for name, tree in SOURCES.items():
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        later = {id(x) for f in ast.walk(tree) if isinstance(f, kinds) for x in ast.walk(f)}
        found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import) and id(n) not in later]
        modules = {f"{n.module}.{a.name}" for n in found if isinstance(n, ast.ImportFrom) for a in n.names}
        modules |= {n.module for n in found if isinstance(n, ast.ImportFrom) and n.module}
        modules |= {a.name for n in found if isinstance(n, ast.Import) for a in n.names}
        edges += len({names[m] for m in modules if names.get(m, name) != name})
    assert edges / len(SOURCES) <= 4.0, "take from a room what it offers, and import where it is needed"


def test_client_and_server_need_no_command_line_and_common_stands_alone():
    code = "import sys; sys.modules.update(client=None, server=None, simulations=None, cli=None); import common.audit.verify"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def commands() -> list[str]:
    return [
        e.name for entries in SECTIONS.values() for e in entries if (ROOT / f"cli/{e.module[4:]}.py").is_file()
    ]


def test_help_of_every_command_loads_nothing_heavy():
    code = (
        "import sys, contextlib, io\n"
        "from cli.main import main\n"
        "for words in [[]] + [[name] for name in sys.argv[1:]]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        assert main([*words, '--help']) == 0, words\n"
        "    assert 'Usage: fedcart' in out.getvalue(), words\n"
        f"    loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    assert not loaded, f'{words} --help loads {loaded}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *commands()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_offline_verification_needs_neither_torch_nor_opacus_nor_flwr():
    code = (
        "import sys; sys.modules.update(torch=None, opacus=None, flwr=None); import common.audit.verify, cli.audit"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
