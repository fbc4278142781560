"""The service as a process: the walk through its document, kill -9 and restart, one holder, TLS from both sides."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scoring_samples import config_of, market, write_events, write_model_folder
from tests.serving_samples import event, serve_command

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_model_folder(folder / "m", config_of(), market().catalogue, market().log, steps=20)
    write_events(market().log, folder / "log.csv")
    return folder / "m"


@contextmanager
def serving(model, state, *options):
    """A process that serves; yields it and its address."""
    command = serve_command(model, state)
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)["address"]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0


def ask(address, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def test_the_walk_through_of_the_document_runs(model, tmp_path):
    text = (ROOT / "docs" / "serve.md").read_text()
    calls = re.search(r"<!-- walk -->\n```sh\n(.+?)```", text, re.DOTALL)[1].splitlines()
    assert len(calls) > 10
    with serving(model, tmp_path, "--events", str(model.parent / "log.csv")) as (_, address):
        for call in calls:
            done = subprocess.run(
                ["bash", "-c", call.replace("curl -s", "curl -sf")], env={"URL": address, "PATH": "/usr/bin:/bin"},
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, call
            assert "error" not in done.stdout or "openapi" in call, done.stdout


def test_a_killed_service_answers_as_if_it_had_not_been_once_the_last_events_are_sent_again(model, tmp_path):
    lines = [
        event(f"c{n % 4}", f"2024-05-01T10:{n // 60:02d}:{n % 60:02d}", item=f"item-0{n % 7 + 1}", id=f"e{n}")
        for n in range(120)
    ]
    with serving(model, tmp_path / "straight") as (_, address):
        wanted = ask(f"{address}/events", lines)["answers"]
        following = ask(f"{address}/next/c1")
    with serving(model, tmp_path / "killed", "--keep-every", "0.2") as (process, address):
        got = ask(f"{address}/events", lines[:70])["answers"]
        snapshot = tmp_path / "killed" / "serving" / "live.snapshot"
        while not snapshot.exists():
            ask(f"{address}/healthz")
        got += ask(f"{address}/events", lines[70:90])["answers"]  # may be lost
        process.kill()
        process.wait()
    with serving(model, tmp_path / "killed") as (_, address):
        again = ask(f"{address}/events", lines[60:])["answers"]
        assert got[:60] + again == wanted
        assert ask(f"{address}/next/c1") == following


def test_a_second_service_on_the_same_state_is_refused(model, tmp_path):
    with serving(model, tmp_path) as (process, _):
        command = [sys.executable, "-m", "cli.main", "serve", str(model), "--state", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert done.returncode == 2
        assert f"already served by process {process.pid}" in done.stderr


def test_events_from_standard_input_share_the_state_with_requests(model, tmp_path):
    command = serve_command(model, tmp_path)
    with subprocess.Popen(
        [*command, "--stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        address = json.loads(process.stdout.readline())["address"]
        sent = [json.dumps(event(id="e1")), "garbage", "x" * 200_000, json.dumps(event(at="2024-05-01T10:00:01"))]
        process.stdin.write("\n".join(sent) + "\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in sent]
        assert ["error" in one for one in answers] == [False, True, True, False]
        assert ask(f"{address}/intent/c1")["events"] == 2
        assert ask(f"{address}/events", event(id="e1")) == answers[0]
        process.send_signal(signal.SIGTERM)  # while the input is still open
        assert process.wait(20) == 0


def test_callers_without_a_certificate_of_the_authority_are_turned_away(model, tmp_path):
    import ssl

    for name in ("server", "caller", "stranger"):
        told = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
        files = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.crt"]
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", *told, *files], capture_output=True
        )
        assert made.returncode == 0
    files = [
        f"--tls-cert={tmp_path}/server.crt",
        f"--tls-key={tmp_path}/server.key",
        f"--tls-client-ca={tmp_path}/caller.crt",
    ]

    def status(address, name):
        context = ssl.create_default_context(cafile=tmp_path / "server.crt")
        if name:
            context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        with urllib.request.urlopen(f"{address}/readyz", context=context, timeout=20) as answer:
            return answer.status

    with serving(model, tmp_path / "state", *files) as (_, address):
        assert address.startswith("https://")
        assert status(address, "caller") == 200
        for name in ("", "stranger"):
            with pytest.raises(OSError, match=r"(?i)certificate|alert|reset|closed|unknown ca|EOF"):
                status(address, name)


def test_with_a_token_nothing_is_answered_without_it(model, tmp_path):
    token = tmp_path / "token"
    with serving(model, tmp_path, "--token-file", str(token)) as (_, address):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{address}/verdicts")
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        with urllib.request.urlopen(urllib.request.Request(f"{address}/verdicts", None, headers)) as answer:
            assert json.loads(answer.read()) == {"verdicts": []}
