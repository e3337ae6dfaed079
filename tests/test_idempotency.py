"""Safe retries: the same Idempotency-Key creates one hero, however often and from wherever it is sent."""

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Server
from flask.testing import FlaskClient

from heroes.views import KEEP_KEYS

HERO = {"name": "Deadpond", "age": 30, "secret_name": "Dive Wilson"}
KEY = {"Idempotency-Key": "order-66"}
Query = Callable[[str], list[tuple[object, ...]]]


def test_the_same_again_answers_the_first_answer(client: FlaskClient) -> None:
    first = client.post("/heroes/", json=HERO, headers=KEY)
    client.patch("/heroes/1", json={"age": 31})
    again = client.post("/heroes/", data=json.dumps(HERO, indent=4), content_type="application/json", headers=KEY)

    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.json, again.headers["ETag"]) == (200, first.json, first.headers["ETag"])
    assert len(client.get("/heroes/").json) == 1


@pytest.mark.parametrize("change", [{"name": "Other"}, {"age": None}, {"secret_name": "Other"}])
def test_another_body_under_the_same_key_is_refused(client: FlaskClient, change: dict[str, object]) -> None:
    client.post("/heroes/", json=HERO, headers=KEY)
    response = client.post("/heroes/", json=HERO | change, headers=KEY)

    assert response.status_code == 422
    assert [fault["loc"] for fault in response.json["detail"]] == [["header", "idempotency-key"]]
    assert len(client.get("/heroes/").json) == 1


def test_another_key_is_another_hero(client: FlaskClient) -> None:
    for key in ("a", "b", ""):
        assert client.post("/heroes/", json=HERO, headers={"Idempotency-Key": key}).status_code == 200

    assert [hero["id"] for hero in client.get("/heroes/").json] == [1, 2, 3]


def test_a_refused_body_takes_no_key(client: FlaskClient) -> None:
    assert client.post("/heroes/", json={}, headers=KEY).status_code == 422
    assert client.post("/heroes/", json=HERO, headers=KEY).status_code == 200


def test_a_hero_that_could_not_be_stored_takes_no_key(client: FlaskClient, query: Query) -> None:
    query("ALTER TABLE hero RENAME COLUMN age TO years")
    assert client.post("/heroes/", json=HERO, headers=KEY).status_code == 503
    assert query("SELECT key FROM idempotency_key") == []
    query("ALTER TABLE hero RENAME COLUMN years TO age")
    again = client.post("/heroes/", json=HERO, headers=KEY)

    assert again.status_code == 200
    assert "Idempotent-Replayed" not in again.headers


@pytest.mark.parametrize(("length", "status"), [(255, 200), (256, 422)])
def test_a_key_has_at_most_255_characters(client: FlaskClient, length: int, status: int) -> None:
    response = client.post("/heroes/", json=HERO, headers={"Idempotency-Key": "k" * length})

    assert response.status_code == status
    if status == 422:
        assert response.json["detail"] == [
            {
                "type": "string_too_long",
                "loc": ["header", "idempotency-key"],
                "msg": "String should have at most 255 characters",
                "ctx": {"max_length": 255},
            }
        ]


def test_keys_are_forgotten_after_a_day(client: FlaskClient, query: Query) -> None:
    client.post("/heroes/", json=HERO, headers=KEY)
    query(f"UPDATE idempotency_key SET created_at = created_at - {KEEP_KEYS + 1}")
    again = client.post("/heroes/", json=HERO, headers=KEY)

    assert "Idempotent-Replayed" not in again.headers
    assert again.json["id"] == 2
    assert query("SELECT count(*) FROM idempotency_key") == [(1,)]


def test_no_secret_is_kept_beside_the_key(client: FlaskClient, query: Query) -> None:
    client.post("/heroes/", json=HERO, headers=KEY)

    assert "Dive Wilson" not in str(query("SELECT * FROM idempotency_key"))


def test_the_same_key_racing_creates_one_hero(serve: Callable[..., Server], query: Query) -> None:
    server = serve(WEB_CONCURRENCY="2")

    def create(_: int) -> tuple[int, str]:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
        connection.request("POST", "/heroes/", json.dumps(HERO), {"Content-Type": "application/json"} | KEY)
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    with ThreadPoolExecutor(16) as clients:
        answers = set(clients.map(create, range(48)))

    assert answers == {(200, '{"name":"Deadpond","age":30,"id":1}')}
    assert query("SELECT count(*) FROM hero") == [(1,)]
