"""The decorator of a view: what goes in and what comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flask import Response, current_app, request
from marshmallow import Schema, ValidationError

from heroes.web.errors import ValidationFailed, located_errors
from heroes.web.fields import Error
from heroes.web.requests import read_body, read_query
from heroes.web.responses import json_response

View = Callable[..., Any]
SchemaLike = Schema | type[Schema]


@dataclass(frozen=True)
class Operation:
    """The arguments of `operation`, from which the API document is made."""

    path: Schema | None
    query: Schema | None
    body: Schema | None
    headers: Schema | None
    response: Schema | None
    status: int
    errors: Mapping[int, str]


def instance(schema: SchemaLike | None) -> Schema | None:
    """Return an instance of a schema that may be given as a class."""
    return schema() if isinstance(schema, type) else schema


def header_reader(schema: Schema) -> Callable[[], dict[str, str]]:
    """Return a function that reads the headers that a schema names, all of which are optional."""
    names = [str(field.data_key or name) for name, field in schema.load_fields.items()]
    return lambda: {name: request.headers[name] for name in names if name in request.headers}


def header_error(error: Error) -> Error:
    """Return an error of a header with its name in lower case, as FastAPI has it."""
    return error | {"loc": [error["loc"][0], *(str(part).lower() for part in error["loc"][1:])]}


def operation(
    *,
    path: SchemaLike | None = None,
    query: SchemaLike | None = None,
    body: SchemaLike | None = None,
    headers: SchemaLike | None = None,
    response: SchemaLike | None = None,
    status: int = 200,
    errors: Mapping[int, str] | None = None,
) -> Callable[[View], View]:
    """Validate the parts of a request, call the view with them, and answer with what it returns, as JSON.

    The view gets the loaded query or body as a positional argument, and what is in the path and the headers by name. It
    returns a Response, or content, which may be in a tuple with headers, as in Flask. The schema `response` dumps the
    content; without one it must be JSON-serializable. errors: descriptions of further statuses, for the API document.
    Raises ValidationFailed with the errors of all parts.
    """
    path, query, body, headers, response = map(instance, (path, query, body, headers, response))
    spec = Operation(path, query, body, headers, response, status, errors or {})
    readers: list[tuple[str, Schema | None, Callable[[], Any]]] = [
        ("path", spec.path, lambda: request.view_args),
        ("query", spec.query, read_query),
        ("body", spec.body, read_body),
        ("header", spec.headers, header_reader(spec.headers) if spec.headers else dict),
    ]
    parts = [(place, schema.load, read) for place, schema, read in readers if schema]
    dump = spec.response.dump if spec.response else None

    def decorate(view: View) -> View:
        @wraps(view)
        def operate(**view_args: Any) -> Any:
            arguments: list[Any] = []
            named: dict[str, Any] = {}
            failures: list[Error] = []
            for place, load, read in parts:
                try:
                    data = read()
                    # Most requests have none of the headers.
                    loaded = load(data) if data or place != "header" else {}
                except ValidationError as error:
                    found = located_errors(error.messages, place)
                    failures += map(header_error, found) if place == "header" else found
                    continue
                if place in ("query", "body"):
                    arguments.append(loaded)
                else:
                    named |= loaded
            if failures:
                raise ValidationFailed(failures)
            result = current_app.ensure_sync(view)(*arguments, **named)
            if isinstance(result, Response):
                return result
            content, *rest = result if isinstance(result, tuple) else (result,)
            answer = json_response(dump(content) if dump else content, status)
            return (answer, *rest) if rest else answer

        operate.operation = spec  # type: ignore[attr-defined]
        return operate

    return decorate
