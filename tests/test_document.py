"""The API document is valid and complete, and the pages that show it are served locally."""

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from werkzeug.wrappers import Response

from heroes import create_app
from heroes.schemas import HeroUpdate
from tests.constants import ROOT

MEMORY = {"SQLALCHEMY_DATABASE_URI": "sqlite://"}
# Not part of the API: the pages that show it, and the paths for operators.
UNDOCUMENTED = {"/", "/docs", "/redoc", "/openapi.json", "/static/", "/docs/assets/"}
UNDOCUMENTED |= {"/health/live", "/health/ready", "/metrics"}

# The tutorial's API document, recorded with the exchanges.
TUTORIAL: dict[str, Any] = json.loads((ROOT / "tests/contract/openapi.json").read_text())


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(MEMORY)


@pytest.fixture(scope="module")
def openapi(app: Flask) -> dict[str, Any]:
    """The document as a client gets it."""
    answer: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return answer


def operations(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(path, method): op for path, item in openapi["paths"].items() for method, op in item.items()}


def test_the_document_is_valid_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert openapi["openapi"].startswith("3.1.")
    assert openapi["info"]["title"] == "heroes"
    OpenAPIV31SpecValidator(openapi).validate()


def differences(ours: Any, theirs: Any, path: str = "") -> tuple[set[str], set[str]]:
    """Return the paths of what two documents have in addition to each other. The order of a list counts."""
    more: set[str] = set()
    less: set[str] = set()
    if isinstance(ours, list) and isinstance(theirs, list):
        ours, theirs = dict(enumerate(ours)), dict(enumerate(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            if key in ours and key in theirs:
                deeper = differences(ours[key], theirs[key], f"{path}/{key}")
                more, less = more | deeper[0], less | deeper[1]
            else:
                (less if key in theirs else more).add(f"{path}/{key}")
    elif ours != theirs:
        less.add(path)
    return more, less


def test_the_document_adds_to_the_tutorials(openapi: dict[str, Any]) -> None:
    schemas = [*openapi["components"]["schemas"].values(), *TUTORIAL["components"]["schemas"].values()]
    for schema in schemas:
        schema["required"] = sorted(schema.get("required", []))
    more, less = differences(openapi, TUTORIAL)

    # A program that was written for a client of the tutorial's document finds all of it in ours, at the same place.
    # Null is refused in required fields: deviation 2.
    required = [name for name, field in HeroUpdate().fields.items() if not field.allow_none]
    refused = {f"/components/schemas/HeroUpdate/properties/{name}/anyOf" for name in required}
    assert less == {"/info/title", "/info/version"} | refused
    added = re.compile(
        r"/paths/.*/parameters(/\d+(/description|/schema/(minimum|maximum))?)?"
        r"|/paths/.*/responses/(304|400|404|412|413|503)"
        r"|/components/schemas/(HTTPError|ValidationError/properties/input/description)"
        r"|/components/schemas/Hero\w+/properties/\w+(/anyOf/0)?/(examples|type|maxLength|pattern|minimum|maximum)"
    )
    assert [path for path in more if not added.fullmatch(path)] == []
    for operation in operations(openapi).values():
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "path" or not parameter["required"]


@pytest.mark.parametrize("name", ["HeroCreate", "HeroUpdate"])
def test_the_document_has_our_limits(openapi: dict[str, Any], name: str) -> None:
    properties = openapi["components"]["schemas"][name]["properties"]

    text = {"type": "string", "maxLength": 500, "pattern": r"^[^\x00]*$"}
    assert properties["name"].items() >= text.items()
    assert properties["secret_name"].items() >= text.items()
    assert properties["age"]["anyOf"][0] == {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}


def test_an_id_in_a_response_has_no_limits(openapi: dict[str, Any]) -> None:
    """Its type in a generated client is then that of the path parameter."""
    assert not openapi["components"]["schemas"]["HeroPublic"]["properties"]["id"].keys() & {"minimum", "maximum"}


def test_the_values_of_sort_have_names_for_generated_clients(openapi: dict[str, Any]) -> None:
    [sort] = [each["schema"] for each in openapi["paths"]["/heroes/"]["get"]["parameters"] if each["name"] == "sort"]
    assert dict(zip(sort["x-enum-varnames"], sort["enum"], strict=True)) == {
        "ID": "id",
        "ID_DESC": "-id",
        "NAME": "name",
        "NAME_DESC": "-name",
        "AGE": "age",
        "AGE_DESC": "-age",
    }


def test_a_path_parameter_has_no_limits(openapi: dict[str, Any]) -> None:
    """Some generators check them with an integer of 32 bits."""
    for operation in operations(openapi).values():
        for parameter in operation.get("parameters", []):
            assert parameter["in"] != "path" or parameter["schema"].keys() == {"title", "type"}


def test_every_route_is_documented_or_listed_as_undocumented(app: Flask, openapi: dict[str, Any]) -> None:
    paths = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}
    documented = set(openapi["paths"])
    twins = {path.removesuffix("/") if path.endswith("/") else f"{path}/" for path in documented}

    assert {path.replace("{filename}", "") for path in paths - documented - twins} <= UNDOCUMENTED


def test_apps_in_one_process_have_separate_documents(openapi: dict[str, Any]) -> None:
    closed = create_app(MEMORY | {"API_TOKENS": ["token"]}).test_client().get("/openapi.json").get_json()

    assert "securitySchemes" in closed["components"]
    assert "securitySchemes" not in openapi["components"]
    assert not any("security" in operation for operation in operations(openapi).values())


def test_redoc_redirects_to_docs(client: FlaskClient) -> None:
    response = client.get("/redoc")

    assert (response.status_code, response.headers["Location"]) == (302, "/docs")


@pytest.mark.parametrize("path", ["/docs"])
def test_docs_page_refers_to_no_other_host(client: FlaskClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", response.text)
    for asset in re.findall(r'(?:src|href)="([^"]+)"', response.text):
        with client.get(asset) as file:
            assert file.status_code == 200, asset


def test_root_redirects_to_docs(client: FlaskClient) -> None:
    response = client.get("/")

    assert (response.status_code, response.headers["Location"]) == (302, "/docs")


def test_servers_are_the_prefix_if_there_is_one(app: Flask) -> None:
    client = app.test_client()

    assert client.get("/openapi.json", environ_overrides={"SCRIPT_NAME": "/api"}).get_json()["servers"] == [
        {"url": "/api"}
    ]
    assert "servers" not in client.get("/openapi.json").get_json()


def mounted(prefix: str) -> Client:
    """Return a client of the service below a prefix, in another application."""
    return Client(DispatcherMiddleware(Response("outside", 404), {prefix: create_app(MEMORY)}))


def forwarded(prefix: str) -> Client:
    """Return a client of the service behind a proxy that takes the prefix away."""
    service = create_app(MEMORY | {"PROXY_HOPS": 1})

    def proxy(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix)
        return service(environ | {"HTTP_X_FORWARDED_PREFIX": prefix}, start_response)

    return Client(proxy)


@pytest.mark.parametrize("serve_below", [mounted, forwarded])
@pytest.mark.parametrize("prefix", ["/api", "/a/b-c/v1.0"])
def test_every_link_has_the_prefix(serve_below: Any, prefix: str) -> None:
    client = serve_below(prefix)

    document = client.get(f"{prefix}/openapi.json").json
    OpenAPIV31SpecValidator(document).validate()
    assert document["servers"] == [{"url": prefix}]
    assert client.get(f"{prefix}/").headers["Location"] == f"{prefix}/docs"
    assert client.get(f"{prefix}/redoc").headers["Location"] == f"{prefix}/docs"
    links = re.findall(r'(?:src|href|data-document)="([^"]+)"', client.get(f"{prefix}/docs").text)
    assert f"{prefix}/openapi.json" in links
    for link in links:
        assert link.startswith(f"{prefix}/")
        with client.get(link) as file:
            assert file.status_code == 200, link
    for _ in range(2):
        client.post(f"{prefix}/heroes/", json={"name": "a", "secret_name": "b"})
    link = client.get(f"{prefix}/heroes/?limit=1").headers["Link"]
    # Relative to the URL of the request.
    assert link == '<?limit=1&after=1>; rel="next"'


@pytest.mark.parametrize("prefix", ["//evil.example", "/\\evil.example", "/a b", "/a?b", "/a#b", "/" + "x" * 250])
def test_malformed_or_long_prefix_is_400(prefix: str) -> None:
    client = create_app(MEMORY | {"PROXY_HOPS": 1}).test_client()

    for path in ("/", "/docs", "/openapi.json", "/heroes/"):
        response = client.get(path, headers={"X-Forwarded-Prefix": prefix})
        assert (response.status_code, response.json) == (400, {"detail": "Bad Request"})


def test_prefix_of_a_proxy_may_be_beyond_ascii() -> None:
    client = create_app(MEMORY | {"PROXY_HOPS": 1}).test_client()

    # A header holds the bytes of UTF-8 as Latin-1 (PEP 3333).
    response = client.get("/", headers={"X-Forwarded-Prefix": "/é".encode().decode("latin-1")})

    assert (response.status_code, response.headers["Location"]) == (302, "/%C3%A9/docs")


def test_forwarded_prefix_is_ignored_by_default(client: FlaskClient) -> None:
    response = client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/evil", "X-Script-Name": "/evil"})

    assert "servers" not in response.get_json()
