"""The tutorial's own flow: through the test client, and over HTTP against gunicorn."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Server
from flask.testing import FlaskClient

Answer = tuple[int, Any]
Ask = Callable[..., Answer]


@pytest.fixture
def over_test_client(client: FlaskClient) -> Ask:
    def ask(method: str, path: str, body: object = None) -> Answer:
        response = client.open(path, method=method, json=body)
        return response.status_code, response.json

    return ask


@pytest.fixture
def over_gunicorn(serve: Callable[..., Server]) -> Ask:
    server = serve()

    def ask(method: str, path: str, body: object = None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(server.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return ask


@pytest.fixture(params=["over_test_client", "over_gunicorn"])
def ask(request: pytest.FixtureRequest, database_url: str) -> Ask:
    """Sends a request in one of the ways: (method, path, body) → (status, JSON)."""
    ask: Ask = request.getfixturevalue(request.param)
    return ask


def test_the_tutorials_flow(ask: Ask) -> None:
    deadpond = {"name": "Deadpond", "age": None, "id": 1}
    spider_boy = {"name": "Spider-Boy", "age": None, "id": 2}
    rusty_man = {"name": "Rusty-Man", "age": 48, "id": 3}

    assert ask("POST", "/heroes/", {"id": 9000, "name": "Deadpond", "secret_name": "Dive Wilson"}) == (200, deadpond)
    assert ask("GET", "/heroes/1") == (200, deadpond)
    assert ask("POST", "/heroes/", {"name": "Spider-Boy", "secret_name": "Pedro Parqueador"}) == (200, spider_boy)
    assert ask("POST", "/heroes/", {"name": "Rusty-Man", "secret_name": "Tommy Sharp", "age": 48}) == (200, rusty_man)
    assert ask("GET", "/heroes/") == (200, [deadpond, spider_boy, rusty_man])
    assert ask("GET", "/heroes/?offset=1&limit=1") == (200, [spider_boy])
    assert ask("PATCH", "/heroes/3", {"age": None}) == (200, rusty_man | {"age": None})
    assert ask("PATCH", "/heroes/3", {"name": "Rusty"}) == (200, {"name": "Rusty", "age": None, "id": 3})
    assert ask("PATCH", "/heroes/3", {}) == (200, {"name": "Rusty", "age": None, "id": 3})
    assert ask("DELETE", "/heroes/1") == (200, {"ok": True})
    for method, body in (("GET", None), ("PATCH", {"age": 1}), ("DELETE", None)):
        assert ask(method, "/heroes/1", body) == (404, {"detail": "Hero not found"})
    assert [hero["id"] for hero in ask("GET", "/heroes/")[1]] == [2, 3]


def test_an_id_is_never_given_out_twice(client: FlaskClient) -> None:
    hero = {"name": "Deadpond", "secret_name": "Dive Wilson"}
    first = client.post("/heroes/", json=hero).json["id"]
    client.delete(f"/heroes/{first}")

    assert client.post("/heroes/", json=hero).json["id"] == first + 1
