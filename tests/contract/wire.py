"""Raw HTTP/1.1 requests and their responses, so that unusual bytes are sent unchanged."""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.client import Client
from tests.constants import ROOT
from tests.servers import Server, free_port, launch, start_server

ORACLE = ROOT / ".venv-oracle" / "bin" / "uvicorn"
JSON = "application/json"
# What Granian rejects itself, or does not pass to the app: see docs/granian.md.
NOT_FOR_GRANIAN = re.compile(r"[#\"<>`]|[^\x20-\x7e]")


@dataclass(frozen=True)
class Request:
    """A request: its raw target, its body, its Content-Type or None, and the lines of its other headers."""

    method: str
    target: str
    body: bytes = b""
    type: str | None = None
    headers: tuple[str, ...] = ()

    def __bytes__(self) -> bytes:
        """Return the request as HTTP/1.1 for a keep-alive connection."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost", *self.headers]
        if self.type is not None:
            lines.append(f"Content-Type: {self.type}")
        if self.body or self.method in ("POST", "PATCH", "PUT"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body

    def __str__(self) -> str:
        body = self.body if len(self.body) < 1000 else self.body[:400] + b" ... " + self.body[-100:]
        kind = "no type" if self.type is None else self.type
        return f"{self.method} {self.target} ({', '.join((kind, *self.headers))})\n  {body!r}"


@dataclass(frozen=True)
class Answer:
    """A response: its status, its body, and the methods of its Allow header, sorted.

    The body is JSON text with its keys in order, "" if empty, or "text:" and a JSON string if it isn't JSON.
    """

    status: int
    body: str = ""
    allow: tuple[str, ...] = ()

    @classmethod
    def of(cls, status: int, content: bytes, allow: str | None = None) -> "Answer":
        """Return the response with a body of bytes."""
        methods = tuple(sorted(allow.replace(" ", "").split(","))) if allow else ()
        try:
            return cls(status, json.dumps(json.loads(content)) if content else "", methods)
        except ValueError:
            return cls(status, "text:" + json.dumps(content.decode("latin-1")), methods)

    @property
    def json(self) -> Any:
        """The decoded body, or None if it is empty or not JSON."""
        return json.loads(self.body) if self.body and not self.body.startswith("text:") else None


class Connection:
    """A keep-alive connection to a server at 127.0.0.1, reopened if the server has closed it."""

    def __init__(self, port: int) -> None:
        self.client = Client(port)

    @property
    def port(self) -> int:
        """The server's port."""
        return self.client.port

    def close(self) -> None:
        """Close it; the next request reopens it."""
        self.client.close()

    def send(self, request: Request) -> Answer:
        """Send a request and return its response. Send it again if the server had closed the connection."""
        kept = self.client.socket is not None
        try:
            response = self.client.send_bytes(bytes(request), request.method)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:
                raise
            response = self.client.send_bytes(bytes(request), request.method)
        return Answer.of(response.status, response.body, response.headers.get("Allow"))


@contextmanager
def connected(server: Server) -> Iterator[Connection]:
    """Yield a connection to a server, and stop the server after the block."""
    connection = Connection(server.port)
    try:
        yield connection
    finally:
        connection.close()
        try:
            server.stop()
        finally:
            server.kill()


@contextmanager
def oracle(database: Path) -> Iterator[Connection]:
    """Run the oracle on a SQLite file, which it creates if missing; yield a connection to it."""
    port = free_port()
    options = f"--app-dir tests/contract --port {port} --log-level critical --http h11 --ws none"
    command = [str(ORACLE), *options.split(), "oracle:app"]
    with connected(launch(command, {"SEED_DB": str(database)}, port, database.with_suffix(".log"))) as connection:
        yield connection


@contextmanager
def heroes(database: Path, server: str = "gunicorn") -> Iterator[Connection]:
    """Run heroes on a SQLite file; yield a connection to it."""
    started = start_server(f"sqlite:///{database}", database.parent, server=server, LOG_LEVEL="error")
    with connected(started) as connection:
        yield connection
