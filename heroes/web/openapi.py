"""The API document, OpenAPI 3.1 made from the views' operations and schemas, at /openapi.json; Swagger UI at /docs."""

import inspect
import re
from importlib.resources import files
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Flask, current_app, make_response, redirect, render_template, request, url_for
from marshmallow import Schema, fields
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response

from heroes.config import TOKENLESS_METHODS, VERSION
from heroes.web.fields import Integer, String
from heroes.web.requests import find_operation
from heroes.web.responses import json_response


def json_content(schema: Any) -> dict[str, Any]:
    """Return the `content` of a request or response; apispec resolves the schema, or the name of a component."""
    return {"content": {"application/json": {"schema": schema}}}


VALIDATION_ERROR = {
    "loc": {"title": "Location", "type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
    "msg": {"title": "Message", "type": "string"},
    "type": {"title": "Error Type", "type": "string"},
    "input": {"title": "Input", "description": "Never sent; the tutorial's document has it"},
    "ctx": {"title": "Context", "type": "object"},
}
DETAIL = {"title": "Detail", "type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}
COMPONENTS: dict[str, dict[str, Any]] = {
    "HTTPError": {"properties": {"detail": {"type": "string"}}, "required": ["detail"]},
    "ValidationError": {"properties": VALIDATION_ERROR, "required": ["loc", "msg", "type"]},
    "HTTPValidationError": {"properties": {"detail": DETAIL}},
}

COMMON_ERRORS = {status: HTTP_STATUS_CODES[status] for status in (400, 413, 422, 503)} | {422: "Validation Error"}
TEXT = {"type": "string"}
ERROR = json_content("HTTPError")
CONTENT: dict[int, Any] = {204: {}, 304: {}, 422: json_content("HTTPValidationError")}
NOT_AUTHENTICATED = {"description": "Not authenticated", "headers": {"WWW-Authenticate": {"schema": TEXT}}} | ERROR

# Keywords that stay beside `anyOf`. Others limit values of one type; some generated clients would apply them to null.
ANNOTATIONS = {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"}
ANNOTATIONS |= {"externalDocs"}

# Swagger UI uses inline styles.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASSETS = f"{files('flask_swagger_ui')}/dist"  # Swagger UI's own files

blueprint = Blueprint("docs", __name__, static_folder=ASSETS, static_url_path="/docs/assets")


def describe_field(converter: Any, field: fields.Field[Any], ret: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Describe a field as FastAPI does. apispec calls this; `ret` is its own description of the field."""
    needs_title = isinstance(field.parent, Schema) and "title" not in ret
    title = {"title": (field.name or "").replace("_", " ").title()} if needs_title else {}
    if field.allow_none or getattr(field.parent, "partial", None):
        ret.pop("default", None)
    if "type" not in ret:
        return title
    kind = ret.pop("type")
    if isinstance(kind, list) and field.allow_none:
        types = [each for each in kind if each != "null"]
        kind = types[0] if len(types) == 1 else types
    schema: dict[str, Any] = {"type": kind}
    if isinstance(field, Integer):
        schema |= {key: bound for key, bound in (("minimum", field.ge), ("maximum", field.le)) if bound is not None}
    elif isinstance(field, String) and field.max_length is not None:
        # Not \u0000, which PCRE and RE2 don't know.
        schema |= {"maxLength": field.max_length, "pattern": r"^[^\x00]*$"}
    # What apispec made of the field's validators comes first. Its choices include null, which has its own schema.
    schema |= {key: ret.pop(key) for key in list(ret) if key not in ANNOTATIONS and not key.startswith("x-")}
    if "enum" in schema:
        schema["enum"] = [choice for choice in schema["enum"] if choice is not None]
    # apispec has None for the format of some dates.
    schema = {key: value for key, value in schema.items() if value is not None}
    return title | ({"anyOf": [schema, {"type": "null"}]} if field.allow_none else schema)


def describe(view: Any, path: str, method: str, resolver: Any) -> dict[str, Any]:
    """Describe an operation, named as FastAPI does: the view's name, the path and the method."""
    operation = view.operation
    name = re.sub(r"\W", "_", f"{view.__name__}{path}") + f"_{method}"
    summary, _, description = (inspect.getdoc(view) or "").partition("\n")
    success = resolver.resolve_schema_dict(operation.response) if operation.response else {}
    if "items" in success:
        success["title"] = f"Response {name.replace('_', ' ').title()}"
    content = CONTENT.get(operation.status, json_content(success))
    errors = COMMON_ERRORS | operation.errors
    if method == "get" and operation.headers and "if_none_match" in operation.headers.fields:
        errors[304] = "Not Modified"
    # Some generated clients take them by position: the tutorial's come first.
    parts = {"path": operation.path, "query": operation.query, "header": operation.headers}
    variables = [] if operation.path else re.findall(r"{(\w+)}", path)
    described: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "parameters": [
            *({"in": "path", "name": variable, "required": True, "schema": TEXT} for variable in variables),
            *({"in": place, "schema": schema} for place, schema in parts.items() if schema),
        ],
        "responses": {operation.status: {"description": "Successful Response"} | content},
    }
    for status, meaning in errors.items():
        other = CONTENT.get(status, content if status < 300 else ERROR)
        described["responses"][status] = {"description": meaning} | other
    if description.strip():
        described["description"] = description.strip()
    if operation.body:
        described["requestBody"] = {"required": True} | json_content(operation.body)
    return described


def document(app: Flask) -> dict[str, Any]:
    """Return the document of the views that have an operation."""
    plugin = MarshmallowPlugin()
    spec = APISpec(app.name, VERSION, "3.1.0", plugins=[plugin])
    plugin.map_to_openapi_type(Integer, fields.Integer)  # type: ignore[no-untyped-call]
    plugin.map_to_openapi_type(String, fields.String)  # type: ignore[no-untyped-call]
    plugin.map_to_openapi_type(fields.Decimal, "string", None)  # type: ignore[no-untyped-call]
    assert plugin.converter is not None and plugin.resolver is not None
    plugin.converter.add_attribute_function(describe_field)  # type: ignore[no-untyped-call]
    for name, schema in COMPONENTS.items():
        spec.components.schema(name, {"type": "object"} | schema)
    asks_for_tokens = app.config["API_TOKENS"] is not None
    if asks_for_tokens:
        spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    paths = {rule.rule for rule in app.url_map.iter_rules()}
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        # Of two rules that differ in a slash at the end only the one with it; see requests.match_without_slash().
        if f"{rule.rule}/" in paths:
            continue
        path = re.sub(r"<(?:[^<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if documented := find_operation(view, method):
                described = describe(documented, path, method.lower(), plugin.resolver)
                if asks_for_tokens and method not in TOKENLESS_METHODS[app.config["API_TOKENS_PROTECT"]]:
                    described["security"] = [{"bearer": []}]
                    described["responses"][401] = NOT_AUTHENTICATED
                spec.path(path, operations={method.lower(): described})
    result = spec.to_dict()
    for name, schema in result["components"]["schemas"].items():
        schema.setdefault("title", name)
    return result


@blueprint.get("/")
@blueprint.get("/redoc")
def index() -> Response:
    """Redirect to Swagger UI. Every packaged ReDoc needs a CDN or eval."""
    return redirect(url_for("docs.swagger_ui"))


@blueprint.get("/docs")
def swagger_ui() -> Response:
    return make_response(render_template("docs.html"), {"Content-Security-Policy": PAGE_POLICY})


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    """Serve the API document, which is made at the first request: start-up does not pay for it."""
    if "heroes.openapi" not in current_app.extensions:
        current_app.extensions["heroes.openapi"] = document(current_app)
    spec: dict[str, Any] = current_app.extensions["heroes.openapi"]
    return json_response(spec | ({"servers": [{"url": request.script_root}]} if request.script_root else {}))
