"""The one error envelope: {"detail": …}, for whatever goes wrong, on whichever path."""

from typing import Any

from flask import Flask, Response, current_app
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    NotFound,
    PreconditionFailed,
    ServiceUnavailable,
    UnprocessableEntity,
)

from heroes.extensions import JSONResponse
from heroes.fields import Fault, fault

RETRY_AFTER = 1  # second: a lock or a failover is over by then, or the client asks again


class Unprocessable(UnprocessableEntity):
    """422 with the faults of the request, each {"type", "loc", "msg", "ctx"?}."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__()
        self.detail = faults


class ResourceNotFound(NotFound):
    """404 in the words of the resource."""

    def __init__(self, detail: str) -> None:
        super().__init__()
        self.detail = detail


class HeroChanged(PreconditionFailed):
    """412: the hero is not, or no longer, what the client's If-Match says."""

    detail = "Hero has changed"


class BodyUnreadable(BadRequest):
    """400: the body can't be decoded, in the tutorial's words."""

    detail = "There was an error parsing the body"


def located(entry: Fault, *loc: str | int) -> Fault:
    """A fault with its place, keys in the tutorial's order."""
    return {"type": entry["type"], "loc": list(loc), "msg": entry["msg"]} | (
        {"ctx": entry["ctx"]} if "ctx" in entry else {}
    )


def json_invalid(message: str, position: int) -> Unprocessable:
    """A JSON syntax error, in the words of Python's json and reported alone."""
    return Unprocessable([located(fault("json_invalid") | {"ctx": {"error": message}}, "body", position)])


def handle_http_exception(error: HTTPException) -> Response:
    """Any HTTP error in the envelope, with its own headers (Allow, Retry-After, WWW-Authenticate)."""
    # Werkzeug's own descriptions are sentences for people; without a detail of ours the status' name is the answer.
    response = JSONResponse({"detail": getattr(error, "detail", None) or error.name}, status=error.code or 500)
    response.headers.extend((key, value) for key, value in error.get_headers() if key != "Content-Type")
    return response


def handle_database_fault(error: DBAPIError | PoolTimeout) -> Response:
    """503 for a database that is locked, full, read-only, damaged, out of reach, behind, or has no connection left."""
    current_app.logger.error("database fault: %s", error)
    return handle_http_exception(ServiceUnavailable(retry_after=RETRY_AFTER))


def init_app(app: Flask) -> None:
    """Registers the handlers. What nothing here knows is logged by Flask and becomes a bare 500."""
    handlers: dict[type[Exception], Any] = {
        HTTPException: handle_http_exception,
        DBAPIError: handle_database_fault,
        PoolTimeout: handle_database_fault,
    }
    for exception, handler in handlers.items():
        app.register_error_handler(exception, handler)
