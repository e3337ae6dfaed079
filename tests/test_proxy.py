"""Behind nginx, with the configuration that deploy/ has: slow clients, dead servers, floods, and the systemd unit."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server
from tests.soak.proxy import FAST, Nginx, required

HERO = b'{"name": "Deadpond", "secret_name": "Dive Wilson"}'

pytestmark = [pytest.mark.xdist_group("proxy"), pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)]


@pytest.fixture
def nginx(serve: Callable[..., Server], tmp_path: Path) -> Iterator[Callable[..., tuple[Nginx, list[Server]]]]:
    """Starts gunicorns and an nginx in front: nginx(replaced={…}, WEB_CONCURRENCY="2", …)."""
    started: list[Nginx] = []
    required("nginx")

    def start(replaced: dict[str, str], **environment: str) -> tuple[Nginx, list[Server]]:
        servers = [serve(**{"PROXY_HOPS": "1", "ACCESS_LOG": "off"} | environment) for _ in range(2)]
        started.append(Nginx(tmp_path / "nginx", [server.port for server in servers], replaced))
        return started[0], servers

    yield start
    for proxy in started:
        proxy.process.terminate()
        proxy.process.wait(20)


def load(proxy: Nginx, clients: int, until: threading.Event, method: str = "GET", body: bytes | None = None):
    """Asks for the list from several clients until the event: a Counter of the statuses, and the seconds of each."""
    statuses: Counter[object] = Counter()
    seconds: list[float] = []

    def ask() -> None:
        while not until.is_set():
            begun = time.monotonic()
            try:
                status: object = proxy.request(method, "/heroes/", body)[0]
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
            seconds.append(time.monotonic() - begun)
            statuses[status] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    return statuses, seconds, threads


def test_slow_clients_hold_up_nobody(nginx):
    proxy, _ = nginx(FAST)
    head = b"POST /heroes/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    address = ("127.0.0.1", proxy.port)
    done = threading.Event()

    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(address, timeout=30))
        writers = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(50)]
        for writer in writers:
            writer.sendall(head % len(HERO))
        statuses, seconds, threads = load(proxy, 4, done)
        for position in range(6):
            for writer in writers:
                writer.sendall(HERO[position : position + 1])
            time.sleep(0.3)
        done.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}
        p99 = sorted(seconds)[len(seconds) * 99 // 100]
        print(f"{len(seconds)} answers beside 200 idle and 50 slow clients, p99 {p99 * 1000:.0f} ms")
        assert p99 < 1
        # The slow ones are answered too, once they are through.
        for writer in writers:
            writer.sendall(HERO[6:])
        for writer in writers:
            assert writer.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_server_that_dies_is_not_missed(nginx):
    proxy, [first, second] = nginx(FAST)
    done = threading.Event()

    statuses, seconds, threads = load(proxy, 4, done)
    time.sleep(0.3)
    children = Path(f"/proc/{first.process.pid}/task/{first.process.pid}/children").read_text().split()
    first.process.kill()
    for child in children:
        os.kill(int(child), 9)
    first.process.wait()
    time.sleep(2)
    done.set()
    for thread in threads:
        thread.join()
    print(f"{sum(statuses.values())} answers, one of two servers killed, slowest {max(seconds) * 1000:.0f} ms")
    assert set(statuses) == {200}
    assert second.stop() == 0
    status, body, headers = proxy.request("GET", "/heroes/")
    assert (status, body) == (503, b'{"detail":"Service Unavailable"}')
    assert headers["Retry-After"] == "1"


def test_one_client_cannot_flood(nginx):
    proxy, _ = nginx({"rate=100r/s": "rate=1r/s", "burst=200": "burst=4"})

    answers = [proxy.request("GET", "/heroes/") for _ in range(10)]
    assert [status for status, _, _ in answers[:5]] == [200] * 5
    status, body, headers = answers[-1]
    assert (status, body) == (429, b'{"detail":"Too Many Requests"}')
    assert headers["Retry-After"] == "1"


def test_what_passes_and_what_does_not(nginx):
    proxy, [first, _] = nginx({}, ACCESS_LOG="on", METRICS="1", WEB_CONCURRENCY="1")

    assert proxy.request("POST", "/heroes/", HERO)[:2] == (200, b'{"name":"Deadpond","age":null,"id":1}')
    assert proxy.request("GET", "/docs")[0] == 200
    for path in ("/metrics", "/health/live", "/health/ready"):
        assert proxy.request("GET", path)[:2] == (404, b'{"detail":"Not Found"}')
    status, body, _ = proxy.request("POST", "/heroes/", b'"' + b"x" * (1024 * 1024) + b'"')
    assert (status, body) == (413, b'{"detail":"Request Entity Too Large"}')
    status, body, headers = proxy.request("GET", "/heroes/1")
    assert headers["Content-Type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-ID"])


def test_the_unit_is_sound(tmp_path, dialect):
    analyze = shutil.which("systemd-analyze") or pytest.skip("needs systemd")
    text = (ROOT / "deploy" / "heroes.service").read_text()
    unit = tmp_path / "heroes.service"
    # The one thing that is not on this machine is where the service is installed.
    unit.write_text(re.sub("/opt/heroes/.venv/bin/[a-z]+", "/bin/true", text))

    subprocess.run([analyze, "verify", unit], check=True, timeout=60)
    rating = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", unit], capture_output=True, timeout=60, check=False
    )
    assert rating.returncode == 0, rating.stdout.decode()
