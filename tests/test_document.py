"""The API document is true, and the pages that show it come from this machine."""

import json
import re
from typing import Any

import pytest
from conftest import ROOT
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from heroes import create_app, document

MEMORY = {"SQLALCHEMY_DATABASE_URI": "sqlite://"}
# Not part of the API: what shows it, and what operators ask.
UNDOCUMENTED = {"/", "/docs", "/redoc", "/openapi.json", "/static/", "/docs/assets/", "/redoc/assets/"}
UNDOCUMENTED |= {"/health/live", "/health/ready", "/metrics"}

# What the tutorial's own document says of its operations, parameters and components, recorded beside the exchanges.
TUTORIAL: dict[str, Any] = json.loads((ROOT / "tests/contract/openapi.json").read_text())


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(MEMORY)


@pytest.fixture(scope="module")
def openapi(app: Flask) -> dict[str, Any]:
    """The document as a client gets it."""
    answer: dict[str, Any] = app.test_client().get("/openapi.json").json
    return answer


def operations(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(path, method): op for path, item in openapi["paths"].items() for method, op in item.items()}


def test_the_document_is_valid_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert openapi["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(openapi).validate()


def test_the_operations_are_the_tutorials(openapi: dict[str, Any]) -> None:
    ours, theirs = operations(openapi), operations(TUTORIAL)

    assert ours.keys() == theirs.keys()
    for key, operation in theirs.items():
        assert {name: ours[key][name] for name in ("operationId", "summary")} == {
            name: operation[name] for name in ("operationId", "summary")
        }
        assert ours[key].get("requestBody") == operation.get("requestBody")
        assert ours[key]["responses"].keys() >= operation["responses"].keys()
        for parameter in operation.get("parameters", []):
            [our_parameter] = [p for p in ours[key]["parameters"] if p["name"] == parameter["name"]]
            assert our_parameter["in"] == parameter["in"]
            assert our_parameter["required"] == parameter["required"]
            assert our_parameter["schema"].items() >= parameter["schema"].items()
        for parameter in ours[key].get("parameters", []):
            assert parameter["in"] == "path" or not parameter["required"]


@pytest.mark.parametrize("name", sorted(TUTORIAL["components"]["schemas"]))
def test_the_components_are_the_tutorials(openapi: dict[str, Any], name: str) -> None:
    ours, theirs = openapi["components"]["schemas"][name], TUTORIAL["components"]["schemas"][name]

    # `input` is never echoed: deviation 1.
    assert ours["properties"].keys() == theirs["properties"].keys() - {"input"}
    assert set(ours.get("required", [])) == set(theirs.get("required", []))


def test_every_route_is_documented_or_deliberately_not(app: Flask, openapi: dict[str, Any]) -> None:
    paths = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}
    documented = set(openapi["paths"])
    twins = {path.removesuffix("/") if path.endswith("/") else f"{path}/" for path in documented}

    assert {path.replace("{filename}", "") for path in paths - documented - twins} <= UNDOCUMENTED


def test_two_apps_have_documents_of_their_own(openapi: dict[str, Any]) -> None:
    closed = create_app(MEMORY | {"API_TOKENS": ["token"]}).test_client().get("/openapi.json").json

    assert "securitySchemes" in closed["components"]
    assert "securitySchemes" not in openapi["components"]


def test_without_its_package_redoc_leads_to_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    there = document.find_spec
    monkeypatch.setattr(document, "find_spec", lambda name: None if name == "flask_openapi_redoc" else there(name))
    client = create_app(MEMORY).test_client()

    response = client.get("/redoc")
    assert (response.status_code, response.headers["Location"]) == (302, "/docs")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_name_no_other_host(client: FlaskClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", response.text)
    for asset in re.findall(r'(?:src|href)="([^"]+)"', response.text):
        with client.get(asset) as file:
            assert file.status_code == 200, asset


def test_the_root_leads_to_the_docs(client: FlaskClient) -> None:
    response = client.get("/")

    assert (response.status_code, response.headers["Location"]) == (302, "/docs")
