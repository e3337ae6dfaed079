"""Safe retries: requests with the same Idempotency-Key create one hero."""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from heroes import create_app
from heroes.extensions import db
from heroes.web.idempotency import KEY_LIFETIME, MAX_FORGOTTEN
from tests.constants import HERO, Query, postgres_only, public, stored
from tests.servers import Server

AGED = HERO | {"age": 30}
KEY = {"Idempotency-Key": "order-66"}


def test_same_key_replays_the_first_response(client: FlaskClient) -> None:
    first = client.post("/heroes/", json=AGED, headers=KEY)
    client.patch("/heroes/1", json={"age": 31})
    again = client.post("/heroes/", data=json.dumps(AGED, indent=4), content_type="application/json", headers=KEY)

    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.json, again.headers["ETag"]) == (200, first.json, first.headers["ETag"])
    assert len(client.get("/heroes/").get_json()) == 1


@pytest.mark.parametrize("change", [{"name": "Other"}, {"age": None}, {"secret_name": "Other"}])
def test_another_body_under_the_same_key_is_refused(client: FlaskClient, change: dict[str, object]) -> None:
    client.post("/heroes/", json=AGED, headers=KEY)
    response = client.post("/heroes/", json=AGED | change, headers=KEY)

    assert response.status_code == 422
    message = "Value error, was used with another body"
    assert response.get_json()["detail"] == [
        {"type": "value_error", "loc": ["header", "idempotency-key"], "msg": message}
    ]
    assert len(client.get("/heroes/").get_json()) == 1


def test_response_recorded_by_version_1_0_is_replayed(client: FlaskClient, query: Query) -> None:
    hero = AGED | {"name": "Señor Muerte"}
    sent = stored(**hero)
    del sent["id"]
    fingerprint = hashlib.sha256(json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
    recorded = '["Señor Muerte", 30, 7, 5]'
    query(
        "INSERT INTO idempotency_key (key, fingerprint, created_at, answer)"
        f" VALUES ('order-66', '{fingerprint}', {int(time.time())}, '{recorded}')"
    )

    response = client.post("/heroes/", json=hero, headers=KEY)
    # Version 1.0 had no other columns.
    assert response.json == {"name": "Señor Muerte", "age": 30, "id": 7}
    assert response.headers["ETag"] == '"5"'
    assert response.headers["Idempotent-Replayed"] == "true"


def test_other_key_creates_another_hero(client: FlaskClient) -> None:
    # An empty one is no key: some clients send it if the option is not set.
    for key in ("a", "b", "", ""):
        assert client.post("/heroes/", json=AGED, headers={"Idempotency-Key": key}).status_code == 200

    assert [hero["id"] for hero in client.get("/heroes/").get_json()] == [1, 2, 3, 4]


def test_a_request_deletes_a_limited_number_of_expired_keys(client: FlaskClient, query: Query) -> None:
    long_ago = int(time.time()) - KEY_LIFETIME - 1000
    expired = ", ".join(f"('{number}', '', {long_ago + number}, 'null')" for number in range(3 * MAX_FORGOTTEN))
    query(f"INSERT INTO idempotency_key (key, fingerprint, created_at, answer) VALUES {expired}")

    newest = {"Idempotency-Key": str(3 * MAX_FORGOTTEN - 1)}
    assert "Idempotent-Replayed" not in client.post("/heroes/", json=AGED, headers=newest).headers
    assert "Idempotent-Replayed" in client.post("/heroes/", json=AGED, headers=newest).headers
    # The two requests deleted the 200 oldest; the newest was deleted and stored again.
    assert query(f"SELECT count(*) FROM idempotency_key WHERE created_at < {long_ago + 1000}") == [(99,)]
    assert query("SELECT count(*) FROM hero") == [(1,)]


@postgres_only
def test_key_that_expires_meanwhile_is_503(app: Flask, client: FlaskClient, query: Query) -> None:
    client.post("/heroes/", json=AGED, headers=KEY)

    def forget(connection: object, cursor: object, statement: str, *_: object) -> None:
        # As a host with another clock does.
        if statement.startswith("SELECT idempotency_key"):
            query("DELETE FROM idempotency_key")

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", forget)
    response = client.post("/heroes/", json=AGED, headers=KEY)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert query("SELECT count(*) FROM hero") == [(1,)]


def test_rejected_body_does_not_use_up_the_key(client: FlaskClient) -> None:
    assert client.post("/heroes/", json={}, headers=KEY).status_code == 422
    assert client.post("/heroes/", json=AGED, headers=KEY).status_code == 200


def test_failed_write_does_not_use_up_the_key(client: FlaskClient, query: Query) -> None:
    query("ALTER TABLE hero RENAME COLUMN age TO years")
    failed = client.post("/heroes/", json=AGED, headers=KEY)
    keys = query("SELECT key FROM idempotency_key")
    query("ALTER TABLE hero RENAME COLUMN years TO age")
    assert (failed.status_code, failed.headers["Retry-After"], keys) == (503, "1", [])
    again = client.post("/heroes/", json=AGED, headers=KEY)

    assert again.status_code == 200
    assert "Idempotent-Replayed" not in again.headers


@pytest.mark.parametrize(("length", "status"), [(255, 200), (256, 422)])
def test_a_key_has_at_most_255_characters(client: FlaskClient, length: int, status: int) -> None:
    response = client.post("/heroes/", json=AGED, headers={"Idempotency-Key": "k" * length})

    assert response.status_code == status
    if status == 422:
        assert response.get_json()["detail"] == [
            {
                "type": "string_too_long",
                "loc": ["header", "idempotency-key"],
                "msg": "String should have at most 255 characters",
                "ctx": {"max_length": 255},
            }
        ]


def test_keys_expire_after_a_day(client: FlaskClient, query: Query) -> None:
    client.post("/heroes/", json=AGED, headers=KEY)
    query(f"UPDATE idempotency_key SET created_at = created_at - {KEY_LIFETIME + 1}")
    again = client.post("/heroes/", json=AGED, headers=KEY)

    assert "Idempotent-Replayed" not in again.headers
    assert again.get_json()["id"] == 2
    assert query("SELECT count(*) FROM idempotency_key") == [(1,)]


def test_no_secret_is_stored_with_the_key(client: FlaskClient, query: Query) -> None:
    client.post("/heroes/", json=AGED, headers=KEY)

    assert AGED["secret_name"] not in str(query("SELECT * FROM idempotency_key"))


def test_concurrent_requests_with_one_key_create_one_hero(serve: Callable[..., Server], query: Query) -> None:
    server = serve(WEB_CONCURRENCY="2")

    def create(_: int) -> tuple[int, bytes]:
        response = server.client(keep_alive=False).send("POST", "/heroes/", AGED, KEY)
        return response.status, response.body

    with ThreadPoolExecutor(16) as clients:
        answers = set(clients.map(create, range(48)))

    [(status, body)] = answers
    assert (status, json.loads(body)) == (200, public(age=30))
    assert query("SELECT count(*) FROM hero") == [(1,)]


def test_threads_on_a_database_in_memory_get_their_own_responses() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})

    def create_and_read(number: int) -> int:
        client, hero, key = app.test_client(), HERO | {"name": f"H{number}"}, {"Idempotency-Key": f"k{number}"}
        created = client.post("/heroes/", json=hero, headers=key)
        assert (created.status_code, created.get_json()["name"]) == (200, hero["name"])
        again = client.post("/heroes/", json=hero, headers=key)
        assert (again.status_code, again.json) == (200, created.json)
        path = f"/heroes/{created.get_json()['id']}"
        assert client.get(path).json == created.json
        assert client.patch(path, json={"age": number}).get_json() == created.get_json() | {"age": number}
        assert client.get("/heroes/?limit=1").status_code == 200
        return int(created.get_json()["id"])

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(create_and_read, range(100)))
    assert sorted(ids) == list(range(1, 101))


def test_concurrent_requests_with_one_key_in_memory_create_one_hero() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})

    def create(_: int) -> tuple[int, bytes]:
        response = app.test_client().post("/heroes/", json=AGED, headers=KEY)
        return response.status_code, response.data

    with ThreadPoolExecutor(8) as threads:
        [(status, body)] = set(threads.map(create, range(100)))
    assert (status, json.loads(body)) == (200, public(age=30))
    assert app.test_client().get("/heroes/").json == [public(age=30)]
