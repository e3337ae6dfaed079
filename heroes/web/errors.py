"""Error handlers: every error is {"detail": …}."""

import re
import sys
from collections.abc import Iterator
from typing import Any

from flask import Flask, current_app, request
from marshmallow.exceptions import SCHEMA
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug import exceptions

from heroes.storage.postgresql import READ_ONLY
from heroes.web.fields import Error, error
from heroes.web.requests import GRANIAN
from heroes.web.responses import json_response

NO_MORE_IDS = "2200H"  # SQLSTATE of a sequence at its end
# SQLSTATEs of PostgreSQL, and SQLite's names of its result codes. The database can't serve: it is read-only, lacks a
# privilege, a table, a column (on SQLite these are OperationalErrors) or further ids, has text that is not UTF-8, or is
# damaged.
CANNOT_SERVE = {READ_ONLY, NO_MORE_IDS, "42501", "42P01", "42703", "22021", "XX001", "XX002", "SQLITE_NOTADB"}
CANNOT_SERVE |= {"SQLITE_CORRUPT", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_SEQUENCE"}
# Messages of SQLite for a schema that is behind.
MISSING = re.compile("no such (table|column)|table .* has no column", re.DOTALL)
FOREIGN_KEY = {"23503", "SQLITE_CONSTRAINT_FOREIGNKEY"}
UNIQUE = {"23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}
# TAKEN_ID matches the detail of a unique violation on the id, in any language; NO_ID an INSERT without an id.
TAKEN_ID, NO_ID = re.compile(r"[^(]*\(id\)=\("), re.compile(r"INSERT INTO [^(]+\((?!id\b|[^)]* id\b)")
# Werkzeug's own descriptions are prose: the name of the status replaces them.
NO_DETAIL = [None, "", *(each.description for each in exceptions.default_exceptions.values())]
# What marshmallow's fields raise an OverflowError for, such as a date that leaves the calendar in UTC.
OUT_OF_RANGE = "Date or number out of range."
UNTRANSLATABLE, INVALID_TEXT = "22P05", "22P02"  # SQLSTATEs of characters, and of JSON among others
CANNOT_STORE = "The database can't store one of the values"
QUOTING = ("22", "P0")  # the classes of SQLSTATEs whose messages may quote values: data exceptions, RAISE in a trigger


def located_errors(messages: Any, *loc: str | int) -> Iterator[Error]:
    """Yield the errors in the `messages` of a marshmallow ValidationError, nested ones too, each with its `loc`."""
    if isinstance(messages, list):
        for message in messages:
            yield from located_errors(message, *loc)
    elif not isinstance(messages, dict):
        # Text, or a lazy translation. marshmallow passes on whatever `error_messages` has.
        yield error("value_error", str(messages)) | {"loc": list(loc)}
    elif {"type", "loc", "msg"} <= messages.keys():
        yield messages | {"loc": list(loc)}
    else:
        for key, nested in messages.items():
            # FastAPI has the name of a header in lower case.
            name = key.lower() if loc == ("header",) else key
            yield from located_errors(nested, *loc, *([] if key == SCHEMA else [name]))


def handle_http_exception(error: exceptions.HTTPException) -> Any:
    """Return the error's detail and headers (Allow, Retry-After, WWW-Authenticate)."""
    if error.response is not None:
        return error.response  # it was passed to abort()
    detail = error.name if error.description in NO_DETAIL else error.description
    response = json_response({"detail": detail}, error.code, error.get_headers())
    if error.code in (411, 413) and request.environ.get("SERVER_SOFTWARE") == GRANIAN:
        # A part of the body is unread. Other servers decide themselves: PEP 3333 forbids an app to set this header.
        # For gunicorn see pre_request in gunicorn.conf.py.
        response.headers["Connection"] = "close"
    return response


def unavailable(message: str, reason: str | None = None) -> exceptions.HTTPException:
    """Log the message, and return a 503. reason: the detail for the client."""
    current_app.logger.error("database unavailable: %s", message)
    # A second: a lock or a failover is usually over by then.
    return exceptions.ServiceUnavailable(reason, retry_after=1)


def classify(error: StatementError) -> exceptions.HTTPException:
    """Return a 503 if the database can't serve, a 409 or 400 if it refuses a value, else a 500, which is a bug."""
    if not isinstance(error, DBAPIError):
        # A column's type can't convert a value, for example NaN in JSON.
        if isinstance(error.orig, (ValueError, OverflowError)):
            return exceptions.BadRequest(CANNOT_STORE)
        raise error
    # A message that quotes a row or a value must not be logged. sqlite3 quotes what it can't decode.
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or ""
    diag = getattr(error.orig, "diag", None)
    message, *_ = re.split(r"\n| with text ", str(getattr(diag, "message_primary", None) or error.orig))
    # RAISE in a function of PostgreSQL may have any code.
    raised = getattr(diag, "source_function", None) == "exec_stmt_raise"
    quoting = raised or (code.startswith(QUOTING) and code != NO_MORE_IDS)
    log_line = f"{code} {'' if quoting else message} [{error.statement}]"
    # SQLITE_ERROR stands for errors in SQL, too.
    operational = isinstance(error, (OperationalError, InterfaceError))
    operational &= code != "SQLITE_ERROR" or MISSING.match(message) is not None
    if operational or error.connection_invalidated or code in CANNOT_SERVE:
        return unavailable(log_line, "Database is read-only" if code == READ_ONLY else None)
    taken = TAKEN_ID.match(str(getattr(diag, "message_detail", "")))
    if code in UNIQUE and taken and NO_ID.match(str(error.statement)):
        # PostgreSQL's sequence generated an id that a row has: a restore may have left out the sequence.
        return unavailable(log_line)
    if code in FOREIGN_KEY:
        if request.method == "DELETE":
            return exceptions.Conflict("Still in use")
        return exceptions.Conflict("Refers to something that does not exist")
    if isinstance(error, IntegrityError):
        return exceptions.Conflict("Already exists" if code in UNIQUE else None)
    in_json = str(getattr(diag, "source_file", None)).startswith("json")
    if code == UNTRANSLATABLE or (code == INVALID_TEXT and in_json):
        return exceptions.BadRequest(CANNOT_STORE)
    # Not logger.exception(): the message of the exception may quote the row.
    bug = RuntimeError(log_line).with_traceback(sys.exc_info()[2])
    current_app.logger.error("database error", exc_info=bug)
    return exceptions.InternalServerError(original_exception=error)


def init_app(app: Flask) -> None:
    """Register the handlers. Flask logs any other exception, and makes an InternalServerError of it."""
    app.register_error_handler(exceptions.HTTPException, handle_http_exception)
    app.register_error_handler(StatementError, lambda error: app.handle_http_exception(classify(error)))
    app.register_error_handler(PoolTimeout, lambda error: app.handle_http_exception(unavailable(str(error))))
