"""Nothing is lost while the service changes under load: reload, recycling of workers, stop."""

import json
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.constants import HERO, Query, postgres_only, sqlite_only
from tests.load import load
from tests.servers import Server, launch, wait_until

BODY = json.dumps(HERO)
HEAD = f"POST /heroes/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"

pytestmark = pytest.mark.xdist_group("zero_downtime")


def booted(server: Server) -> int:
    """Return how many workers have been started so far."""
    return server.log.read_text().count("Booting worker")


@postgres_only
def test_reload_loses_nothing(serve: Callable[..., Server], query: Query) -> None:
    server = serve(WEB_CONCURRENCY="2", ACCESS_LOG="off")

    with load(server.port) as found:
        seen = found.outcomes
        wait_until(lambda: seen.total() > 50)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: booted(server) == 4)
        before = seen.total()
        wait_until(lambda: seen.total() > before + 50)
    print(f"{seen.total()} answers during a reload: {dict(seen)}")
    assert set(seen) == {("POST", 200), ("GET", 200)}
    assert query("SELECT count(*) FROM hero") == [(seen["POST", 200],)]
    assert server.stop() == 0


@sqlite_only
def test_recycling_loses_nothing(serve: Callable[..., Server], query: Query) -> None:
    server = serve(WEB_CONCURRENCY="2", MAX_REQUESTS="40", ACCESS_LOG="off")

    with load(server.port) as found:
        seen = found.outcomes
        wait_until(lambda: booted(server) >= 5)
    print(f"{seen.total()} answers while {booted(server)} workers took turns: {dict(seen)}")
    assert set(seen) == {("POST", 200), ("GET", 200)}
    assert query("SELECT count(*) FROM hero") == [(seen["POST", 200],)]
    assert server.stop() == 0


@sqlite_only
def test_stop_finishes_requests_in_flight(serve: Callable[..., Server], query: Query) -> None:
    server = serve(WEB_CONCURRENCY="2", GUNICORN_THREADS="4", ACCESS_LOG="off")

    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((server.host, server.port), 30)) for _ in range(4)]
        for client in clients:
            client.sendall(f"{HEAD}{BODY[:10]}".encode())
        wait_until(lambda: server.accepted() >= len(clients))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.listens())
        for client in clients:
            client.sendall(BODY[10:].encode())
        answers = [client.makefile("rb").read() for client in clients]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.process.wait(45) == 0
    assert query("SELECT count(*) FROM hero") == [(4,)]


@sqlite_only
def test_restart_with_the_socket_of_systemd_loses_nothing(sqlite_url: str, query: Query, tmp_path: Path) -> None:
    # systemd passes its socket as descriptor 3, and says so in the environment (sd_listen_fds(3)).
    command = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "{sys.executable}" -m gunicorn wsgi:app 3<&0'
    environment = {"DATABASE_URL": sqlite_url, "WEB_CONCURRENCY": "1", "ACCESS_LOG": "off"}
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, ExitStack() as stack:

        def start() -> Server:
            port = int(listener.getsockname()[1])
            log = tmp_path / "gunicorn.log"
            server = launch(["bash", "-c", command], environment, port, log, stdin=listener.fileno())
            stack.callback(server.kill)
            return server

        server = start()
        with load(server.port) as found:
            seen = found.outcomes
            wait_until(lambda: seen.total() > 50)
            assert server.stop() == 0
            server = start()
            before = seen.total()
            wait_until(lambda: seen.total() > before + 50)
    print(f"{seen.total()} answers around a restart: {dict(seen)}")
    assert set(seen) == {("POST", 200), ("GET", 200)}
    assert query("SELECT count(*) FROM hero") == [(seen["POST", 200],)]
