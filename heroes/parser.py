"""From request to schema: the webargs parser, reading bodies and queries as the tutorial does."""

import json
import re
from collections.abc import Mapping
from email.message import Message
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import flask
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge
from werkzeug.utils import cached_property

from heroes.errors import BodyUnreadable, Unprocessable, json_invalid, located
from heroes.fields import Fault, fault

# webargs' word for a part of the request -> the tutorial's.
PLACES = {"json": "body", "headers": "header"}
# What may be in a Host: RFC 9110, 7.2, which takes it from RFC 3986, 3.2.2.
HOST = re.compile(r"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
OUT_OF_RANGE = ("less_than_equal", "greater_than_equal")


class Request(flask.Request):
    """A request whose body is whole or refused: Werkzeug would stop reading, without a word, at the limit and where
    the connection closes early."""

    def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
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


def refuse_early() -> None:
    """Before each request: its body is read, also where no view asks for it, and its Host must be one. A path with two
    slashes in a row, which Werkzeug reads as one, is unknown. Raises as Request.body does, BadRequest and NotFound."""
    request = current()
    _ = request.body
    if not HOST.fullmatch(request.environ.get("HTTP_HOST", "")):
        raise BadRequest
    if "//" in request.environ["PATH_INFO"]:
        raise NotFound


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type is application/json or application/*+json; read like a mail's, as the tutorial does."""
    if content_type in (None, "application/json"):
        return content_type is not None
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def located_faults(location: str, messages: Any) -> list[Fault]:
    """The faults that a schema found in one location of the request, in the order of its fields."""
    place = PLACES.get(location, location)
    whole = messages if isinstance(messages, list) else messages.get("_schema")
    if whole is not None:
        return [located(fault, place) for fault in whole]
    return [located(fault, place, name.lower()) for name, fault in messages.items()]


def current() -> Request:
    """The request itself: Flask's proxy would look for it again at each attribute."""
    request: Request = flask.request._get_current_object()  # type: ignore[attr-defined]
    return request


class Parser(FlaskParser):
    """JSON bodies, queries, paths and headers as the tutorial reads them, every fault an entry of one 422."""

    # Unknown keys are the schemas' affair, wherever they come from.
    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {}

    def get_default_request(self) -> Request:
        """The request whose parts are loaded."""
        return current()

    def load_json(self, req: Any, schema: Schema) -> Any:
        """The body as Python's json reads it. One that isn't sent as JSON stays bytes, and so is no object."""
        if not req.body:
            raise ValidationError([fault("missing")])
        if not is_json(req.headers.get("Content-Type")):
            return req.body
        try:
            return json.loads(req.body)
        except json.JSONDecodeError as error:
            raise json_invalid(error.msg, error.pos) from None
        except (ValueError, RecursionError):
            # No UTF-8, -16 or -32; an integer of more digits than Python reads; nested too deep.
            raise BodyUnreadable from None

    def load_querystring(self, req: flask.Request, schema: Schema) -> Mapping[str, str]:
        """The query; of a repeated key the last counts."""
        return {key: values[-1] for key, values in req.args.lists()} if req.query_string else {}

    def load_headers(self, req: flask.Request, schema: Schema) -> Mapping[str, str]:
        """Of the headers those that the schema names."""
        keys = (field.data_key for field in schema.load_fields.values())
        return {key: value for key in keys if key and (value := req.headers.get(key)) is not None}

    def handle_error(self, error: ValidationError, req: flask.Request, schema: Schema, **kwargs: Any) -> NoReturn:
        """Raises Unprocessable, the path's faults first; NotFound where an id is merely out of range."""
        [(location, messages)] = error.messages_dict.items()
        path = path_schema(req)
        faults = []
        if path is not None:
            try:
                path.load(req.view_args or {})
            except ValidationError as path_error:
                faults = located_faults("path", path_error.messages_dict)
        faults = [fault for fault in faults if fault["type"] not in OUT_OF_RANGE]
        if location != "path":
            faults += located_faults(location, messages)
        raise Unprocessable(faults) if faults else not_found(path)


def path_schema(request: flask.Request) -> Schema | None:
    """The schema by which the request's view takes its path, if it takes any."""
    view = flask.current_app.view_functions[request.endpoint or ""]
    parameters = vars(view)["_apidoc"]["arguments"]["parameters"]
    return next((parameter["schema"] for parameter in parameters if parameter["in"] == "path"), None)


def not_found(path: Schema | None) -> NotFound:
    """404 in the words of the path's schema."""
    error = NotFound()
    error.detail = getattr(path, "not_found", None)  # type: ignore[attr-defined]
    return error
