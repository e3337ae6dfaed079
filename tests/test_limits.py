"""A body is complete or rejected, even if no view reads it; see test_wire.py for gunicorn's parser."""

import http.client
import io
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from gunicorn.http.errors import InvalidChunkSize

from tests.client import exchange
from tests.commands import FLASK
from tests.constants import HERO, on_gunicorn, sqlite_only
from tests.servers import Server, free_port, launch

BODY = json.dumps(HERO).encode()
LIMIT = 1024 * 1024


class Broken(io.BytesIO):
    """A stream that a server gives up on: gunicorn's exception for a malformed chunk is no OSError."""

    def read(self, *_: Any) -> NoReturn:
        raise InvalidChunkSize(b"zz")

    readinto = read


class Malformed(Broken):
    """A stream whose exception is the server's own, as gunicorn's are."""

    def read(self, *_: Any) -> NoReturn:
        raise Exception("bad chunk")

    readinto = read


class Trickle(io.BytesIO):
    """A stream that goes on for half a minute."""

    reads = 0

    def read(self, *_: Any) -> bytes:
        self.reads += 1
        time.sleep(0.05)
        return b"x" if self.reads < 600 else b""


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "wsgi.input_terminated": True}

# What the server passes to the app, and the status of the response.
BODIES: dict[str, tuple[dict[str, Any], int]] = {
    "whole": ({"CONTENT_LENGTH": str(len(BODY)), "wsgi.input": BODY}, 200),
    "chunked": (CHUNKED | {"wsgi.input": BODY}, 200),
    "of the largest size": ({"CONTENT_LENGTH": str(LIMIT), "wsgi.input": BODY + b" " * (LIMIT - len(BODY))}, 200),
    "too large": ({"CONTENT_LENGTH": str(LIMIT + 1), "wsgi.input": BODY}, 413),
    "far too large": ({"CONTENT_LENGTH": "9" * 30, "wsgi.input": BODY}, 413),
    "chunked and too large": (CHUNKED | {"wsgi.input": BODY + b" " * LIMIT}, 413),
    "cut short": ({"CONTENT_LENGTH": "300", "wsgi.input": BODY}, 400),
    "badly chunked": (CHUNKED | {"wsgi.input": Broken(BODY)}, 400),
    # Such a server can't tell a whole body from one that was cut short.
    "chunked, without a mark of its end": (CHUNKED | {"wsgi.input_terminated": False, "wsgi.input": BODY}, 411),
    "chunked, from Granian": (CHUNKED | {"SERVER_SOFTWARE": "Granian", "wsgi.input": BODY}, 411),
    # The client waits for the response before it sends: reading would wait for the body.
    "chunked and announced, from Granian": (
        CHUNKED | {"SERVER_SOFTWARE": "Granian", "HTTP_EXPECT": "100-continue", "wsgi.input": Broken()},
        411,
    ),
    "compressed and chunked": (CHUNKED | {"HTTP_TRANSFER_ENCODING": "gzip, chunked", "wsgi.input": BODY}, 400),
    "cut short, with a mark of its end": (
        {"CONTENT_LENGTH": "300", "wsgi.input_terminated": True, "wsgi.input": BODY},
        400,
    ),
    "of a malformed length": ({"CONTENT_LENGTH": "abc", "wsgi.input": BODY}, 400),
    "malformed": (CHUNKED | {"wsgi.input": Malformed(BODY)}, 400),
    "gone": ({"CONTENT_LENGTH": "300", "wsgi.input": Broken()}, 400),
}


@sqlite_only
@pytest.mark.parametrize("name", BODIES)
def test_body_is_complete_or_rejected(client: FlaskClient, name: str) -> None:
    environ, status = BODIES[name]
    stream = environ["wsgi.input"]
    given = environ | {"wsgi.input": io.BytesIO(stream) if isinstance(stream, bytes) else stream}
    response = client.post("/heroes/", content_type="application/json", environ_overrides=given)

    assert response.status_code == status
    assert status == 200 or set(response.get_json()) == {"detail"}
    assert len(client.get("/heroes/").get_json()) == (status == 200)


@sqlite_only
def test_refused_body_is_read_for_a_limited_time(client: FlaskClient) -> None:
    stream = Trickle()
    environ = CHUNKED | {"SERVER_SOFTWARE": "Granian", "wsgi.input": stream}

    assert client.post("/heroes/", environ_overrides=environ).status_code == 411
    assert 1 <= stream.reads < 100


@sqlite_only
@pytest.mark.parametrize("method, path", [("GET", "/heroes/"), ("DELETE", "/heroes/1"), ("GET", "/nowhere")])
def test_truncated_body_is_rejected_without_a_reader(client: FlaskClient, method: str, path: str) -> None:
    cut = {"CONTENT_LENGTH": "300", "wsgi.input": io.BytesIO(b"x")}

    assert client.open(path, method=method, environ_overrides=cut).status_code == 400


@sqlite_only
@pytest.mark.parametrize("server, connection", [("Granian", "close"), ("waitress", None)])
def test_the_limit_is_a_setting(client: FlaskClient, server: str, connection: str | None) -> None:
    """PEP 3333 forbids the header, and waitress and wsgiref fail on it."""
    client.application.config["MAX_CONTENT_LENGTH"] = 10

    environ = {"SERVER_SOFTWARE": server}
    response = client.post("/heroes/", data=BODY, content_type="application/json", environ_overrides=environ)

    assert (response.status_code, response.headers.get("Connection")) == (413, connection)


@sqlite_only
def test_max_content_length_none_means_no_limit(client: FlaskClient) -> None:
    client.application.config["MAX_CONTENT_LENGTH"] = None

    response = client.post("/heroes/", data=BODY + b" " * LIMIT, content_type="application/json")
    assert response.status_code == 200


LARGE = b" " * (LIMIT + 1)
HEAD = b"POST /heroes/ HTTP/1.1\r\nHost: h\r\n"
SIZED = HEAD + b"Content-Length: %d\r\n" % len(LARGE)
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n"
WHOLE_CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE), LARGE)
EXPECT = b"Expect: 100-continue\r\n"
# Requests whose body is not read to its end, and the status.
UNREAD: dict[str, tuple[bytes, int]] = {
    "sized": (SIZED + b"\r\n" + LARGE, 413),
    "sized, only the head": (SIZED + b"\r\n", 413),
    "sized, expecting 100": (SIZED + EXPECT + b"\r\n", 413),
    "sized, expecting 100, sent all the same": (SIZED + EXPECT + b"\r\n" + LARGE, 413),
    "sized, for no view": (SIZED.replace(b"/heroes/", b"/nowhere") + b"\r\n" + LARGE, 413),
    "sized, of a GET": (SIZED.replace(b"POST", b"GET") + b"\r\n" + LARGE, 413),
    "chunked": (CHUNKS + b"\r\n" + WHOLE_CHUNK, 413),
    "chunked, expecting 100": (CHUNKS + EXPECT + b"\r\n" + WHOLE_CHUNK, 413),
    "badly chunked": (CHUNKS + b"\r\nzz\r\n", 400),
    "badly chunked, expecting 100": (CHUNKS + EXPECT + b"\r\nzz\r\n", 400),
}


@on_gunicorn
@pytest.mark.parametrize("case", UNREAD)
def test_response_to_an_unread_body_closes_the_connection(gunicorn: Server, case: str) -> None:
    request, status = UNREAD[case]
    response = exchange(gunicorn.port, request)

    assert (response.status, response.headers["Connection"]) == (status, "close")


@on_gunicorn
@pytest.mark.parametrize("size, status", [(LIMIT, 200), (LIMIT + 1, 413), (3 * LIMIT, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_request_after_a_rejected_body_is_answered(gunicorn: Server, size: int, status: int, chunked: bool) -> None:
    body = BODY + b" " * (size - len(BODY))
    headers = {"Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", gunicorn.port, timeout=30)) as connection:
        for _ in range(8):
            sent = iter([body]) if chunked else body
            try:
                connection.request("POST", "/heroes/", sent, headers, encode_chunked=chunked)
                response = connection.getresponse()
                assert (response.status, bool(response.read())) == (status, True)
            except (BrokenPipeError, ConnectionResetError):
                # A body with a length beyond the limit is not read: the client may still be sending it.
                assert size > LIMIT
                assert not chunked
                connection.close()
            connection.request("GET", "/heroes/")
            assert connection.getresponse().read()[:1] == b"["


@on_gunicorn
def test_read_body_keeps_the_connection_open(gunicorn: Server) -> None:
    with gunicorn.client() as client:
        for body in (BODY, b"{", b"[]"):
            assert client.send("POST", "/heroes/", body).headers["Connection"] == "keep-alive"


@sqlite_only
@pytest.mark.parametrize(
    ("protocol", "host", "status"),
    [("HTTP/1.1", "", 400), ("HTTP/1.1", "a,b", 400), ("HTTP/1.1", "a:8000", 200), ("HTTP/1", "", 200)],
)
def test_granian_environ_with_no_or_two_hosts_is_400(
    client: FlaskClient, protocol: str, host: str, status: int
) -> None:
    environ = {"SERVER_SOFTWARE": "Granian", "SERVER_PROTOCOL": protocol, "HTTP_HOST": host}

    assert client.get("/heroes/", environ_overrides=environ).status_code == status


def test_development_server_answers_a_body_at_the_limit(tmp_path: Path) -> None:
    limit, port = 1000, free_port()
    environment = {"DATABASE_URL": f"sqlite:///{tmp_path}/database.db", "MAX_CONTENT_LENGTH": str(limit)}
    server = launch([*FLASK, "run", "--port", str(port)], environment, port, tmp_path / "log")
    try:
        client = server.client(keep_alive=False)
        sent = {size: client.send("POST", "/heroes/", BODY.ljust(size)).status for size in range(limit - 1, limit + 2)}
        assert sent == {limit - 1: 200, limit: 200, limit + 1: 413}
    finally:
        server.kill()


@sqlite_only
@pytest.mark.parametrize(
    "method, path, name",
    [
        ("POST", "/heroes/", "Idempotency-Key"),
        ("GET", "/heroes/", "Prefer"),
        ("GET", "/heroes/1", "If-Match"),
        ("GET", "/heroes/1", "If-None-Match"),
    ],
)
def test_header_that_granian_emptied_is_rejected(client: FlaskClient, method: str, path: str, name: str) -> None:
    response = client.open(
        path,
        method=method,
        data=BODY,
        content_type="application/json",
        headers={name: ""},
        environ_overrides={"SERVER_SOFTWARE": "Granian"},
    )

    assert (response.status_code, response.json) == (400, {"detail": "Bad Request"})
    assert client.get("/heroes/").json == []
