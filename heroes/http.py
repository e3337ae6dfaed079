"""Requests in, whole or refused, and through the schemas; answers out, through the schemas and as compact JSON."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from email.message import Message
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import flask
from flask.sessions import NullSession, SessionInterface
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge
from werkzeug.routing import MapAdapter

from heroes.errors import BodyUnreadable, ResourceNotFound, Unprocessable, json_invalid, located
from heroes.extensions import JSONProvider, JSONResponse
from heroes.fields import Fault, fault

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# What may be in a Host: RFC 9110, 7.2, which takes it from RFC 3986, 3.2.2.
HOST = re.compile(r"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
SAFE_METHODS = frozenset({"GET", "HEAD"})
OUT_OF_RANGE = ("less_than_equal", "greater_than_equal")

# What a view gives: content for its schema and headers, or a whole response.
Answer = tuple[Any, dict[str, str]] | flask.Response


class Request(flask.Request):
    """A request whose body is whole or refused: Werkzeug would stop reading, without a word, at the limit and where
    the connection closes early."""

    def __init__(self, environ: "WSGIEnvironment", *args: Any, **kwargs: Any) -> None:
        # Werkzeug would take "get" for GET; methods are case-sensitive (RFC 9110, 9.1), so that is one nobody knows.
        if not environ["REQUEST_METHOD"].isupper():
            environ["REQUEST_METHOD"] = f"UNKNOWN-{environ['REQUEST_METHOD']}"
        if "#" in environ.get("RAW_URI", ""):
            # No part of a request's target (RFC 9112, 3.2), where gunicorn cuts it off; the tutorial's server reads on.
            path, _, environ["QUERY_STRING"] = environ["RAW_URI"].partition("?")
            environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
        if environ["PATH_INFO"].endswith("//") and (path := environ["PATH_INFO"].rstrip("/")).count("/") > 1:
            # Slashes behind an id do no harm, however many; behind a list two make another path.
            environ["PATH_INFO"] = path
        super().__init__(environ, *args, **kwargs)

    def close(self) -> None:
        """Closes the files of a form, were there any."""
        if "files" in vars(self):
            super().close()

    # Flask asks for them three times a request.
    blueprints = cached_property(flask.Request.blueprints.fget)  # type: ignore[attr-defined]

    @cached_property
    def body(self) -> bytes:
        """The whole body, of at most MAX_CONTENT_LENGTH bytes; empty where there is none.

        Raises RequestEntityTooLarge, and BodyUnreadable where the body is cut short or badly chunked.
        """
        if not self.environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in self.environ:
            return b""
        length, limit = self.content_length, self.max_content_length
        if limit is None or (length or 0) > limit:
            raise RequestEntityTooLarge
        try:
            body: bytes = self.environ["wsgi.input"].read(limit + 1 if length is None else length)
        except Exception:
            # Each server has its own exceptions for a bad chunk or an early end; to the client they are all the same.
            raise BodyUnreadable from None
        if len(body) > limit:
            raise RequestEntityTooLarge
        if length is not None and len(body) < length:
            raise BodyUnreadable
        return body


class NoSessions(SessionInterface):
    """Nothing is kept in a cookie."""

    null = NullSession()

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        """The session that every request has, and none may write to."""
        return self.null


class Service(flask.Flask):
    """Flask with our requests and answers, and without what no view here needs and each request would pay for."""

    request_class = Request
    json_provider_class = JSONProvider
    session_interface = NoSessions()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False
        self.before_request(refuse_early)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function: none is asynchronous."""
        return func

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """What matches the request's path. No rule looks at the host, so neither does this, but for TRUSTED_HOSTS."""
        if request is None or self.config["TRUSTED_HOSTS"] is not None:
            return super().create_url_adapter(request)
        environ = request.environ
        return MapAdapter(
            self.url_map,
            environ["SERVER_NAME"],
            environ["SCRIPT_NAME"],
            "",
            environ["wsgi.url_scheme"],
            request.path,
            request.method,
            environ["QUERY_STRING"],
        )


def current_request() -> Request:
    """The request itself: Flask's proxy would look for it again at each attribute."""
    return flask.request._get_current_object()  # type: ignore[attr-defined, no-any-return]


def refuse_early() -> None:
    """Before each request: its body is read, also where no view asks for it, and its Host must be one. A path with two
    slashes in a row, which Werkzeug reads as one, is unknown. Raises as Request.body does, BadRequest and NotFound."""
    request = current_request()
    _ = request.body
    if not HOST.fullmatch(request.environ.get("HTTP_HOST", "")):
        raise BadRequest
    if "//" in request.environ["PATH_INFO"]:
        raise NotFound


def needs_token(protect: str, method: str) -> bool:
    """Whether API_TOKENS_PROTECT `protect` asks for a token on a method. A preflight can carry none."""
    return method != "OPTIONS" and (protect == "all" or method not in SAFE_METHODS)


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type is application/json or application/*+json; read like a mail's, as the tutorial does."""
    if content_type in (None, "application/json"):
        return content_type is not None
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def read_path(request: Request, _: Schema) -> Any:
    """The values in the path."""
    return request.view_args


def read_query(request: Request, _: Schema | None = None) -> Mapping[str, str]:
    """The query; of a repeated key the last counts."""
    return {key: values[-1] for key, values in request.args.lists()} if request.query_string else {}


def read_headers(request: Request, schema: Schema) -> Mapping[str, str]:
    """Of the headers those that the schema names."""
    keys = (field.data_key for field in schema.load_fields.values())
    return {key: value for key in keys if key and (value := request.headers.get(key)) is not None}


def read_body(request: Request, _: Schema) -> Any:
    """The body as Python's json reads it. One that isn't sent as JSON stays bytes, and so is no object.

    Raises ValidationError where there is none, Unprocessable where it is no JSON, BodyUnreadable where it is no text.
    """
    if not request.body:
        raise ValidationError([fault("missing")])
    if not is_json(request.environ.get("CONTENT_TYPE")):
        return request.body
    try:
        return json.loads(request.body)
    except json.JSONDecodeError as error:
        raise json_invalid(error.msg, error.pos) from None
    except (ValueError, RecursionError):
        # No UTF-8, -16 or -32; an integer of more digits than Python reads; nested too deep.
        raise BodyUnreadable from None


# flask-smorest's words for the parts of a request, in the order in which their faults are reported -> the tutorial's
# words, and what reads them.
PARTS: dict[str, tuple[str, Callable[[Request, Schema], Any]]] = {
    "path": ("path", read_path),
    "query": ("query", read_query),
    "json": ("body", read_body),
    "headers": ("header", read_headers),
}


def located_faults(place: str, messages: Any) -> list[Fault]:
    """The faults that a schema found in one part of the request, in the order of its fields. An integer out of range is
    none in a path: there is just nothing there."""
    if isinstance(messages, list):
        return [located(fault, place) for fault in messages]
    faults = [located(fault, place, name.lower()) for name, fault in messages.items()]
    return [fault for fault in faults if place != "path" or fault["type"] not in OUT_OF_RANGE]


def load(*parts: tuple[str, Schema]) -> list[dict[str, Any]]:
    """What the schemas make of the current request's parts, each named as in PARTS.

    Raises Unprocessable with the faults of all of them, NotFound where an id in the path is merely out of range, and
    what read_body raises.
    """
    request = current_request()
    loaded: list[dict[str, Any]] = []
    faults: list[Fault] = []
    for name, schema in parts:
        place, read = PARTS[name]
        try:
            loaded.append(schema.load(read(request, schema)))
        except ValidationError as error:
            faults += located_faults(place, error.messages)
    if faults:
        raise Unprocessable(faults)
    if len(loaded) < len(parts):
        raise ResourceNotFound(parts[0][1].not_found)  # type: ignore[attr-defined]
    return loaded


def operation(
    view: Callable[..., Answer], parts: Iterable[tuple[str, Schema]], schema: Schema | None
) -> Callable[..., flask.Response]:
    """What Flask calls for a view: the request's parts through their schemas, the view, its content through `schema`.

    The view gets what is in the path by name, then the other parts in the order of PARTS. Without a schema its content
    is dumped as it is.
    """
    ordered = sorted(parts, key=lambda part: list(PARTS).index(part[0]))
    has_path = any(name == "path" for name, _ in ordered)

    @wraps(view)
    def operate(**_: str) -> flask.Response:
        loaded = load(*ordered)
        answer = view(*loaded[1:], **loaded[0]) if has_path else view(*loaded)
        if isinstance(answer, flask.Response):
            return answer
        content, headers = answer
        return JSONResponse(schema.dump(content) if schema else content, headers)

    return operate
