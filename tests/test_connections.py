"""Keep-alive: an idle connection holds no thread, and is closed in time."""

import re
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client import Response, receive
from tests.constants import on_gunicorn, sqlite_only
from tests.load import load
from tests.servers import Server, free_port, launch, wait_until

READ = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
Serve = Callable[..., Server]


def connect(server: Server, stack: ExitStack, count: int) -> list[socket.socket]:
    """Open connections that send nothing yet and are closed with the stack."""
    return [stack.enter_context(socket.create_connection((server.host, server.port), timeout=20)) for _ in range(count)]


def ask(connection: socket.socket) -> Response:
    """Send a request and return its response."""
    connection.sendall(READ)
    return receive(connection)


def keep(server: Server, stack: ExitStack, count: int) -> list[socket.socket]:
    """Open connections, each of which was answered once and is kept open."""
    connections = []
    for _ in range(count):
        connections += connect(server, stack, 1)
        assert ask(connections[-1]).headers["Connection"] == "keep-alive"
    return connections


@on_gunicorn
def test_idle_connections_hold_no_thread(gunicorn: Server) -> None:
    with ExitStack() as stack:
        for connection in keep(gunicorn, stack, 20)[::-1]:
            connection.settimeout(4)  # each that held the thread would hold it for 5 s
            assert ask(connection).status == 200


@sqlite_only
def test_idle_connection_is_closed_after_keepalive(serve: Serve) -> None:
    server = serve(GUNICORN_CMD_ARGS="--keep-alive 1")
    with ExitStack() as stack:
        [silent], [kept] = connect(server, stack, 1), keep(server, stack, 1)
        assert silent.recv(1) == kept.recv(1) == b""


@sqlite_only
def test_without_keep_alive_a_response_closes(serve: Serve) -> None:
    server = serve(GUNICORN_CMD_ARGS="--keep-alive 0")
    with ExitStack() as stack:
        [connection] = connect(server, stack, 1)
        assert ask(connection).headers["Connection"] == "close"
        assert connection.recv(1) == b""


@on_gunicorn
def test_requests_on_one_connection_are_answered_in_turn(gunicorn: Server) -> None:
    with ExitStack() as stack:
        [connection] = connect(gunicorn, stack, 1)
        connection.sendall(READ + READ.replace(b"/health/live", b"/nothing") + READ)
        received = b""
        while received.count(b"HTTP/1.1 ") < 3:
            received += connection.recv(65536)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"404", b"200"]


@sqlite_only
def test_connection_beyond_the_limit_waits(serve: Serve) -> None:
    server = serve(GUNICORN_THREADS="1", GUNICORN_CMD_ARGS="--worker-connections 5 --keep-alive 20")
    with ExitStack() as stack:
        keep(server, stack, 4)
        silent, another = connect(server, stack, 2)
        another.sendall(READ)
        another.settimeout(1)
        with pytest.raises(TimeoutError):
            another.recv(1)
        silent.close()
        another.settimeout(10)
        assert receive(another).status == 200


@pytest.mark.parametrize("files", [1000, 256])
def test_more_connections_than_open_files_end_no_worker(sqlite_url: str, tmp_path: Path, files: int) -> None:
    command = f'ulimit -n {files}; exec "{sys.executable}" -m gunicorn wsgi:app'
    port = free_port()
    environment = {"DATABASE_URL": sqlite_url, "BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": "1"}
    environment["GUNICORN_CMD_ARGS"] = "--keep-alive 60"
    with ExitStack() as stack:
        # This process has as many connections as the server.
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        server = launch(["bash", "-c", command], environment, port, tmp_path / "gunicorn.log")
        stack.callback(server.kill)
        before = server.workers()
        [first, *_] = keep(server, stack, files - 104)
        connect(server, stack, 120)
        wait_until(lambda: server.accepted() >= files - 100)
        first.settimeout(60)  # each of the others that was accepted holds a thread for 5 s
        for _ in range(10):
            assert ask(first).status == 200
        assert server.workers() == before
        assert "Exception" not in server.log.read_text()


@sqlite_only
def test_quick_stop_ends_a_busy_server(serve: Serve) -> None:
    # A worker's signal handler may wait for a lock of the thread that it interrupts. It is killed after this timeout.
    server = serve(ACCESS_LOG="off", GUNICORN_CMD_ARGS="--graceful-timeout 5")
    with load(server.port) as found:
        wait_until(lambda: found.outcomes["GET", 200] >= 100)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(45) == 0
        assert not server.answers()


@sqlite_only
def test_stop_does_not_wait_for_idle_connections(serve: Serve) -> None:
    server = serve(GUNICORN_CMD_ARGS="--keep-alive 60")
    with ExitStack() as stack:
        silent, late = keep(server, stack, 2)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.listens())
        # A request that a client is about to send is answered. Until a worker gets the signal, it keeps connections.
        while (response := ask(late)).headers["Connection"] != "close":
            assert response.status == 200
        assert response.status == 200
        assert server.process.wait(45) == 0
        assert silent.recv(1) == b""
