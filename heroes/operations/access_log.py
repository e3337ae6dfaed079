"""One log line per request."""

import logging
from time import perf_counter
from typing import Any

from flask import Flask, Response, request

# Any other method may hold data: the rest of a body that is longer than its Content-Length is read as a method.
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"})
STARTED = "heroes.started"  # key of the WSGI environ: perf_counter() at the start of the request

logger = logging.getLogger("heroes.access")


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
    logger.info("%(client)s %(method)s %(route)s %(status)d %(duration_ms)s ms", line, extra=line)
    return response


def init_app(app: Flask) -> None:
    """Log requests if ACCESS_LOG is on. The loggers are configured by wsgi.py."""
    if app.config["ACCESS_LOG"]:
        app.after_request(log_request)
