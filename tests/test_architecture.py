"""The house: who may import whom, where third parties may live, and what a quick answer may not load.

The rules are those of the design page 00-overview; a test is a rule, and names every file that breaks it.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
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
    ("errors", "bounds", "cbor", "loopback"),
    ("wire", "atomic", "proxies", "processes", "plain_text", "strict_json", "house", "source_settings"),
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
    ("deployment", "flower", "local_log", "systemd"),
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


SOURCES = tuple(
    path.relative_to(ROOT).as_posix() for package in LAYERS for path in sorted((ROOT / package).rglob("*.py"))
)


@cache  # when a rule is checked, not when tests are collected: each process collects, one checks
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(name)))


@cache
def imports(name: str) -> tuple[tuple[str, bool], ...]:
    """(module, whether at import time) of every import of a file."""
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
            if not isinstance(child, ast.expr):  # an import is a statement, and no part of an expression
                visit(child, now and not later)

    visit(tree_of(name), True)
    return tuple(found)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def all_imports() -> list[tuple[str, str, bool]]:
    """(file, module, whether at import time) of every import there is."""
    every = [(name, module, now) for name in SOURCES for module, now in imports(name)]
    assert len(SOURCES) > 250 and len(every) > 5_000  # the rules below speak about these
    return every


def test_imports_point_down():
    def may(layer: str, first: str) -> bool:
        return first not in LAYERS or first == layer or first in LAYERS[layer]

    assert [(n, m) for n, m, _ in all_imports() if not may(n.split("/")[0], m.split(".")[0])] == []
    assert [(n, m) for n, m, _ in all_imports() if m.split(".")[0] in ("tests", "benchmarks")] == []


def test_third_parties_stay_where_they_belong():
    def confined(name: str, first: str) -> bool:
        return first not in CONFINED or name.startswith(CONFINED[first])

    assert [(n, m) for n, m, _ in all_imports() if not confined(n, m.split(".")[0])] == []
    for place, banned in NEVER.items():
        inside = [(n, m) for n, m, _ in all_imports() if n.startswith(place)]
        assert inside, f"{place} is no place"
        assert [(n, m) for n, m in inside if any(within(m, b) for b in banned)] == []


IMPORTED_AS = {"scikit-learn": "sklearn"}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {
        IMPORTED_AS.get(name, name.replace("-", "_")) for name in (re.match(r"[\w-]+", one)[0] for one in asked)
    }
    known = {*sys.stdlib_module_names, *LAYERS, *declared}
    assert [(n, m) for n, m, _ in all_imports() if m.split(".")[0] not in known] == []


def test_what_is_heavy_is_not_imported_where_a_command_starts():
    for heavy, places in NOT_AT_IMPORT_TIME.items():
        assert [n for n, m, now in all_imports() if now and within(m, heavy) and n.startswith(places)] == []


def floor(module: str) -> int:
    part = module.removesuffix(".py").replace("/", ".").split(".")[1]
    return next(k for k, parts in enumerate(FLOORS) if part in parts)


ROOMS = (
    "client.guard",
    "common.data",
    "common.model",
    "common.privacy",
    "common.run",
    "common.tasks",
    "common.trust",
)
"""Packages that offer names themselves."""


def offered(package: str) -> set[str]:
    room = nodes(f"{package.replace('.', '/')}/__init__.py")
    return {alias.name for node in room if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.parametrize("package", ROOMS)
def test_what_a_package_offers_is_taken_from_it(package):
    names, inside = offered(package), package.replace(".", "/") + "/"
    assert names
    from_within = [(n, m) for n, m, _ in all_imports() if m.startswith(package + ".") and not n.startswith(inside)]
    past = [(n, m) for n, m in from_within if m.rsplit(".", 1)[0] != package and m.rsplit(".", 1)[1] in names]
    assert past == [], f"take them from {package}"


def test_arrows_inside_common_point_down():
    inside = [(n, m) for n, m, _ in all_imports() if n.startswith("common/") and n != "common/__init__.py"]
    ours = [(n, m) for n, m in inside if m.startswith("common.") and (ROOT / m.replace(".", "/")).parent.is_dir()]
    assert [(n, m) for n, m in ours if floor(m) > floor(n)] == [], "what is imported stands above the file"


RUN_FILES = {
    value: key
    for module in (paths, hold, model_files)
    for key, value in vars(module).items()
    if key.endswith("_FILE") and isinstance(value, str)
}


@cache
def constants(name: str) -> set[str]:
    """String constants of a file, f-strings included."""
    return {node.value for node in nodes(name) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_only_the_room_of_a_run_names_its_files():
    itself = ("common/model_files.py", "common/trust/identity.py")
    others = [n for n in SOURCES if not n.startswith("common/run/") and n not in itself]
    named = {name: RUN_FILES.keys() & constants(name) for name in others}
    assert {name: {w: RUN_FILES[w] for w in words} for name, words in named.items() if words} == {}, "import these"


KIT_FILES = {
    "site.toml",
    "policy.toml",
    "coordinator.toml",
    "ledger.jsonl",
    "identity.key",
    "node.key",
    "consumers.key",
}


def test_only_one_place_names_the_files_of_a_kit():
    itself = ("common/deployment/kit.py", "common/trust/identity.py")
    named = {
        (name, word)
        for name in SOURCES
        if name not in itself
        for word in constants(name)
        if word in KIT_FILES or word.startswith((".head.", "round-0"))
    }
    assert named <= {("common/privacy/attestation.py", ".head.json")}, (
        "see SiteKit, Kits, common.trust.identity and common.run.round_file"
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


BENCHMARKS = tuple(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "benchmarks").rglob("*.py")))


@cache
def calls(names: tuple[str, ...] = SOURCES) -> list[tuple[str, ast.Call, str]]:
    """(file, call, what is called) of every call by a name or by names with dots."""
    every = [(name, node) for name in names for node in nodes(name) if isinstance(node, ast.Call)]
    return [(name, node, dotted(node.func)) for name, node in every if dotted(node.func)]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def said(call: ast.Call, keyword: str) -> str:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == keyword), "")


def test_json_is_written_without_bare_nan():
    written = [(n, c) for n, c, what in calls(SOURCES + BENCHMARKS) if what in ("json.dump", "json.dumps")]
    assert len(written) > 40
    bare = [(n, c.lineno) for n, c in written if n != "common/strict_json.py" and said(c, "allow_nan") != "False"]
    assert bare == [], "use common.strict_json"


PICKLERS = ("pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib")
DOWNLOADERS = ("requests", "httpx", "urllib3", "aiohttp")


def test_nothing_pickles_or_downloads():
    banned = (*PICKLERS, *DOWNLOADERS, "urllib.request")
    assert [(n, m) for n, m, _ in all_imports() if any(within(m, b) for b in banned)] == []
    assert [(n, what) for n, _, what in calls() if what in ("torch.load", "torch.save", "eval", "exec")] == []
    assert [(n, c.lineno) for n, c, _ in calls() if said(c, "allow_pickle") == "True"] == []


def test_no_files_import_each_other_in_a_circle_not_even_lazily():
    names = {n.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): n for n in SOURCES}
    edges = {n: {names[m] for m, _ in imports(n) if m in names and names[m] != n} for n in SOURCES}
    while leaves := [n for n, targets in edges.items() if not targets]:
        edges = {n: targets - set(leaves) for n, targets in edges.items() if n not in leaves}
    assert edges == {}, "these files import each other, or files that do"


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    doc = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (doc.count("\n") + 1 if doc else 0)


def test_files_are_short():
    lines = {name: tree_of(name).body[-1].end_lineno for name in SOURCES if tree_of(name).body}
    assert {name: last for name, last in lines.items() if last > 400} == {}, "split it by idea"


def test_files_of_tests_are_short():
    lines = {p.relative_to(ROOT).as_posix(): p.read_text().count("\n") for p in (ROOT / "tests").rglob("*.py")}
    assert len(lines) > 200
    assert {name: count for name, count in lines.items() if count > 400} == {}, "split it by subject"


def test_functions_are_short():
    every = [(name, node) for name in SOURCES for node in nodes(name) if isinstance(node, FUNCTIONS)]
    assert len(every) > 2_000
    assert [(name, node.name, lines_of(node)) for name, node in every if lines_of(node) > 40] == []


def test_modules_import_few_of_ours_outside_of_their_functions():
    names = {n.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): n for n in SOURCES}
    edges = 0
    for name in SOURCES:
        later = {id(x) for f in nodes(name) if isinstance(f, FUNCTIONS) for x in ast.walk(f)}
        found = [n for n in nodes(name) if isinstance(n, ast.ImportFrom | ast.Import) and id(n) not in later]
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
