"""Request parsing: checks of every request, then the body for a schema."""

import json
import re
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import Flask, abort, current_app, request
from werkzeug.exceptions import BadRequest, HTTPException, LengthRequired, NotFound, RequestEntityTooLarge
from werkzeug.http import parse_date

from heroes.config import PREFIX
from heroes.web.fields import error, invalid

UNREADABLE = "There was an error parsing the body"
GRANIAN = "Granian"
# Bytes that are read before a chunked body is refused: some clients send all of it before they read the response.
DRAIN = 8 * 1024 * 1024
DRAIN_SECONDS = 1  # on Granian, where a million chunks of one byte take many seconds
# A Content-Type, which FastAPI parses as an email's header: with white space and parameters.
JSON = re.compile(r"\s*application/(?:[^/;]*\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
# Conditions of a request for a file. For some malformed dates Werkzeug's parser raises OverflowError.
DATES = {"HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE"}
# RFC 9110, 7.2, and RFC 3986, 3.2.2.
HOST = re.compile(r"(?P<name>\[[\w.~!$&'()*+,;=%:-]*\]|[\w.~!$&'()*+,;=%-]*)(?::[0-9]*)?", re.ASCII)


def find_operation(view: Any, method: str) -> Any:
    """Return the function that has an operation: the view or, if it is class-based, one of its methods; else None."""
    own = getattr(view, "view_class", None)
    functions = (view, getattr(own, method.lower(), None), getattr(own, "dispatch_request", None))
    return next((each for each in functions if hasattr(each, "operation")), None)


def read_whole_body(environ: WSGIEnvironment) -> None:
    """Read the body, and keep it for the view. Raise a 400, 411 or 413 if it is incomplete or too large."""
    length, coding = environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    if not length and coding is None:
        return
    if coding is not None and coding.lower() != "chunked":
        # No server here decodes another one, such as "gzip, chunked".
        raise BadRequest(UNREADABLE)
    # Without a length, a body that was cut short looks complete if the server does not mark the end of the input, or if
    # it is Granian, which ends the input where the connection broke.
    granian = environ.get("SERVER_SOFTWARE") == GRANIAN
    if not length and (granian or not environ.get("wsgi.input_terminated")):
        if granian and "HTTP_EXPECT" not in environ:
            deadline = time.monotonic() + DRAIN_SECONDS
            while time.monotonic() < deadline and environ["wsgi.input"].read(2**16):
                pass
        raise LengthRequired
    view = current_app.view_functions.get(request.endpoint or "")
    if length and view and not find_operation(view, request.method):
        # An ordinary Flask view reads its body itself: as a stream, or with a limit of its own. Werkzeug refuses a body
        # that is shorter than its length, but not if the server marks the end of the input.
        environ.pop("wsgi.input_terminated", None)
        return
    try:
        body = request.get_data(cache=False)
        # Werkzeug stops at the limit without an error.
        if not length and len(body) == request.max_content_length and environ["wsgi.input"].read(DRAIN):
            raise RequestEntityTooLarge
        if length and len(body) < int(length):
            raise BadRequest(UNREADABLE)
        # The view may read it as a stream, or with a limit of its own. It is no longer chunked (RFC 9112, 7.1.3).
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        for key in ("HTTP_TRANSFER_ENCODING", "wsgi.input_terminated"):
            environ.pop(key, None)
        del request.stream
    except HTTPException:
        raise
    except Exception:
        # A bad length or chunk, or a broken connection. Each server raises its own exception, which may quote the body.
        raise BadRequest(UNREADABLE) from None


def check_request() -> None:
    """Reject a request with an incomplete body, a bad Host or prefix, or "//" in its path."""
    environ = request.environ
    read_whole_body(environ)
    host = environ.get("HTTP_HOST")
    if environ.get("SERVER_SOFTWARE") == GRANIAN and (not host or "," in host):
        # Granian gives "" for a missing Host, and joins two by a comma.
        host = None
    match = HOST.fullmatch(host or "")
    # Only HTTP/1.0, which Granian calls HTTP/1, allows it to be missing (RFC 9112, 3.2).
    if match is None or (host is None and environ.get("SERVER_PROTOCOL") not in ("HTTP/1.0", "HTTP/1")):
        raise BadRequest
    if (allowed := current_app.config["ALLOWED_HOSTS"]) is not None:
        name, names = match["name"].lower().removesuffix("."), [each.lower() for each in allowed]
        if not any(name == each.lstrip(".") or (each[0] == "." and name.endswith(each)) for each in names):
            raise BadRequest
    if not PREFIX.fullmatch(request.script_root):
        raise BadRequest
    for name in DATES & environ.keys():
        try:
            parse_date(environ[name])
        except OverflowError:
            # A date that is not valid is ignored (RFC 9110, 13.1.3).
            del environ[name]
    # In the value of a `path` converter, "//" is allowed.
    if "//" in environ["PATH_INFO"] and not any("//" in str(each) for each in (request.view_args or {}).values()):
        raise NotFound


def environ_key(header: str) -> str:
    """Return the key of a header in the WSGI environ (PEP 3333)."""
    key = header.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def read_headers(keys: Mapping[str, str]) -> dict[str, str]:
    """Return those of the headers that the request has. Raises BadRequest if Granian dropped the value of one.

    keys: the names of the headers, and their keys in the WSGI environ.
    """
    environ = request.environ
    headers = {name: environ[key] for name, key in keys.items() if key in environ}
    if environ.get("SERVER_SOFTWARE") == GRANIAN and not all(each.strip(", ") for each in headers.values()):
        # It gives "" for a value that is not ASCII, and joins two by a comma. Without its If-None-Match, for example, a
        # request would change a row that it must not.
        raise BadRequest
    return headers


def read_body() -> Any:
    """Return the body as Python's json reads it. A body with another Content-Type stays bytes and fails validation."""
    body = request.get_data()
    if not body:
        raise invalid("missing")
    if not JSON.fullmatch(request.environ.get("CONTENT_TYPE", "")):
        return body
    try:
        return json.loads(body)
    except json.JSONDecodeError as failure:
        abort(422, [error("json_invalid", error=failure.msg) | {"loc": ["body", failure.pos]}])
    except ValueError:
        # Not UTF-8, -16 or -32; an integer of more digits than Python reads.
        raise BadRequest(UNREADABLE) from None


def init_app(app: Flask) -> None:
    """Check every request, also one whose view does not read the body."""
    app.url_map.strict_slashes = False
    app.before_request(check_request)


def match_without_slash(app: Flask) -> None:
    """Register each rule that ends with a slash also without it, after all rules are registered."""
    # Werkzeug's `strict_slashes=False` also matches a path without the slash, but a wrong method is a 404, not a 405.
    for rule in list(app.url_map.iter_rules()):
        if rule.rule.endswith("/") and rule.rule != "/" and rule.methods:
            # Flask sets it on each rule: whether it answers OPTIONS itself.
            automatic = getattr(rule, "provide_automatic_options", None)
            path, same = rule.rule.removesuffix("/"), rule.get_empty_kwargs()
            app.add_url_rule(path, provide_automatic_options=automatic, **same)
