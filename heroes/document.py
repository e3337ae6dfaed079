"""The API document, OpenAPI 3.1 generated from schemas and views, and the pages that show it."""

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

import flask
import flask_smorest
from flask import Flask, current_app, redirect, render_template, url_for
from flask_smorest.spec.plugins import FlaskPlugin
from marshmallow import Schema, fields
from werkzeug.wrappers import Response

from heroes.config import VERSION
from heroes.extensions import JSONResponse
from heroes.fields import Int, OneOf, Str
from heroes.http import needs_token, operation

View = TypeVar("View", bound=Callable[..., Any])

ERROR = {"type": "object", "title": "Error", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}

VALIDATION_ERROR = {
    "type": "object",
    "title": "ValidationError",
    "properties": {
        "loc": {
            "title": "Location",
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        },
        "msg": {"title": "Message", "type": "string"},
        "type": {"title": "Error Type", "type": "string"},
        "ctx": {"title": "Context", "type": "object"},
    },
    "required": ["loc", "msg", "type"],
}

HTTP_VALIDATION_ERROR = {
    "type": "object",
    "title": "HTTPValidationError",
    "properties": {
        "detail": {"title": "Detail", "type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}
    },
}

# Beyond 200: what any operation may answer, what one on a single hero may, and what follows from a header.
FAULTS = {400: "Bad Request", 413: "Content Too Large", 422: "Validation Error", 503: "Service Unavailable"}
NOT_FOUND = {404: "Hero not found"}
CONDITIONS = {"If-None-Match": {304: "Not Modified"}, "If-Match": {412: "Hero has changed"}}


def reference(name: str) -> dict[str, Any]:
    """The content of a JSON response that has the component `name` for its schema."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


SECURITY_SCHEME = {"type": "http", "scheme": "bearer"}
REFUSAL = {
    "description": "Not authenticated",
    "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
    "content": reference("Error"),
}
CONTENT: dict[int, dict[str, Any]] = {304: {}, 422: reference("HTTPValidationError")}


class Blueprint(flask_smorest.Blueprint):
    """A blueprint whose operations are named and documented as FastAPI does it. Its decorators say what goes in and
    out; `operation` does it."""

    def add_url_rule(self, rule: str, endpoint: Any = None, view_func: Any = None, **options: Any) -> None:
        """Registers a view, with FastAPI's operationId: name, path and method, whatever is no word in it a "_"."""
        path = f"{self.url_prefix}{rule}".replace("<", "{").replace(">", "}")
        [method] = options["methods"]
        documentation = view_func._apidoc
        parameters = documentation["arguments"]["parameters"]
        responses = FAULTS | (NOT_FOUND if "{" in path else {})
        for parameter in parameters:
            for field in parameter["schema"].fields.values():
                responses |= CONDITIONS.get(field.data_key, {})
        documentation["manual_doc"] = {
            "operationId": re.sub(r"\W", "_", f"{view_func.__name__}{path}") + f"_{method.lower()}",
            "responses": {200: {"description": "Successful Response", "content": {"application/json": {}}}}
            | {
                status: {
                    "description": description,
                    "content": CONTENT.get(status, reference("Error")),
                }
                for status, description in sorted(responses.items())
            },
        }
        # A view reads headers for itself, when there are any.
        parts = [(each["in"], each["schema"]) for each in parameters if each["in"] != "headers"]
        view = operation(view_func, parts, documentation["response"]["responses"][200][0].get("schema"))
        super().add_url_rule(rule, endpoint, view, **options | {"tags": []})
        # With and without a slash at the end; Werkzeug's own way to this knows no 405.
        other = rule.removesuffix("/") if rule.endswith("/") else f"{rule}/"
        flask.Blueprint.add_url_rule(self, other, self._endpoints[-1], view, methods=[method])

    def arguments(self, schema: Schema, *, location: str = "json") -> Callable[[View], View]:
        """Says by which schema a view takes a part of the request, one of `http.PARTS`."""

        def decorator(view: View) -> View:
            arguments = vars(view).setdefault("_apidoc", {}).setdefault("arguments", {})
            arguments.setdefault("parameters", []).append({"in": location, "required": True, "schema": schema})
            return view

        return decorator

    def response(self, status_code: int, schema: Schema | None = None) -> Callable[[View], View]:
        """Says by which schema a view's content is dumped."""

        def decorator(view: View) -> View:
            documented: Any = super(Blueprint, self).response(status_code, schema)(view)
            vars(view)["_apidoc"] = documented._apidoc
            return view

        return decorator


class Api(flask_smorest.Api):
    """flask-smorest's Api for the document alone: pages, and an envelope of errors, are ours."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        pass


class Paths(FlaskPlugin):
    """Rules become paths without parameters of their own: those are documented by the views' schemas."""

    def rule_to_params(self, rule: Any) -> list[dict[str, Any]]:
        """No parameters."""
        return []


def tutorial_property(converter: Any, field: fields.Field[Any], ret: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """What a field of ours says beyond its type, in the form that the tutorial's document has."""
    kind = ret.pop("type")
    schema: dict[str, Any] = {"type": kind[0] if isinstance(kind, list) else kind}
    if isinstance(field, Int):
        schema |= {key: bound for key, bound in (("minimum", field.ge), ("maximum", field.le)) if bound is not None}
    elif isinstance(field, OneOf):
        schema |= {"enum": list(field.words)}
    elif isinstance(field, Str) and field.max_length is not None:
        schema |= {"maxLength": field.max_length, "pattern": r"^[^\u0000]*$"}
    title = {"title": (field.name or "").replace("_", " ").title()}
    if field.allow_none:
        ret.pop("default", None)
        return title | {"anyOf": [schema, {"type": "null"}]}
    return title | schema


pages = flask.Blueprint("pages", __name__, template_folder="templates")


@pages.get("/")
def index() -> Response:
    """To the documentation."""
    return redirect(url_for("pages.docs"))


@pages.get("/docs")
def docs() -> str:
    """Swagger UI."""
    return render_template("docs.html")


@pages.get("/redoc")
def redoc() -> Response | str:
    """ReDoc, where its package is installed (the extra `redoc`)."""
    return render_template("redoc.html") if find_spec("flask_openapi_redoc") else redirect(url_for("pages.docs"))


@pages.get("/openapi.json")
def openapi_json() -> Response:
    """The API document."""
    config = current_app.config
    resources = tuple(each for each in current_app.blueprints.values() if isinstance(each, Blueprint))
    return JSONResponse(document(resources, None if config["API_TOKENS"] is None else config["API_TOKENS_PROTECT"]))


@cache
def document(resources: tuple[Blueprint, ...], protect: str | None) -> dict[str, Any]:
    """The API document of some resources, whose operations need a token as `protect` says: "writes", "all" or none.

    Made when it is first asked for, in an app of its own: neither a start nor a worker that nobody asks pays for it.
    """
    app = flask.Flask(__name__)
    app.config.from_mapping(API_TITLE="heroes", API_VERSION=VERSION, OPENAPI_VERSION="3.1.0")
    api = Api(app, spec_kwargs={"flask_plugin": Paths()})
    for field, type_name in ((Int, "integer"), (Str, "string"), (OneOf, "string")):
        api.register_field(field, type_name, None)
    api.ma_plugin.converter.add_attribute_function(tutorial_property)
    for name, schema in (
        ("Error", ERROR),
        ("ValidationError", VALIDATION_ERROR),
        ("HTTPValidationError", HTTP_VALIDATION_ERROR),
    ):
        api.spec.components.schema(name, schema)
    # The operations have no tags, as in the tutorial, so there are none to list.
    api.spec.tag = lambda tag: api.spec
    for blueprint in resources:
        api.register_blueprint(blueprint)
    if protect:
        api.spec.components.security_scheme("bearer", SECURITY_SCHEME)
    made: dict[str, Any] = api.spec.to_dict()
    for operations in made["paths"].values():
        for method, described in operations.items():
            if protect and needs_token(protect, method.upper()):
                described["security"] = [{"bearer": []}]
                described["responses"]["401"] = REFUSAL
    return made


def assets(name: str, package: str, folder: str) -> flask.Blueprint | None:
    """A blueprint that serves the files an installed package ships, below /`name`/assets; None without the package."""
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return None
    path = f"{spec.submodule_search_locations[0]}/{folder}"
    return flask.Blueprint(f"{name}_assets", __name__, static_folder=path, static_url_path=f"/{name}/assets")


def init_app(app: Flask) -> None:
    """Registers the document at /openapi.json, Swagger UI at /docs and ReDoc at /redoc."""
    app.register_blueprint(pages)
    for blueprint in (
        assets("docs", "flask_swagger_ui", "dist"),
        assets("redoc", "flask_openapi_redoc", "templates/redoc/js"),
    ):
        if blueprint is not None:
            app.register_blueprint(blueprint)
