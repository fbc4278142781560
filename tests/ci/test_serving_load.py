"""A minute of load by real clients, with kill -9 and a restart in the middle: nothing is answered wrongly, nothing is lost."""

import http.client
import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.scoring_samples import config_of, market, write_model_folder
from tests.serving_samples import serve_command

pytestmark = pytest.mark.ci
ROOT = Path(__file__).resolve().parents[2]
SECONDS, KILL_AFTER, CLIENTS, CONSUMERS, AGAIN = 60, 25, 3, 40, 4_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "m"
    write_model_folder(folder, config_of(), market().catalogue, market().log, steps=20)
    return folder


def start(model, state, port):
    command = serve_command(model, state, port)
    process = subprocess.Popen([*command, "--keep-every", "1"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert json.loads(process.stdout.readline())["pid"] == process.pid
    return process


def line(client, number):
    second = number // CONSUMERS
    at = f"2024-05-{1 + second // 86_400:02d}T{second // 3_600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    who = f"c{client}-{number % CONSUMERS}"
    return {
        "id": f"{client}-{number}",
        "consumer": who,
        "timestamp": at,
        "event": "view",
        "item": f"item-{number % 30 + 1:02d}",
    }


class Client(threading.Thread):
    """Sends events one after another; after a failure the last of them once more, as a shop would from its journal."""

    def __init__(self, number, port, end):
        super().__init__()
        self.number, self.port, self.end = number, port, end
        self.surprise, self.wrong, self.failures, self.repeated = [], [], 0, 0

    def run(self):
        connection, place = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10), 0
        while time.monotonic() < self.end:
            body = json.dumps(line(self.number, place))
            try:
                connection.request("POST", "/events", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                time.sleep(0.1)
                self.failures += 1
                place = max(0, len(self.surprise) - AGAIN)
                continue
            self.check(place, said)
            place += 1

    def check(self, place, said):
        if said.get("position") != place // CONSUMERS:
            self.wrong.append((place, said))
        elif place == len(self.surprise):
            self.surprise.append(said["surprise"])
        else:
            self.repeated += 1
            if abs(said["surprise"] - self.surprise[place]) > 1e-5:
                self.wrong.append((place, said, self.surprise[place]))


def test_a_minute_of_load_survives_a_kill(model, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process, begin = start(model, tmp_path, port), time.monotonic()
    clients = [Client(n, port, begin + SECONDS) for n in range(CLIENTS)]
    try:
        for client in clients:
            client.start()
        time.sleep(KILL_AFTER)
        process.kill()
        process.wait()
        process = start(model, tmp_path, port)
        for client in clients:
            client.join(SECONDS + 30)
        assert all(client.failures for client in clients)
        assert all(client.repeated for client in clients)
        assert [client.wrong[:2] for client in clients] == [[]] * CLIENTS
        assert sum(len(client.surprise) for client in clients) > 100 * SECONDS
    finally:
        process.terminate()
        assert process.wait(30) == 0
