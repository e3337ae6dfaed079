"""The tutorial's own flow: through the test client, and over HTTP against gunicorn."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.constants import HERO, on_gunicorn, public
from tests.servers import Server

Answer = tuple[int, Any]
Ask = Callable[..., Answer]


def test_flow_of_the_tutorial(client: FlaskClient) -> None:
    def ask(method: str, path: str, body: object = None) -> Answer:
        response = client.open(path, method=method, json=body)
        return response.status_code, response.json

    follow_the_tutorial(ask)


@on_gunicorn
def test_flow_of_the_tutorial_over_gunicorn(gunicorn: Server) -> None:
    def ask(method: str, path: str, body: object = None) -> Answer:
        response = gunicorn.client(keep_alive=False).send(method, path, body)
        return response.status, response.json

    follow_the_tutorial(ask)


def follow_the_tutorial(ask: Ask) -> None:
    """Send the tutorial's requests: ask(method, path, body) → (status, JSON)."""
    deadpond = public()
    spider_boy = public(name="Spider-Boy", id=2)
    rusty_man = public(name="Rusty-Man", age=48, id=3)

    assert ask("POST", "/heroes/", {"id": 9000} | HERO) == (200, deadpond)
    assert ask("GET", "/heroes/1") == (200, deadpond)
    assert ask("POST", "/heroes/", {"name": "Spider-Boy", "secret_name": "Pedro Parqueador"}) == (200, spider_boy)
    assert ask("POST", "/heroes/", {"name": "Rusty-Man", "secret_name": "Tommy Sharp", "age": 48}) == (200, rusty_man)
    assert ask("GET", "/heroes/") == (200, [deadpond, spider_boy, rusty_man])
    assert ask("GET", "/heroes/?offset=1&limit=1") == (200, [spider_boy])
    assert ask("PATCH", "/heroes/3", {"age": None}) == (200, rusty_man | {"age": None})
    assert ask("PATCH", "/heroes/3", {"name": "Rusty"}) == (200, public(name="Rusty", id=3))
    assert ask("PATCH", "/heroes/3", {}) == (200, public(name="Rusty", id=3))
    assert ask("DELETE", "/heroes/1") == (200, {"ok": True})
    for method, body in (("GET", None), ("PATCH", {"age": 1}), ("DELETE", None)):
        assert ask(method, "/heroes/1", body) == (404, {"detail": "Hero not found"})
    assert [hero["id"] for hero in ask("GET", "/heroes/")[1]] == [2, 3]


def test_ids_are_never_reused(client: FlaskClient) -> None:
    first = client.post("/heroes/", json=HERO).get_json()["id"]
    client.delete(f"/heroes/{first}")

    assert client.post("/heroes/", json=HERO).get_json()["id"] == first + 1


@pytest.mark.parametrize(("method", "path"), [("POST", "/heroes/"), ("GET", "/heroes/"), ("GET", "/health/live")])
def test_offer_of_a_websocket_is_ignored(client: FlaskClient, method: str, path: str) -> None:
    offer = {"Connection": "Upgrade", "Upgrade": "websocket"}

    assert client.open(path, method=method, json=HERO, headers=offer).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/heroes/%0A", 200),
        ("POST", "/heroes/%0A", 200),
        ("PATCH", "/heroes/%0A", 422),
        ("DELETE", "/heroes/%0A", 422),
        ("PUT", "/heroes/%0A", 405),
        ("GET", "/heroes/%0A%0A", 422),
        ("GET", "/heroes%0A", 404),
        ("GET", "/heroes/1/%0A", 404),
    ],
)
def test_newline_after_the_list_s_path_is_ignored(client: FlaskClient, method: str, path: str, status: int) -> None:
    """The pattern of the tutorial's route ends with "$"."""
    assert client.open(path, method=method, json=HERO).status_code == status
