"""No lost updates: ETags, If-None-Match and If-Match, all of them optional."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from heroes import create_app
from heroes.extensions import db
from tests.constants import HERO, Query, public, sqlite_only

AGED = HERO | {"age": 0}
MANY = ", ".join(f'"{number}"' for number in range(1000))


@pytest.fixture
def etag(client: FlaskClient) -> str:
    """The ETag of hero 1, new."""
    return client.post("/heroes/", json=AGED).headers["ETag"]


def test_the_etag_changes_with_the_hero(client: FlaskClient, etag: str) -> None:
    assert client.get("/heroes/1").headers["ETag"] == etag
    changed = client.patch("/heroes/1", json={"age": 1}).headers["ETag"]
    assert changed != etag
    assert client.get("/heroes/1").headers["ETag"] == changed


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
def test_if_none_match_that_matches_is_304(client: FlaskClient, etag: str, form: str) -> None:
    response = client.get("/heroes/1", headers={"If-None-Match": form.format(etag)})

    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", etag)
    client.patch("/heroes/1", json={"age": 1})
    if form != "*":
        assert client.get("/heroes/1", headers={"If-None-Match": form.format(etag)}).status_code == 200


@pytest.mark.parametrize("form", ["{}", '"x", {}', "*"])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_that_matches_is_accepted(client: FlaskClient, etag: str, method: str, form: str) -> None:
    body = {"age": 7} if method == "PATCH" else None
    response = client.open("/heroes/1", method=method, json=body, headers={"If-Match": form.format(etag)})

    assert response.status_code == 200
    assert client.get("/heroes/1").status_code == (200 if method == "PATCH" else 404)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_that_does_not_match_is_412_and_changes_nothing(client: FlaskClient, etag: str, method: str) -> None:
    body = {"age": 7} if method == "PATCH" else None

    for tag in ('"0"', '"2"', f"W/{etag}", '"x"', '"99999999999999999999"', '"-1"', '"1 "', "1x", ""):
        response = client.open("/heroes/1", method=method, json=body, headers={"If-Match": tag})
        assert (response.status_code, response.json) == (412, {"detail": "Hero has changed"}), tag
        read = client.get("/heroes/1")
        assert (read.json, read.headers["ETag"]) == (public(age=0), etag), tag


def test_a_patch_without_changes_changes_nothing(client: FlaskClient, etag: str) -> None:
    response = client.patch("/heroes/1", json={})

    assert (response.status_code, response.headers["ETag"]) == (200, etag)
    assert client.get("/heroes/1").headers["ETag"] == etag


@pytest.mark.parametrize("etags", ['""', 'W/""', '"", "x"', '"\u00e3"'])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_empty_and_other_etags_exclude_nothing(client: FlaskClient, etag: str, method: str, etags: str) -> None:
    change = {"age": 1} if method == "PATCH" else None

    assert client.open("/heroes/1", method=method, json=change, headers={"If-Match": etags}).status_code == 412
    assert client.open("/heroes/1", method=method, json=change, headers={"If-None-Match": etags}).status_code == 200


@sqlite_only
@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_too_many_etags_are_422(client: FlaskClient, etag: str, method: str, header: str) -> None:
    response = client.open("/heroes/1", method=method, json={"age": 1}, headers={header: MANY})

    assert response.status_code == 422
    assert response.get_json()["detail"][0]["loc"] == ["header", header.lower()]
    assert client.get("/heroes/1").headers["ETag"] == etag


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("excess, too_long", [(0, False), (1, True)])
def test_etags_have_at_most_4000_characters(client: FlaskClient, header: str, excess: int, too_long: bool) -> None:
    etags = f'"{"x" * (3998 + excess)}"'

    assert (client.patch("/heroes/1", json={"age": 1}, headers={header: etags}).status_code == 422) == too_long


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_missing_hero_is_404_with_any_if_match(client: FlaskClient, method: str) -> None:
    body = {"age": 7} if method == "PATCH" else None
    response = client.open("/heroes/1", method=method, json=body, headers={"If-Match": '"1"'})

    assert (response.status_code, response.json) == (404, {"detail": "Hero not found"})


def test_the_body_is_validated_before_the_condition(client: FlaskClient, etag: str) -> None:
    assert client.patch("/heroes/1", json={"age": "x"}, headers={"If-Match": '"0"'}).status_code == 422


# RFC 9110, 13.1.1, 13.1.2 and 13.2.2: {} is the current ETag. Headers, the status of GET and HEAD, of PATCH and DELETE.
CONDITIONS: list[tuple[dict[str, str], int, int]] = [
    ({"If-Match": "{}"}, 200, 200),
    ({"If-Match": "*"}, 200, 200),
    ({"If-Match": '"x", {}'}, 200, 200),
    ({"If-Match": "W/{}"}, 412, 412),
    ({"If-Match": '"x"'}, 412, 412),
    ({"If-Match": '"99999999999999999999"'}, 412, 412),
    ({"If-None-Match": "{}"}, 304, 412),
    ({"If-None-Match": "W/{}"}, 304, 412),
    ({"If-None-Match": "*"}, 304, 412),
    ({"If-None-Match": '"x", W/{}'}, 304, 412),
    ({"If-None-Match": '"x"'}, 200, 200),
    ({"If-None-Match": '"99999999999999999999"'}, 200, 200),
    # If-Match is evaluated first.
    ({"If-Match": "{}", "If-None-Match": "{}"}, 304, 412),
    ({"If-Match": "{}", "If-None-Match": '"x"'}, 200, 200),
    ({"If-Match": '"x"', "If-None-Match": "{}"}, 412, 412),
    ({"If-Match": '"x"', "If-None-Match": '"x"'}, 412, 412),
    ({"If-Match": "*", "If-None-Match": "*"}, 304, 412),
    # There is no Last-Modified, so these are ignored.
    ({"If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"}, 200, 200),
    ({"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200, 200),
]


@pytest.mark.usefixtures("etag")
@pytest.mark.parametrize("headers, read, written", CONDITIONS)
def test_conditions_are_evaluated_as_in_rfc_9110(
    client: FlaskClient, headers: dict[str, str], read: int, written: int
) -> None:
    for method, body, status in (
        ("GET", None, read),
        ("HEAD", None, read),
        ("PATCH", {}, written),
        ("PATCH", {"age": 7}, written),
        ("DELETE", None, written),
    ):
        before = client.get("/heroes/1").headers["ETag"]
        filled = {name: value.format(before) for name, value in headers.items()}
        response = client.open("/heroes/1", method=method, json=body, headers=filled)

        assert (method, body, response.status_code) == (method, body, status)
        if status == 412 and method != "HEAD":
            assert response.json == {"detail": "Hero has changed"}
        if status == 304:
            assert (response.data, response.headers["ETag"]) == (b"", before)
        if status != 200 or not body:
            expected = None if (method, status) == ("DELETE", 200) else before
            assert client.get("/heroes/1").headers.get("ETag") == expected


@pytest.mark.parametrize("headers", [{"If-Match": "*"}, {"If-None-Match": "*"}, {"If-None-Match": '"x"'}])
def test_conditions_are_ignored_for_a_missing_hero(client: FlaskClient, headers: dict[str, str]) -> None:
    for method, body in (("GET", None), ("HEAD", None), ("PATCH", {"age": 7}), ("DELETE", None)):
        assert client.open("/heroes/1", method=method, json=body, headers=headers).status_code == 404, method


@pytest.fixture
def tutorials(empty_database_url: str) -> Iterator[Flask]:
    """The service on a table that the tutorial made, which gives the highest id out again after a DELETE."""
    statements = (
        "CREATE TABLE hero (name VARCHAR NOT NULL, age INTEGER, id INTEGER NOT NULL, secret_name VARCHAR NOT NULL,"
        " PRIMARY KEY (id))",
        "CREATE INDEX ix_hero_name ON hero (name)",
        "CREATE INDEX ix_hero_age ON hero (age)",
    )
    with closing(sqlite3.connect(empty_database_url.removeprefix("sqlite:///"))) as connection:
        for statement in statements:
            connection.execute(statement)
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url})
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_without_a_condition_a_hero_that_is_created_meanwhile_is_404(
    app: Flask, client: FlaskClient, query: Query, method: str
) -> None:
    def create(connection: object, cursor: object, statement: str, *_: object) -> None:
        # As an import does, which keeps the ids of its file.
        if statement.startswith("SELECT hero"):
            query("INSERT INTO hero (id, name, secret_name) VALUES (1, '', '')")

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", create)
    response = client.open("/heroes/1", method=method, json={"age": 1})

    assert (response.status_code, response.json) == (404, {"detail": "Hero not found"})


@sqlite_only
@pytest.mark.parametrize("key", [None, "k"])
def test_a_hero_with_the_id_of_a_deleted_one_has_another_etag(tutorials: Flask, key: str | None) -> None:
    client = tutorials.test_client()
    headers = [{} if key is None else {"Idempotency-Key": f"{key}{number}"} for number in range(2)]
    old = client.post("/heroes/", json=AGED, headers=headers[0])
    client.delete("/heroes/1")
    new = client.post("/heroes/", json=AGED, headers=headers[1])

    assert (old.json, new.json) == (public(age=0), public(age=0))
    assert new.headers["ETag"] != old.headers["ETag"]
    stale = {"If-None-Match": old.headers["ETag"]}
    assert client.get("/heroes/1", headers=stale).status_code == 200
    assert client.delete("/heroes/1", headers={"If-Match": old.headers["ETag"]}).status_code == 412


def test_an_import_under_the_id_of_a_deleted_hero_has_another_etag(
    client: FlaskClient, app: Flask, etag: str, tmp_path: Path
) -> None:
    file = tmp_path / "heroes.ndjson"
    file.write_text('{"id": 1, "name": "Deadpond", "age": 0, "secret_name": "Dive Wilson"}\n')
    etags = {etag}
    for _ in range(2):
        client.delete("/heroes/1")
        result = app.test_cli_runner().invoke(args=["heroes", "import", str(file)])
        assert result.exit_code == 0, result.output
        etags.add(client.get("/heroes/1").headers["ETag"])

    assert len(etags) == 3
    assert client.delete("/heroes/1", headers={"If-Match": etag}).status_code == 412


@pytest.mark.parametrize("version", [0, -7, 2**63 - 1, -(2**63)])
def test_any_version_that_another_program_set_matches(client: FlaskClient, query: Query, version: int) -> None:
    client.post("/heroes/", json=HERO)
    query(f"UPDATE hero SET version = {version}")
    etag = client.get("/heroes/1").headers["ETag"]

    other = client.delete("/heroes/1", headers={"If-Match": f'"{2**63}", "{-(2**63) - 1}"'})
    excluded = client.delete("/heroes/1", headers={"If-None-Match": etag})
    changed = client.patch("/heroes/1", json={"age": 7}, headers={"If-Match": etag})

    assert (other.status_code, excluded.status_code, changed.status_code) == (412, 412, 200)


def test_etag_of_a_restored_backup_does_not_come_back(client: FlaskClient, query: Query) -> None:
    client.post("/heroes/", json=HERO)
    [(version,)] = query("SELECT version FROM hero")
    tags = set()
    for age in (11, 22):
        tags.add(client.patch("/heroes/1", json={"age": age}).headers["ETag"])
        query(f"UPDATE hero SET version = {version}, age = NULL")

    assert len(tags) == 2
