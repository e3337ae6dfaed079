"""An HTTP/1.1 client without redirects and retries, which can send any bytes."""

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import Any, Self

TIMEOUT = 30  # seconds


@dataclass(frozen=True)
class Response:
    """A response. The header names are case-insensitive."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.body)


class Client:
    """A client with one connection at a time, which `keep_alive` keeps open between requests.

    A request is sent once. A missing response raises OSError or http.client.HTTPException, and the next request opens a
    new connection.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = TIMEOUT, keep_alive: bool = True) -> None:
        self.port = port
        self.host = host
        self.timeout = timeout
        self.keep_alive = keep_alive
        self.socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def send(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Response:
        """Send a request and return its response. A body other than bytes is sent as JSON."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Host": f"{self.host}:{self.port}"}
        if body is not None:
            sent |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        if not self.keep_alive:
            sent["Connection"] = "close"
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in (sent | dict(headers or {})).items()),
        ]
        return self.send_bytes("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content, method)

    def send_bytes(self, request: bytes, method: str = "GET") -> Response:
        """Send a raw request and return its response. The response to HEAD has no body."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection((self.host, self.port), self.timeout)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(request)
            response = receive(self.socket, method)
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if not self.keep_alive or response.headers.get("Connection", "").lower() == "close":
            self.close()
        return response


def receive(connection: socket.socket, method: str = "GET") -> Response:
    """Read the response to one request from a connection."""
    with http.client.HTTPResponse(connection, method=method) as response:
        response.begin()
        return Response(response.status, response.headers, response.read())


def exchange(port: int, request: bytes, end: bool = False, timeout: float = TIMEOUT) -> Response:
    """Send bytes on a new connection until the server stops reading, and return the first response.

    It may arrive before everything is sent. If `end` is true, the sending side is shut down afterwards.
    """
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:

        def send() -> None:
            with suppress(OSError):
                connection.sendall(request)
                if end:
                    connection.shutdown(socket.SHUT_WR)

        sender = Thread(target=send)
        sender.start()
        try:
            return receive(connection)
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # unblocks the sender
            sender.join()
