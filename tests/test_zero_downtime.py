"""Nothing is lost while the service changes under load: reload, recycling of workers, stop."""

import http.client
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conftest import Server

BODY = json.dumps({"name": "Deadpond", "secret_name": "Dive Wilson"})
JSON = {"Content-Type": "application/json"}
HEAD = f"POST /heroes/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"

pytestmark = pytest.mark.xdist_group("zero_downtime")


def ask(server: Server, keep: bool, until: threading.Event, seen: Counter[object], lock: threading.Lock) -> None:
    """Writes and reads in turn until the event, on one connection where `keep`, and counts the answers."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    while not until.is_set():
        for method, body in (("POST", BODY), ("GET", None)):
            try:
                connection.request(method, "/heroes/", body, JSON if body else {})
                response = connection.getresponse()
                response.read()
                outcome: object = (method, response.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = repr(error)
            with lock:
                seen[outcome] += 1
            if not keep:
                connection.close()
    connection.close()


@contextmanager
def load(server: Server) -> Iterator[Counter[object]]:
    """Four clients, two of which keep their connection; yields their answers, complete at the end."""
    seen: Counter[object] = Counter()
    until, lock = threading.Event(), threading.Lock()
    threads = [threading.Thread(target=ask, args=(server, keep, until, seen, lock)) for keep in (True, False) * 2]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        until.set()
        for thread in threads:
            thread.join()


def booted(server: Server) -> int:
    """How many workers have begun so far."""
    return server.log.read_text().count("Booting worker")


def wait(condition: Callable[[], bool]) -> None:
    """Waits until something holds, at most 40 seconds."""
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_reload_loses_nothing(serve, query):
    server = serve(WEB_CONCURRENCY="2", ACCESS_LOG="off")

    with load(server) as seen:
        for reload in range(1, 4):
            before = sum(seen.values())
            server.process.send_signal(signal.SIGHUP)
            wait(lambda reload=reload: booted(server) == 2 * (reload + 1))
            wait(lambda before=before: sum(seen.values()) > before + 50)
    print(f"{sum(seen.values())} answers during three reloads: {dict(seen)}")
    assert set(seen) == {("POST", 200), ("GET", 200)}
    assert query("SELECT count(*) FROM hero") == [(seen["POST", 200],)]
    assert server.stop() == 0


def test_recycling_loses_nothing(serve, query):
    server = serve(WEB_CONCURRENCY="2", MAX_REQUESTS="40", ACCESS_LOG="off")

    with load(server) as seen:
        wait(lambda: booted(server) >= 6)
    print(f"{sum(seen.values())} answers while {booted(server)} workers took turns: {dict(seen)}")
    assert set(seen) == {("POST", 200), ("GET", 200)}
    assert query("SELECT count(*) FROM hero") == [(seen["POST", 200],)]
    assert server.stop() == 0


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_stop_answers_what_has_begun(serve, query, workers):
    server = serve(WEB_CONCURRENCY=workers, GUNICORN_THREADS="4", ACCESS_LOG="off")

    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((server.host, server.port), 30)) for _ in range(4)]
        for client in clients:
            client.sendall(f"{HEAD}{BODY[:10]}".encode())
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for client in clients:
            client.sendall(BODY[10:].encode())
        answers = [client.makefile("rb").read() for client in clients]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.process.wait(30) == 0
    assert query("SELECT count(*) FROM hero") == [(4,)]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_kept_connection_is_answered_once_more_after_stop(serve):
    server = serve(ACCESS_LOG="off")
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.request("GET", "/heroes/")
    connection.getresponse().read()

    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    connection.request("GET", "/heroes/")
    response = connection.getresponse()
    assert (response.status, response.headers["Connection"]) == (200, "close")
    connection.close()
    assert server.process.wait(30) == 0
