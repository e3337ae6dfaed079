"""Malformed input on the wire: each case has one status, nothing is stored, and the server keeps running."""

import gzip
import http.client
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.client import exchange
from tests.constants import on_gunicorn
from tests.contract.tables import FEW, SQLiteTable
from tests.contract.wire import Connection, Request, heroes
from tests.servers import Server

HERO = b'{"name": "Tern", "secret_name": "Tess Ernst"}'
START = b"POST /heroes/ HTTP/1.1"
HOST = b"Host: localhost"
TYPE = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(HERO)
WHOLE = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HERO), HERO)
TIMEOUT = 20  # seconds

pytestmark = on_gunicorn


def message(*lines: bytes, body: bytes = b"", start: bytes = START, host: bytes = HOST) -> bytes:
    """Return a request of these header lines."""
    return b"\r\n".join([line for line in (start, host, TYPE, *lines) if line]) + b"\r\n\r\n" + body


def sized(body: bytes) -> bytes:
    """Return a well-formed request with a body."""
    return message(b"Content-Length: %d" % len(body), body=body)


def field(value: bytes, name: bytes = b"age") -> bytes:
    """Return a well-formed request to create a hero in which one field is `value`, as JSON."""
    return sized(HERO.replace(b'"Tern"', value) if name == b"name" else HERO[:-1] + b', "age": ' + value + b"}")


# Which rejects the request: the app, with its envelope, or gunicorn, with a page of its own and before the app.
APP, SERVER = "app", "gunicorn"
# Name: the bytes that are sent, the status, what rejects them.
Cases = dict[str, tuple[bytes, int, str]]

BODIES: Cases = {
    "100,000 nested arrays": (sized(b"[" * 100_000), 400, APP),
    "100,000 nested arrays, closed": (sized(b"[" * 100_000 + b"]" * 100_000), 400, APP),
    "100,000 nested objects": (sized(b'{"a":' * 100_000), 400, APP),
    "100,000 nested arrays in a field": (field(b"[" * 100_000 + b"]" * 100_000), 400, APP),
    "an integer of 5,000 digits": (field(b"1" * 5_000), 400, APP),
    "an integer of 5,000 digits in a string": (field(b'"%s"' % (b"1" * 5_000)), 422, APP),
    "an integer of 65 bits": (field(b"18446744073709551616"), 422, APP),
    "NaN": (field(b"NaN"), 422, APP),
    "Infinity": (field(b"Infinity"), 422, APP),
    "-Infinity": (field(b"-Infinity"), 422, APP),
    "1e400": (field(b"1e400"), 422, APP),
    "a lone surrogate, escaped": (field(b'"\\ud800"', b"name"), 422, APP),
    "a lone surrogate, raw": (field(b'"\xed\xa0\x80"', b"name"), 422, APP),
    "a lone surrogate for an age": (field(b'"\\udfff"'), 422, APP),
    "NUL, escaped": (field(b'"a\\u0000b"', b"name"), 422, APP),
    "NUL, raw": (field(b'"a\x00b"', b"name"), 422, APP),
    "no UTF-8": (field(b'"\xff"', b"name"), 400, APP),
    "a name of a million letters": (field(b'"%s"' % (b"x" * 1_000_000), b"name"), 422, APP),
    "gzip that is called gzip": (
        message(b"Content-Encoding: gzip", b"Content-Length: %d" % len(gzip.compress(HERO)), body=gzip.compress(HERO)),
        400,
        APP,
    ),
    "garbage that is called gzip": (
        message(b"Content-Encoding: gzip", b"Content-Length: 9", body=b"\x1f\x8b\x08zzzzzz"),
        400,
        APP,
    ),
    "garbage in an unknown encoding": (
        message(b"Content-Encoding: \x00\xff;;", b"Content-Length: 4", body=b"\xde\xad\xbe\xef"),
        400,
        SERVER,
    ),
}
LENGTHS: Cases = {
    "two Content-Lengths": (message(b"Content-Length: 9", LENGTH, body=HERO), 400, SERVER),
    "two Content-Lengths, shorter last": (message(LENGTH, b"Content-Length: 9", body=HERO), 400, SERVER),
    "two Content-Lengths in one": (message(LENGTH + b", 9", body=HERO), 400, SERVER),
    "Content-Length and Transfer-Encoding": (message(LENGTH, CHUNKED, body=WHOLE), 400, SERVER),
    "Transfer-Encoding and Content-Length": (message(CHUNKED, b"Content-Length: 4", body=WHOLE), 400, SERVER),
    "a negative Content-Length": (message(b"Content-Length: -1", body=HERO), 400, SERVER),
    "a Content-Length with a sign": (message(b"Content-Length: +%d" % len(HERO), body=HERO), 400, SERVER),
    "a Content-Length with an underscore": (message(b"Content-Length: 4_5", body=HERO), 400, SERVER),
    "a Content-Length that is no number": (message(b"Content-Length: many", body=HERO), 400, SERVER),
    "an empty Content-Length": (message(b"Content-Length:", body=HERO), 400, SERVER),
    "a hexadecimal Content-Length": (message(b"Content-Length: 0x2d", body=HERO), 400, SERVER),
    "a Content-Length of 40 digits": (message(b"Content-Length: " + b"9" * 40, body=HERO), 413, APP),
    "a Content-Length of 5,000 digits": (message(b"Content-Length: " + b"9" * 5_000, body=HERO), 400, SERVER),
    "50 MB": (message(b"Content-Length: 52428800", body=b" " * 52_428_800), 413, APP),
    "50 MB, chunked": (
        message(CHUNKED, body=(b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 50 + b"0\r\n\r\n"),
        413,
        APP,
    ),
    "3 MB, chunked": (message(CHUNKED, body=(b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 48 + WHOLE), 413, APP),
    "3 MB of one-byte chunks": (message(CHUNKED, body=b"1\r\n \r\n" * 1_100_000 + WHOLE), 413, APP),
    "no length": (message(body=HERO), 422, APP),
}
CHUNKS: Cases = {
    "a chunk size that is no number": (message(CHUNKED, body=b"zz\r\n" + HERO + b"\r\n0\r\n\r\n"), 400, APP),
    "a negative chunk size": (message(CHUNKED, body=b"-1\r\n" + HERO + b"\r\n0\r\n\r\n"), 400, APP),
    "a chunk size with a prefix": (message(CHUNKED, body=b"0x2d\r\n" + HERO + b"\r\n0\r\n\r\n"), 400, APP),
    "a chunk size with an underscore": (message(CHUNKED, body=b"2_d\r\n" + HERO + b"\r\n0\r\n\r\n"), 400, APP),
    "an empty chunk size": (message(CHUNKED, body=b"\r\n" + HERO + b"\r\n0\r\n\r\n"), 400, APP),
    "a chunk longer than its size": (message(CHUNKED, body=b"5\r\n" + HERO + b"\r\n0\r\n\r\n"), 400, APP),
    "chunked twice": (message(CHUNKED, CHUNKED, body=WHOLE), 400, SERVER),
    "chunked, then identity": (message(b"Transfer-Encoding: chunked, identity", body=WHOLE), 400, SERVER),
    "gzip, then chunked": (message(b"Transfer-Encoding: gzip, Chunked", body=WHOLE), 400, APP),
    "deflate and chunked in two headers": (message(b"Transfer-Encoding: deflate", CHUNKED, body=WHOLE), 400, APP),
    "an unknown Transfer-Encoding": (
        message(b"Transfer-Encoding: cow", body=HERO),
        501,
        SERVER,
    ),
    "a Transfer-Encoding that is nearly chunked": (
        message(b"Transfer-Encoding: xchunked", body=WHOLE),
        501,
        SERVER,
    ),
    "a Transfer-Encoding in an HTTP/1.0 request": (
        message(CHUNKED, start=b"POST /heroes/ HTTP/1.0", body=WHOLE),
        400,
        SERVER,
    ),
}
HEADS: Cases = {
    "a URL of 10 KB": (message(start=b"GET /heroes/?x=" + b"y" * 10_240 + b" HTTP/1.1"), 414, SERVER),
    "a header of 100 KB": (message(b"X-Long: " + b"y" * 102_400, LENGTH, body=HERO), 431, SERVER),
    "10,000 headers": (message(*[b"X-%d: y" % number for number in range(10_000)], LENGTH, body=HERO), 431, SERVER),
    "101 headers": (message(*[b"X: y"] * 98, LENGTH, body=HERO), 431, SERVER),
    "an unknown Expect": (message(b"Expect: cow", LENGTH, body=HERO), 417, SERVER),
    "an Idempotency-Key that is not ASCII": (message(b"Idempotency-Key: caf\xe9", LENGTH, body=HERO), 200, APP),
    "an If-None-Match that is not ASCII": (
        message(b'If-None-Match: "\xe9"', LENGTH, start=b"PATCH /heroes/1 HTTP/1.1", body=HERO),
        200,
        APP,
    ),
    "an unknown method": (message(start=b"FOO /heroes/ HTTP/1.1"), 405, APP),
    "a method in lower case": (message(LENGTH, start=b"post /heroes/ HTTP/1.1", body=HERO), 405, APP),
    "a method that is none": (message(LENGTH, start=b"PO(ST /heroes/ HTTP/1.1", body=HERO), 400, SERVER),
    "a method of 10 KB": (message(LENGTH, start=b"A" * 10_240 + b" /heroes/ HTTP/1.1", body=HERO), 414, SERVER),
    "no path": (message(LENGTH, start=b"POST HTTP/1.1", body=HERO), 400, SERVER),
    "a space in the path": (message(LENGTH, start=b"POST /heroes/ 1 HTTP/1.1", body=HERO), 400, SERVER),
    "raw bytes in the path": (message(start=b"GET /heroes/\xff\x00 HTTP/1.1"), 400, SERVER),
    "an unknown version": (message(LENGTH, start=b"POST /heroes/ HTTP/9.9", body=HERO), 400, SERVER),
    "a version that is none": (message(LENGTH, start=b"POST /heroes/ HTTX/1.1", body=HERO), 400, SERVER),
    "two Hosts": (message(HOST, LENGTH, body=HERO), 400, SERVER),
    "a Host full of junk": (message(LENGTH, host=b"Host: \x01<a b>\"'{}|\\^`", body=HERO), 400, SERVER),
    "a Host with a path": (message(LENGTH, host=b"Host: localhost/heroes?x#y", body=HERO), 400, APP),
    "a Host with spaces": (message(LENGTH, host=b"Host: local host", body=HERO), 400, APP),
    "a Host of 5 KB": (message(LENGTH, host=b"Host: " + b"<" * 5_120, body=HERO), 400, APP),
    "a Host with NUL": (message(LENGTH, host=b"Host: local\x00host", body=HERO), 400, SERVER),
    "two Content-Types": (message(TYPE, LENGTH, body=HERO), 400, SERVER),
    "a header without a colon": (message(b"X-Header", LENGTH, body=HERO), 400, SERVER),
    "a space before a colon": (message(b"Content-Length : %d" % len(HERO), body=HERO), 400, SERVER),
    "a folded header": (message(b"X-Header: a\r\n b", LENGTH, body=HERO), 400, SERVER),
    "NUL in a header": (message(b"X-Header: a\x00b", LENGTH, body=HERO), 400, SERVER),
    "a bare CR in a header": (message(b"X-Header: a\rb", LENGTH, body=HERO), 400, SERVER),
    "no header's name": (message(b": x", LENGTH, body=HERO), 400, SERVER),
    "bare LFs": (message(LENGTH, body=HERO).replace(b"\r\n", b"\n"), 400, SERVER),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400, SERVER),
    "noise": (bytes(range(256)) * 8 + b"\r\n\r\n", 400, SERVER),
}
# The client closes its side after these.
CUT: Cases = {
    "a chunk size of 100 digits": (message(CHUNKED, body=b"f" * 100 + b"\r\n" + HERO), 400, APP),
    "a short body": (message(b"Content-Length: 100", body=HERO), 400, APP),
    "a short body of a GET": (message(b"Content-Length: 100", start=b"GET /heroes/ HTTP/1.1", body=HERO), 400, APP),
    "no body": (message(LENGTH), 400, APP),
    "cut in a chunk": (message(CHUNKED, body=b"ff\r\n" + HERO), 400, APP),
    "cut between chunks": (message(CHUNKED, body=b"%x\r\n%s\r\n" % (len(HERO), HERO)), 400, APP),
    "cut in a chunk's size": (message(CHUNKED, body=b"%x\r\n%s\r\n0" % (len(HERO), HERO)), 400, APP),
}
CASES = BODIES | LENGTHS | CHUNKS | HEADS | CUT
# Granian's differences: it passes every chunked body to the app, which rejects it, accepts some heads, and loses values
# that are not ASCII.
GRANIAN = dict.fromkeys(
    [
        "Content-Length and Transfer-Encoding",
        "Transfer-Encoding and Content-Length",
        "50 MB, chunked",
        "3 MB, chunked",
        "3 MB of one-byte chunks",
        "a chunk size that is no number",
        "a negative chunk size",
        "a chunk size with a prefix",
        "a chunk size with an underscore",
        "an empty chunk size",
        "a chunk longer than its size",
        "a chunk size of 100 digits",
        "cut in a chunk",
        "cut between chunks",
        "cut in a chunk's size",
    ],
    (411, APP),
)
GRANIAN |= {
    "chunked twice": (400, APP),
    "a Content-Length of 40 digits": (400, SERVER),
    "an unknown Transfer-Encoding": (400, SERVER),
    "a Transfer-Encoding that is nearly chunked": (400, SERVER),
    "a method of 10 KB": (405, APP),
    "two Hosts": (400, APP),
    "a URL of 10 KB": (200, APP),
    "a header of 100 KB": (200, APP),
    "an unknown Expect": (200, APP),
    "two Content-Types": (200, APP),
    "bare LFs": (200, APP),
    "an Idempotency-Key that is not ASCII": (400, APP),
    "an If-None-Match that is not ASCII": (400, APP),
}


@dataclass
class Target:
    """A server and its table."""

    name: str
    connection: Connection
    table: SQLiteTable


@pytest.fixture(scope="module", params=["gunicorn", "granian"])
def target(
    request: pytest.FixtureRequest, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A server on a few heroes; one of its own for each test would hide what one request does to the next."""
    if request.param == "gunicorn":
        server: Server = request.getfixturevalue("shared_gunicorn")
        database = Path(server.database_url.removeprefix("sqlite:///"))
        with closing(Connection(server.port)) as connection, closing(SQLiteTable(database)) as table:
            yield Target(request.param, connection, table)
        return
    database = tmp_path_factory.mktemp("wire") / "database.db"
    shutil.copyfile(migrated_sqlite, database)
    with heroes(database, request.param) as connection, closing(SQLiteTable(database)) as table:
        yield Target(request.param, connection, table)


@pytest.mark.parametrize("case", CASES)
def test_malformed_input_is_rejected_and_stores_nothing(case: str, target: Target) -> None:
    target.table.reset(FEW)

    request, status, by = CASES[case]
    if target.name == "granian":
        status, by = GRANIAN.get(case, (status, by))
    response = exchange(target.connection.port, request, end=case in CUT, timeout=TIMEOUT)

    assert response.status == status
    assert ("X-Request-ID" in response.headers) is (by is APP)
    if by is APP:
        assert response.headers["Content-Type"] == "application/json"
    if status >= 400:
        assert by is SERVER or response.json["detail"]
        assert target.table.rows() == FEW
    target.connection.close()
    assert target.connection.send(Request("GET", "/heroes/3")).status == 200


def test_client_that_streams_before_it_reads_gets_the_response(target: Target) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", target.connection.port, TIMEOUT)) as client:
        client.request("POST", "/heroes/", iter([b" " * 100_000] * 30), encode_chunked=True)
        response = client.getresponse()

        assert response.status == (413 if target.name == "gunicorn" else 411)
        assert response.reason == HTTPStatus(response.status).phrase
