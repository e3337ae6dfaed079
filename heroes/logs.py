"""One line per request, and the request's id on every line that it causes."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from logging import Formatter, LogRecord, StreamHandler
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

from flask import Flask, Response, has_request_context, request
from pythonjsonlogger.orjson import OrjsonFormatter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A client's own id: what it might break out of a log line or a header with is left out.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# The route of a request that has none: a path is the client's own words, and there are endlessly many.
UNMATCHED = "unmatched"
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}

# Keys of the WSGI environ.
ID, STARTED = "heroes.request_id", "heroes.started"

access_log = logging.getLogger("heroes.access")


class TextFormatter(Formatter):
    """Lines for people. What a client sent can't begin a line of its own."""

    def formatMessage(self, record: LogRecord) -> str:
        """The line without its traceback."""
        return super().formatMessage(record).translate(CONTROLS)


FORMATTERS: dict[str, Callable[[], Formatter]] = {
    "json": lambda: OrjsonFormatter(
        ["levelname", "name", "message"], rename_fields={"levelname": "level", "name": "logger"}, timestamp="time"
    ),
    "text": lambda: TextFormatter("%(asctime)s %(levelname)s %(request_id)s %(message)s"),
}


def add_request_id(record: LogRecord) -> bool:
    """A logging filter that lets everything pass, with the id of the request it belongs to, or "-"."""
    record.request_id = request.environ[ID] if has_request_context() else "-"
    return True


def handlers(stream: TextIO, log_format: str) -> list[logging.Handler]:
    """What writes records in either format ("json" or "text") to a stream."""
    handler = StreamHandler(stream)
    handler.setFormatter(FORMATTERS[log_format]())
    return [handler]


def identified(wsgi_app: "WSGIApplication") -> "WSGIApplication":
    """A WSGI app around another that marks the start of each request and gives it an id, the client's where it is
    well-formed, else a new one, which goes back with the answer."""

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        environ[ID] = given if REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        environ[STARTED] = perf_counter()

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> "Callable[[bytes], object]":
            headers.append(("X-Request-ID", environ[ID]))
            return start_response(status, headers, *error)

        return wsgi_app(environ, start)

    return app


def route() -> str:
    """The template of the request's path, or UNMATCHED."""
    return request.url_rule.rule if request.url_rule else UNMATCHED


def log_request(response: Response) -> Response:
    """Writes the request's line. Neither path nor query is in it: they hold what a client looks for."""
    line: dict[str, Any] = {
        "request_id": request.environ[ID],
        "client": request.remote_addr,
        "method": request.method,
        "route": route(),
        "status": response.status_code,
        "duration_ms": round((perf_counter() - request.environ[STARTED]) * 1000, 3),
    }
    access_log.info("%(client)s %(method)s %(route)s %(status)d %(duration_ms)s ms", line, extra=line)
    return response


def init_app(app: Flask) -> None:
    """Requests go to stdout, everything else to stderr, like gunicorn's own lines: a command's output stays clean."""
    app.logger.handlers = handlers(sys.stderr, app.config["LOG_FORMAT"])
    app.logger.handlers[0].addFilter(add_request_id)
    app.logger.setLevel(app.config["LOG_LEVEL"].upper())
    access_log.handlers = handlers(sys.stdout, app.config["LOG_FORMAT"])
    access_log.setLevel(logging.INFO)
    access_log.propagate = False
    # Around Flask, not in its hooks: those cost more calls for the same.
    app.wsgi_app = identified(app.wsgi_app)  # type: ignore[method-assign, assignment]
    if app.config["ACCESS_LOG"]:
        app.after_request(log_request)
