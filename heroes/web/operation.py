"""The decorator of a view: validate the request, serialize the response."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from flask import abort, current_app, g, request
from marshmallow import Schema, ValidationError
from marshmallow.fields import List
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from heroes.web.errors import OUT_OF_RANGE, located_errors
from heroes.web.fields import Error
from heroes.web.requests import UNREADABLE, environ_key, read_body, read_headers
from heroes.web.responses import json_response

SchemaLike = Schema | type[Schema] | None


class operation:
    """Validate the parts of a request, call the view with them, and return its result as JSON.

    The view gets the loaded query or body as a positional argument, and what is in the path and the headers by name. It
    returns a Response, or content, which may be in a tuple with headers, as in Flask. The schema `response` dumps the
    content; without one it must be JSON-serializable. errors: descriptions of further statuses, for the API document.
    Aborts with 422 and the validation errors of all parts.
    """

    def __init__(
        self,
        *,
        path: SchemaLike = None,
        query: SchemaLike = None,
        body: SchemaLike = None,
        headers: SchemaLike = None,
        response: SchemaLike = None,
        status: int = 200,
        errors: Mapping[int, str] | None = None,
    ) -> None:
        schemas = (path, query, body, headers, response)
        instances = (each() if isinstance(each, type) else each for each in schemas)
        self.path, self.query, self.body, self.headers, self.response = instances
        self.status, self.errors = status, errors or {}

    def __call__(self, view: Callable[..., Any]) -> Callable[..., Any]:
        headers = self.headers.fields if self.headers else {}
        keys = {name: environ_key(name) for name in (field.data_key or key for key, field in headers.items())}
        query = self.query.fields if self.query else {}
        lists = {field.data_key or name for name, field in query.items() if isinstance(field, List)}
        readers: list[tuple[str, Schema | None, Callable[[], Any]]] = [
            ("path", self.path, lambda: request.view_args),
            # The last value of a repeated key, unless the field is a list.
            ("query", self.query, lambda: {key: x if key in lists else x[-1] for key, x in request.args.lists()}),
            ("body", self.body, read_body),
            ("header", self.headers, lambda: read_headers(keys)),
        ]
        parts = [(place, schema.load, read) for place, schema, read in readers if schema]

        @wraps(view)
        def operate(*this: Any, **view_args: Any) -> Any:  # this: the instance of a class-based view
            arguments: list[Any] = []
            named: dict[str, Any] = {} if self.path else view_args
            failures: list[Error] = []
            for place, load, read in parts:
                try:
                    loaded = load(read())
                except (ValidationError, OverflowError) as error:
                    failures += located_errors(getattr(error, "messages", OUT_OF_RANGE), place)
                    continue
                except RecursionError:
                    if place != "body":
                        raise
                    current_app.logger.warning("a body is nested too deep, or a schema's hook recurses")
                    raise BadRequest(UNREADABLE) from None
                if place in ("query", "body"):
                    arguments.append(loaded)
                else:
                    named |= loaded
            if failures:
                abort(422, failures)
            # Resource.create() needs it to make a response itself.
            g.heroes_operation = self
            result = current_app.ensure_sync(view)(*this, *arguments, **named)
            content, *rest = result if isinstance(result, tuple) else (result,)
            if isinstance(content, Response):
                return result
            if self.response:
                content = self.response.dump(content)
            response = json_response(content, self.status)
            return (response, *rest) if rest else response

        operate.operation = self  # type: ignore[attr-defined]
        return operate
