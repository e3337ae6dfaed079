"""No lost updates: ETags, If-None-Match and If-Match, all of them optional."""

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Server
from flask.testing import FlaskClient

HERO = {"name": "Deadpond", "age": 0, "secret_name": "Dive Wilson"}


@pytest.fixture
def etag(client: FlaskClient) -> str:
    """The ETag of hero 1, new."""
    return client.post("/heroes/", json=HERO).headers["ETag"]


def test_the_etag_changes_with_the_hero_and_only_then(client: FlaskClient, etag: str) -> None:
    assert client.get("/heroes/1").headers["ETag"] == etag
    changed = client.patch("/heroes/1", json={"age": 1}).headers["ETag"]
    assert changed != etag
    assert client.get("/heroes/1").headers["ETag"] == changed


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
def test_if_none_match_spares_the_body(client: FlaskClient, etag: str, form: str) -> None:
    response = client.get("/heroes/1", headers={"If-None-Match": form.format(etag)})

    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", etag)
    client.patch("/heroes/1", json={"age": 1})
    if form != "*":
        assert client.get("/heroes/1", headers={"If-None-Match": form.format(etag)}).status_code == 200


@pytest.mark.parametrize("form", ["{}", '"x", {}', "*"])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_lets_through_what_still_matches(client: FlaskClient, etag: str, method: str, form: str) -> None:
    body = {"age": 7} if method == "PATCH" else None
    response = client.open("/heroes/1", method=method, json=body, headers={"If-Match": form.format(etag)})

    assert response.status_code == 200
    assert client.get("/heroes/1").status_code == (200 if method == "PATCH" else 404)


@pytest.mark.parametrize("tag", ['"0"', '"2"', "W/{}", '"x"', '"99999999999999999999"', '"-1"', '"1 "', "1x", ""])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_refuses_the_rest_and_changes_nothing(client: FlaskClient, etag: str, method: str, tag: str) -> None:
    body = {"age": 7} if method == "PATCH" else None
    response = client.open("/heroes/1", method=method, json=body, headers={"If-Match": tag.format(etag)})

    assert (response.status_code, response.json) == (412, {"detail": "Hero has changed"})
    assert client.get("/heroes/1").json == {"name": "Deadpond", "age": 0, "id": 1}
    assert client.get("/heroes/1").headers["ETag"] == etag


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_hero_that_is_not_there_is_a_404_whatever_if_match_says(client: FlaskClient, method: str) -> None:
    body = {"age": 7} if method == "PATCH" else None
    response = client.open("/heroes/1", method=method, json=body, headers={"If-Match": '"1"'})

    assert (response.status_code, response.json) == (404, {"detail": "Hero not found"})


def test_the_body_is_validated_before_the_condition(client: FlaskClient, etag: str) -> None:
    assert client.patch("/heroes/1", json={"age": "x"}, headers={"If-Match": '"0"'}).status_code == 422


def test_twenty_clients_that_increment_lose_no_increment(serve: Callable[..., Server]) -> None:
    server = serve(WEB_CONCURRENCY="2")

    def ask(method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, int], str]:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        answer = response.status, json.load(response), response.headers.get("ETag", "")
        connection.close()
        return answer

    ask("POST", "/heroes/", HERO)

    def increment_five_times(_: int) -> None:
        done = 0
        while done < 5:
            _, hero, etag = ask("GET", "/heroes/1")
            status, _, _ = ask("PATCH", "/heroes/1", {"age": hero["age"] + 1}, **{"If-Match": etag})
            assert status in (200, 412)
            done += status == 200

    with ThreadPoolExecutor(20) as clients:
        list(clients.map(increment_five_times, range(20)))

    assert ask("GET", "/heroes/1")[1]["age"] == 100
