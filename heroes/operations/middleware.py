"""The WSGI middleware around Flask: the request's id and target, and the headers of every response."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from random import getrandbits
from time import perf_counter
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from heroes.operations.access_log import STARTED
from heroes.operations.logs import request_id

# A client's own id, unless it could break out of a log line or a header.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LIST_AND_NEWLINE = re.compile(r"/[^/]+/\n")
HEADERS = [
    # A cache in front may otherwise store a response for some time (RFC 9111, 4.2.2).
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
]
# Those of uvicorn. Werkzeug's are in capitals.
STATUS_LINES = {str(each.value): f"{each.value} {each.phrase}" for each in HTTPStatus}


def normalize_target(environ: WSGIEnvironment) -> None:
    """Normalize the target, the method and an upgrade as uvicorn, the tutorial's server, does."""
    environ.setdefault("PATH_INFO", "")  # PEP 3333 lets a server omit it if it is empty
    # Methods are case-sensitive (RFC 9110, 9.1); Werkzeug upper-cases them. Keep "get" from matching GET.
    if not environ["REQUEST_METHOD"].isupper():
        environ["REQUEST_METHOD"] = f"UNKNOWN-{environ['REQUEST_METHOD']}"
    # Werkzeug matches an offer of a WebSocket with rules for WebSockets only: remove this line if you add one.
    # A server may ignore Upgrade (RFC 9110, 7.8).
    environ.pop("HTTP_UPGRADE", None)
    # "#" is not allowed in a target (RFC 9112, 3.2). gunicorn truncates there, uvicorn does not.
    if "#" in environ.get("RAW_URI", ""):
        path, _, environ["QUERY_STRING"] = environ["RAW_URI"].partition("?")
        path = unquote_to_bytes(path).decode("latin-1")
        environ["PATH_INFO"] = path.removeprefix(environ.get("SCRIPT_NAME", ""))
    # Starlette's patterns end with "$", which also matches before a newline: /heroes/%0A is the list. For the methods
    # that a list lacks it is a hero with the id "\n".
    if environ["REQUEST_METHOD"] in ("GET", "POST") and LIST_AND_NEWLINE.fullmatch(environ["PATH_INFO"]):
        environ["PATH_INFO"] = environ["PATH_INFO"].removesuffix("\n")
    # FastAPI ignores slashes at the end of /heroes/{hero_id}, but not at the end of /heroes/.
    if environ["PATH_INFO"].endswith("//") and (path := environ["PATH_INFO"].rstrip("/")).count("/") > 1:
        environ["PATH_INFO"] = path


def respond(wsgi_app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give each request an id, the client's own if well-formed, and each response that id and the security headers."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    this_id = given if REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"
    environ[STARTED] = perf_counter()
    normalize_target(environ)

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        if status.isupper():
            status = STATUS_LINES.get(status[:3], status)
        names = {name.lower() for name, _ in headers}
        defaults = [("X-Request-ID", this_id), *HEADERS]
        headers += [header for header in defaults if header[0].lower() not in names]
        return start_response(status, headers, *exc_info)

    token = request_id.set(this_id)
    try:
        return wsgi_app(environ, start)
    finally:
        request_id.reset(token)
