"""Requests and answers as they travel: raw HTTP/1.1, so that odd bytes pass through unchanged."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
ORACLE = ROOT / ".venv-oracle" / "bin" / "uvicorn"
JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """A request: its target as sent, its body, and its Content-Type where it has one."""

    method: str
    target: str
    body: bytes = b""
    type: str | None = None

    def __bytes__(self) -> bytes:
        """The request as HTTP/1.1 on a connection that stays open."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost"]
        if self.type is not None:
            lines.append(f"Content-Type: {self.type}")
        if self.body or self.method in ("POST", "PATCH", "PUT"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body

    def __str__(self) -> str:
        body = self.body if len(self.body) < 1000 else self.body[:400] + b" ... " + self.body[-100:]
        return f"{self.method} {self.target} ({'no type' if self.type is None else self.type})\n  {body!r}"


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its JSON as text in the order of its keys ("" for none; what isn't JSON as a JSON string
    behind "text:"), and the methods of its Allow header."""

    status: int
    body: str = ""
    allow: tuple[str, ...] = ()

    @classmethod
    def of(cls, status: int, content: bytes, allow: str | None = None) -> "Answer":
        """The answer with a body of bytes."""
        methods = tuple(sorted(allow.replace(" ", "").split(","))) if allow else ()
        try:
            return cls(status, json.dumps(json.loads(content)) if content else "", methods)
        except ValueError:
            return cls(status, "text:" + json.dumps(content.decode("latin-1")), methods)

    @property
    def json(self) -> Any:
        """The body as an object, None where there is none."""
        return json.loads(self.body) if self.body and not self.body.startswith("text:") else None


class Refused(ConnectionError):
    """The server closed the connection without an answer."""


class Connection:
    """A keep-alive connection to a server at 127.0.0.1, made anew whenever the server has closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket: socket.socket | None = None
        self.rest = b""

    def close(self) -> None:
        """Closes it; the next request opens it again."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self.rest = None, b""

    def send(self, request: Request) -> Answer:
        """The answer to a request. Raises Refused where there is none."""
        for fresh in (False, True):
            if fresh or self.socket is None:
                self.close()
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.socket.sendall(bytes(request))
                return self._receive(request.method)
            except (Refused, BrokenPipeError, ConnectionResetError):
                if fresh:
                    raise
        raise Refused

    def _receive(self, method: str) -> Answer:
        while b"\r\n\r\n" not in self.rest:
            self._read()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        while len(self.rest) < length:
            self._read()
        content, self.rest = self.rest[:length], self.rest[length:]
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer.of(int(first.split()[1]), content, headers.get("allow"))

    def _read(self) -> None:
        assert self.socket is not None
        received = self.socket.recv(1 << 16)
        if not received:
            raise Refused
        self.rest += received


def free_port() -> int:
    """A port that nothing listens on just now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[Connection]:
    """Runs a server in the project's root for as long as the block lasts: a connection to it.

    Raises RuntimeError with its log where it doesn't listen within half a minute.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    connection = Connection(port)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield connection
    finally:
        connection.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def oracle(database: Path) -> Iterator[Connection]:
    """Runs the oracle on a SQLite file, which it makes where it is missing: a connection to it."""
    port = free_port()
    options = f"--app-dir tests/contract --port {port} --log-level critical --http h11"
    command = [str(ORACLE), *options.split(), "oracle:app"]
    with running(command, {"SEED_DB": str(database)}, port, database.with_suffix(".log")) as connection:
        yield connection


@contextmanager
def heroes(database: Path) -> Iterator[Connection]:
    """Runs `gunicorn wsgi:app` on a SQLite file: a connection to it."""
    port = free_port()
    environment = {
        "DATABASE_URL": f"sqlite:///{database}",
        "BIND": f"127.0.0.1:{port}",
        "WEB_CONCURRENCY": "1",
        "LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    with running(command, environment, port, database.with_suffix(".gunicorn.log")) as connection:
        yield connection
