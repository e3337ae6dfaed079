"""One line per request, and the request's id on every line that it causes.

gunicorn.conf.py runs this file by its path, so it imports nothing of heroes.
"""

import logging
import re
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from flask import Flask, Response, request

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
# Any other method may hold data: the rest of a body that is longer than its Content-Length is read as a method.
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"})
# The messages of gunicorn and Flask that quote what a client sent, up to the quotation.
QUOTES = re.compile(r"Invalid request from ip=[0-9A-Fa-f.:%]*(?=: )|Error handling request|Exception on (?=/)")
STARTED = "heroes.started"  # key of the WSGI environ: perf_counter() at the start of the request

request_id: ContextVar[str] = ContextVar("request_id", default="-")
access_log = logging.getLogger("heroes.access")


class TextFormatter(logging.Formatter):
    """Lines for people. What a client sent can't begin a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without its traceback."""
        return super().formatMessage(record).translate(CONTROLS)


FORMATTERS = {
    "text": {"()": TextFormatter, "fmt": "%(asctime)s %(levelname)s [%(process)d] %(request_id)s %(message)s"},
    "json": {
        "()": "pythonjsonlogger.orjson.OrjsonFormatter",
        "fmt": ["levelname", "name", "process", "message"],
        "rename_fields": {"levelname": "level", "name": "logger"},
        "timestamp": "time",
    },
}


def identify_and_redact(record: logging.LogRecord) -> bool:
    """Add the id of the current request, or "-". Remove what a client sent from the messages of gunicorn and Flask."""
    record.request_id = request_id.get()
    if match := QUOTES.match(str(record.msg)):
        record.msg, record.args = match[0].strip(), ()
    elif record.name == "gunicorn.error" and isinstance(record.args, tuple):
        record.args = tuple(type(each).__name__ if isinstance(each, BaseException) else each for each in record.args)
    return True


def logging_config(level: str, line_format: str) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig().

    Requests go to stdout; everything else, gunicorn's own lines too, to stderr: the output of a command stays clean.
    level: of everything but requests; line_format: "json" or "text".
    """
    handler = {"class": "logging.StreamHandler", "formatter": "line", "filters": [identify_and_redact]}
    own = {"level": level.upper(), "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": FORMATTERS[line_format]},
        "handlers": {name: handler | {"stream": f"ext://sys.{name}"} for name in ("stdout", "stderr")},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "heroes": own,
            "gunicorn.error": own,
            "heroes.access": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        },
    }


def method_and_route() -> tuple[str, str]:
    """Return the method and the URL rule of the request. What the client sent could be secret, and is unbounded."""
    route = request.url_rule.rule if request.url_rule else "unmatched"
    return request.method if request.method in METHODS else "other", route


def elapsed() -> float:
    """Return the seconds since the request began: 0 if it did not come through the WSGI middleware."""
    now = perf_counter()
    return now - float(request.environ.get(STARTED, now))


def log_request(response: Response) -> Response:
    """Write the request's line. It holds neither path nor query."""
    method, route = method_and_route()
    line: dict[str, Any] = {
        "client": request.remote_addr,
        "method": method,
        "route": route,
        "status": response.status_code,
        "duration_ms": round(elapsed() * 1000, 3),
    }
    access_log.info("%(client)s %(method)s %(route)s %(status)d %(duration_ms)s ms", line, extra=line)
    return response


def init_app(app: Flask) -> None:
    """Log requests if ACCESS_LOG is on. The loggers are configured by wsgi.py."""
    if app.config["ACCESS_LOG"]:
        app.after_request(log_request)
