"""Bad input on the wire: a 4xx in the envelope, nothing stored, and the server goes on."""

import gzip
import json
import select
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.tables import FEW, SQLiteTable
from tests.contract.wire import Connection, Request, heroes

HERO = b'{"name": "Tern", "secret_name": "Tess Ernst"}'
START = b"POST /heroes/ HTTP/1.1"
HOST = b"Host: localhost"
TYPE = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(HERO)
WHOLE = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HERO), HERO)
PATIENCE = 20  # seconds for an answer

pytestmark = pytest.mark.xdist_group("wire")


def message(*lines: bytes, body: bytes = b"", start: bytes = START, host: bytes = HOST) -> bytes:
    """A request of these header lines."""
    return b"\r\n".join([line for line in (start, host, TYPE, *lines) if line]) + b"\r\n\r\n" + body


def sized(body: bytes) -> bytes:
    """A proper request with a body."""
    return message(b"Content-Length: %d" % len(body), body=body)


def field(value: bytes, name: bytes = b"age") -> bytes:
    """A proper request to create a hero in which one field is `value`, as JSON."""
    return sized(HERO.replace(b'"Tern"', value) if name == b"name" else HERO[:-1] + b', "age": ' + value + b"}")


BODIES = {
    "100,000 nested arrays": sized(b"[" * 100_000),
    "100,000 nested arrays, closed": sized(b"[" * 100_000 + b"]" * 100_000),
    "100,000 nested objects": sized(b'{"a":' * 100_000),
    "100,000 nested arrays in a field": field(b"[" * 100_000 + b"]" * 100_000),
    "an integer of 5,000 digits": field(b"1" * 5_000),
    "an integer of 5,000 digits in a string": field(b'"%s"' % (b"1" * 5_000)),
    "an integer of 65 bits": field(b"18446744073709551616"),
    "NaN": field(b"NaN"),
    "Infinity": field(b"Infinity"),
    "-Infinity": field(b"-Infinity"),
    "1e400": field(b"1e400"),
    "a lone surrogate, escaped": field(b'"\\ud800"', b"name"),
    "a lone surrogate, raw": field(b'"\xed\xa0\x80"', b"name"),
    "a lone surrogate for an age": field(b'"\\udfff"'),
    "NUL, escaped": field(b'"a\\u0000b"', b"name"),
    "NUL, raw": field(b'"a\x00b"', b"name"),
    "no UTF-8": field(b'"\xff"', b"name"),
    "a name of a million letters": field(b'"%s"' % (b"x" * 1_000_000), b"name"),
    "gzip that is called gzip": message(
        b"Content-Encoding: gzip", b"Content-Length: %d" % len(gzip.compress(HERO)), body=gzip.compress(HERO)
    ),
    "garbage that is called gzip": message(b"Content-Encoding: gzip", b"Content-Length: 9", body=b"\x1f\x8b\x08zzzzzz"),
    "garbage in an unknown encoding": message(
        b"Content-Encoding: \x00\xff;;", b"Content-Length: 4", body=b"\xde\xad\xbe\xef"
    ),
}
LENGTHS = {
    "two Content-Lengths": message(b"Content-Length: 9", LENGTH, body=HERO),
    "two Content-Lengths, shorter last": message(LENGTH, b"Content-Length: 9", body=HERO),
    "two Content-Lengths in one": message(LENGTH + b", 9", body=HERO),
    "Content-Length and Transfer-Encoding": message(LENGTH, CHUNKED, body=WHOLE),
    "Transfer-Encoding and Content-Length": message(CHUNKED, b"Content-Length: 4", body=WHOLE),
    "a negative Content-Length": message(b"Content-Length: -1", body=HERO),
    "a Content-Length with a sign": message(b"Content-Length: +%d" % len(HERO), body=HERO),
    "a Content-Length with an underscore": message(b"Content-Length: 4_5", body=HERO),
    "a Content-Length that is no number": message(b"Content-Length: many", body=HERO),
    "an empty Content-Length": message(b"Content-Length:", body=HERO),
    "a hexadecimal Content-Length": message(b"Content-Length: 0x2d", body=HERO),
    "a Content-Length of 40 digits": message(b"Content-Length: " + b"9" * 40, body=HERO),
    "a Content-Length of 5,000 digits": message(b"Content-Length: " + b"9" * 5_000, body=HERO),
    "50 MB": message(b"Content-Length: 52428800", body=b" " * 52_428_800),
    "50 MB, chunked": message(CHUNKED, body=(b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 50 + b"0\r\n\r\n"),
    "3 MB, chunked": message(CHUNKED, body=(b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 48 + WHOLE),
    "3 MB of one-byte chunks": message(CHUNKED, body=b"1\r\n \r\n" * 1_100_000 + WHOLE),
    "no length": message(body=HERO),
}
CHUNKS = {
    "a chunk size that is no number": message(CHUNKED, body=b"zz\r\n" + HERO + b"\r\n0\r\n\r\n"),
    "a negative chunk size": message(CHUNKED, body=b"-1\r\n" + HERO + b"\r\n0\r\n\r\n"),
    "a chunk size with a prefix": message(CHUNKED, body=b"0x2d\r\n" + HERO + b"\r\n0\r\n\r\n"),
    "a chunk size with an underscore": message(CHUNKED, body=b"2_d\r\n" + HERO + b"\r\n0\r\n\r\n"),
    "an empty chunk size": message(CHUNKED, body=b"\r\n" + HERO + b"\r\n0\r\n\r\n"),
    "a chunk longer than its size": message(CHUNKED, body=b"5\r\n" + HERO + b"\r\n0\r\n\r\n"),
    "chunked twice": message(CHUNKED, CHUNKED, body=WHOLE),
    "chunked, then identity": message(b"Transfer-Encoding: chunked, identity", body=WHOLE),
    "an unknown Transfer-Encoding": message(b"Transfer-Encoding: cow", body=HERO),
    "a Transfer-Encoding that is nearly chunked": message(b"Transfer-Encoding: xchunked", body=WHOLE),
    "a Transfer-Encoding in an HTTP/1.0 request": message(CHUNKED, start=b"POST /heroes/ HTTP/1.0", body=WHOLE),
}
HEADS = {
    "a URL of 10 KB": message(start=b"GET /heroes/?x=" + b"y" * 10_240 + b" HTTP/1.1"),
    "a header of 100 KB": message(b"X-Long: " + b"y" * 102_400, LENGTH, body=HERO),
    "10,000 headers": message(*[b"X-%d: y" % number for number in range(10_000)], LENGTH, body=HERO),
    "an unknown method": message(start=b"FOO /heroes/ HTTP/1.1"),
    "a method in lower case": message(LENGTH, start=b"post /heroes/ HTTP/1.1", body=HERO),
    "a method that is none": message(LENGTH, start=b"PO(ST /heroes/ HTTP/1.1", body=HERO),
    "a method of 10 KB": message(LENGTH, start=b"A" * 10_240 + b" /heroes/ HTTP/1.1", body=HERO),
    "no path": message(LENGTH, start=b"POST HTTP/1.1", body=HERO),
    "a space in the path": message(LENGTH, start=b"POST /heroes/ 1 HTTP/1.1", body=HERO),
    "raw bytes in the path": message(start=b"GET /heroes/\xff\x00 HTTP/1.1"),
    "an unknown version": message(LENGTH, start=b"POST /heroes/ HTTP/9.9", body=HERO),
    "a version that is none": message(LENGTH, start=b"POST /heroes/ HTTX/1.1", body=HERO),
    "two Hosts": message(HOST, LENGTH, body=HERO),
    "a Host full of junk": message(LENGTH, host=b"Host: \x01<a b>\"'{}|\\^`", body=HERO),
    "a Host with a path": message(LENGTH, host=b"Host: localhost/heroes?x#y", body=HERO),
    "a Host with spaces": message(LENGTH, host=b"Host: local host", body=HERO),
    "a Host of 5 KB": message(LENGTH, host=b"Host: " + b"<" * 5_120, body=HERO),
    "a Host with NUL": message(LENGTH, host=b"Host: local\x00host", body=HERO),
    "two Content-Types": message(TYPE, LENGTH, body=HERO),
    "a header without a colon": message(b"X-Header", LENGTH, body=HERO),
    "a space before a colon": message(b"Content-Length : %d" % len(HERO), body=HERO),
    "a folded header": message(b"X-Header: a\r\n b", LENGTH, body=HERO),
    "NUL in a header": message(b"X-Header: a\x00b", LENGTH, body=HERO),
    "a bare CR in a header": message(b"X-Header: a\rb", LENGTH, body=HERO),
    "no header's name": message(b": x", LENGTH, body=HERO),
    "bare LFs": message(LENGTH, body=HERO).replace(b"\r\n", b"\n"),
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    "noise": bytes(range(256)) * 8 + b"\r\n\r\n",
}
# What follows is the end of what the client sends.
CUT = {
    "a chunk size of 100 digits": message(CHUNKED, body=b"f" * 100 + b"\r\n" + HERO),
    "a short body": message(b"Content-Length: 100", body=HERO),
    "a short body of a GET": message(b"Content-Length: 100", start=b"GET /heroes/ HTTP/1.1", body=HERO),
    "no body": message(LENGTH),
    "cut in a chunk": message(CHUNKED, body=b"ff\r\n" + HERO),
    "cut between chunks": message(CHUNKED, body=b"%x\r\n%s\r\n" % (len(HERO), HERO)),
    "cut in a chunk's size": message(CHUNKED, body=b"%x\r\n%s\r\n0" % (len(HERO), HERO)),
}
CASES = BODIES | LENGTHS | CHUNKS | HEADS | CUT


@dataclass
class Target:
    """A server and its table."""

    connection: Connection
    table: SQLiteTable


@pytest.fixture(scope="module")
def target(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gunicorn on a few heroes; a server of its own for each test would hide what one request does to the next."""
    database = tmp_path_factory.mktemp("wire") / "database.db"
    shutil.copyfile(migrated_sqlite, database)
    with heroes(database) as connection:
        table = SQLiteTable(database)
        yield Target(connection, table)
        table.close()


def exchange(port: int, request: bytes, cut: bool) -> bytes:
    """Sends bytes for as long as the server takes them, and returns what it answers until it falls silent."""
    answer, rest = b"", memoryview(request)
    deadline = time.monotonic() + PATIENCE
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.setblocking(False)
        while not complete(answer) and time.monotonic() < deadline:
            readable, writable, _ = select.select([client], [client] if rest else [], [], 1)
            if readable:
                received = client.recv(1 << 16)
                if not received:
                    break
                answer += received
            elif writable:
                rest = rest[client.send(rest[: 1 << 16]) :]
                if not rest and cut:
                    client.shutdown(socket.SHUT_WR)
    return answer


def complete(answer: bytes) -> bool:
    """Whether the bytes hold a whole answer."""
    head, end, body = answer.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= sum(lengths)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_and_harms_nothing(case: str, target: Target) -> None:
    target.table.reset(FEW)

    answer = exchange(target.connection.port, CASES[case], cut=case in CUT)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head[:10] == b"HTTP/1.1 4", answer[:300]
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body)["detail"]
    assert target.table.rows() == FEW
    target.connection.close()
    assert target.connection.send(Request("GET", "/heroes/3")).status == 200
