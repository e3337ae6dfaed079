"""A worker's threads are there for requests: no connection holds one while nothing comes from it."""

import http.client
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from tests.conftest import Server
from tests.test_zero_downtime import load, wait

READ = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = [pytest.mark.xdist_group("connections"), pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)]


def connect(server: Server, stack: ExitStack, count: int) -> list[socket.socket]:
    """Connections on which nothing was said yet, closed with the stack."""
    connections = [
        stack.enter_context(socket.create_connection((server.host, server.port), timeout=20)) for _ in range(count)
    ]
    time.sleep(0.3)  # until they are accepted
    return connections


def answer(connection: socket.socket) -> http.client.HTTPResponse:
    """Reads the answer to one request."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response


def test_gunicorn_s_own_worker_serves_with_the_same_settings(serve):
    server = serve(GUNICORN_CMD_ARGS="--worker-class gthread")
    with ExitStack() as stack:
        [connection] = connect(server, stack, 1)
        for _ in range(2):
            connection.sendall(READ)
            assert answer(connection).status == 200
        connection.sendall(b"junk\r\n\r\n")
        assert answer(connection).headers["Content-Type"] == "application/json"


def test_silent_connections_hold_no_thread(serve):
    server = serve(GUNICORN_THREADS="1")
    with ExitStack() as stack:
        connections = connect(server, stack, 20)
        for connection in connections[::-1]:
            began = time.monotonic()
            connection.sendall(READ)
            assert answer(connection).status == 200
            # Each that held the thread would hold it for seconds.
            assert time.monotonic() - began < 2


def test_a_request_that_comes_slowly_holds_a_thread_for_a_limited_time(serve):
    server = serve(GUNICORN_THREADS="2", GUNICORN_CMD_ARGS="--timeout 3 --keep-alive 1")
    with ExitStack() as stack:
        no_head, no_body, proper = connect(server, stack, 3)
        no_head.sendall(READ[:20])
        no_body.sendall(b"POST /heroes/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        proper.sendall(READ)
        assert answer(proper).status == 200
        assert no_head.recv(1) == b""
        assert answer(no_body).status == 400


def test_a_connection_that_stays_silent_is_closed(serve):
    server = serve(GUNICORN_CMD_ARGS="--keep-alive 1")
    with ExitStack() as stack:
        silent, kept = connect(server, stack, 2)
        kept.sendall(READ)
        assert answer(kept).getheader("Connection") == "keep-alive"
        assert silent.recv(1) == kept.recv(1) == b""


def test_without_keep_alive_an_answer_closes(serve):
    server = serve(GUNICORN_CMD_ARGS="--keep-alive 0")
    with ExitStack() as stack:
        [connection] = connect(server, stack, 1)
        time.sleep(1.5)  # a second is when the worker looks for connections to close
        connection.sendall(READ)
        assert answer(connection).getheader("Connection") == "close"
        assert connection.recv(1) == b""


def test_requests_on_one_connection_are_answered_in_turn(serve):
    server = serve()
    with ExitStack() as stack:
        [connection] = connect(server, stack, 1)
        connection.sendall(READ + READ.replace(b"/health/live", b"/nothing") + READ)
        received = b""
        while received.count(b"HTTP/1.1 ") < 3:
            received += connection.recv(65536)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"404", b"200"]


def when_full(server: Server, stack: ExitStack, make_room: Callable[[], None]) -> None:
    """A further connection waits until there is room for it."""
    [another] = connect(server, stack, 1)
    another.sendall(READ)
    another.settimeout(1)
    with pytest.raises(TimeoutError):
        another.recv(1)
    make_room()
    another.settimeout(10)
    assert answer(another).status == 200


def test_too_many_connections_wait(serve):
    server = serve(GUNICORN_CMD_ARGS="--worker-connections 5")
    with ExitStack() as stack:
        connections = connect(server, stack, 5)
        when_full(server, stack, connections[0].close)


def test_connections_wait_for_descriptors(serve):
    server = serve()
    [worker] = psutil.Process(server.process.pid).children()
    limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        connect(server, stack, 1)
        wait(lambda: [c.status for c in worker.net_connections()].count(psutil.CONN_ESTABLISHED) == 1)
        used = {int(name) for name in os.listdir(f"/proc/{worker.pid}/fd")}
        first_free = min(set(range(len(used) + 1)) - used)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (first_free, limits[1]))
        when_full(server, stack, lambda: resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits))
    assert "No connection: [Errno 24]" in server.log.read_text()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_is_quick(serve, sent):
    server = serve(ACCESS_LOG="off")
    with load(server) as seen:
        while seen["GET", 200] < 100:
            time.sleep(0.05)
        server.process.send_signal(sent)
        assert server.process.wait(10) == 0


def test_a_stop_does_not_wait_for_silent_connections(serve):
    server = serve(GUNICORN_CMD_ARGS="--keep-alive 60")
    with ExitStack() as stack:
        silent, late = connect(server, stack, 2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        # What a client had just begun to say is answered still.
        late.sendall(READ)
        assert answer(late).getheader("Connection") == "close"
        assert server.process.wait(10) == 0
        assert silent.recv(1) == b""
