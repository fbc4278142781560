"""The bundle check, and what of a server's description of a run reaches a site's processes."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from client.runtime.bundle_check import BundleRefusedError, check_bundle
from server.runtime.bundle import bundle_digest, bundle_text


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.fixture(scope="module")
def good() -> bytes:
    from server.runtime.link_server import build_bundle

    return build_bundle(bundle_text())


@pytest.fixture(scope="module")
def pinned(good) -> str:
    return hashlib.sha256(good).hexdigest()


def test_the_pinned_bundle_passes(good, pinned):
    check_bundle(pinned, pinned, None)
    check_bundle(pinned, pinned, good)


@pytest.mark.parametrize("content", [b"other", None])
def test_another_bundle_by_its_own_digest_is_refused(pinned, content):
    with pytest.raises(BundleRefusedError):
        check_bundle(pinned, hashlib.sha256(b"other").hexdigest(), content)


@pytest.mark.parametrize("content", [b"", b"other"])
def test_another_content_by_the_pinned_digest_is_refused(pinned, content):
    with pytest.raises(BundleRefusedError):
        check_bundle(pinned, pinned, content)


@pytest.mark.parametrize("spelled", ["", "upper", "cut", "ä" * 64])
def test_the_pinned_bundle_by_another_digest_is_refused(good, pinned, spelled):
    claimed = {"upper": pinned.upper(), "cut": pinned[:-1]}.get(spelled, spelled)
    with pytest.raises(BundleRefusedError):
        check_bundle(pinned, claimed, good)


@pytest.mark.parametrize(
    "content",
    [
        zipped("pyproject.toml", "client/__init__.py"),
        zipped("pyproject.toml", "a.so"),
        zipped("pyproject.toml", "../client/app.py"),
        zipped("PYPROJECT.toml"),
        zipped("pyproject.toml", "sub/"),
        b"",
        b"no archive",
    ],
)
def test_a_bundle_with_anything_but_two_names_in_it_is_refused_even_where_it_is_pinned(content):
    """The pin came in the kit: a coordinator that wants to run code would pin code."""
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(BundleRefusedError):
        check_bundle(digest, digest, content)


def guarded(content: bytes, claimed: str, run: SimpleNamespace, pinned: str):
    """Flower's two callbacks behind our guard, with a server that hands out ``content``."""
    from client.runtime.node_link import _guarded_bundle

    fetched = []

    def get_fab(digest: str, run_id: int) -> SimpleNamespace:
        fetched.append((digest, run_id))
        return SimpleNamespace(content=content, hash_str=claimed)

    remembered, checked = _guarded_bundle(lambda _: run, get_fab, lambda c, b: check_bundle(pinned, c, b))
    return remembered, checked, fetched


def hostile_run(digest: str) -> SimpleNamespace:
    return SimpleNamespace(
        fab_hash=digest,
        fab_id="../../tmp/x",
        fab_version="9",
        override_config={"run": "/etc"},
        primary_task_type="flwr-agentapp",
    )


def test_what_the_server_says_of_a_run_does_not_choose_what_is_loaded(good):
    content = good
    digest = bundle_digest(content)
    run = hostile_run(digest)
    remembered, checked, _ = guarded(content, "lie", run, digest)
    assert remembered(7) is run
    fab = checked(digest, 7)
    assert (fab.hash_str, fab.content, fab.verifications) == (digest, content, {})
    assert (run.fab_id, run.override_config, str(run.primary_task_type)) == (
        "fedcart/fedcart",
        {},
        "flwr-serverapp",
    )


def test_a_server_that_claims_the_pinned_digest_and_sends_other_code_is_refused(good):
    from flwr.supercore.run import RunNotRunningException

    digest = bundle_digest(good)
    remembered, checked, fetched = guarded(b"PK other code", digest, hostile_run(digest), digest)
    remembered(7)
    with pytest.raises(RunNotRunningException):
        checked(digest, 7)
    assert fetched == [(digest, 7)]


def test_a_bundle_with_another_digest_is_not_even_fetched():
    from flwr.supercore.run import RunNotRunningException

    remembered, checked, fetched = guarded(b"x", "a" * 64, hostile_run("a" * 64), "b" * 64)
    remembered(7)
    with pytest.raises(RunNotRunningException):
        checked("a" * 64, 7)
    assert fetched == []


def test_building_the_bundle_twice_gives_the_same_bytes_and_no_code(good):
    import io
    import zipfile

    from server.runtime.link_server import build_bundle

    assert build_bundle(bundle_text()) == good
    assert zipfile.ZipFile(io.BytesIO(good)).namelist() == ["pyproject.toml", ".info/CONTENT"]


@pytest.mark.full
def test_the_process_that_forks_answers_holds_no_thread_pool_of_polars_and_no_random_state():
    code = (
        "import sys\n"
        "from client.runtime.worker import HEAVY, LIGHT, preload\n"
        "[preload(name) for name in LIGHT + HEAVY]\n"
        "import common.trust.randomness as r\n"
        "streams = [n for n, v in vars(r).items() if 'Stream' in type(v).__name__]\n"
        "print('polars.series' in sys.modules, streams)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=True, timeout=120
    )
    assert done.stdout.split() == ["False", "[]"]
