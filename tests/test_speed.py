"""Statements, connections and commits per request: the part of speed that does not depend on the machine."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from heroes.extensions import db
from tests.constants import HERO

OPERATIONS: dict[str, Callable[[FlaskClient], Any]] = {
    "create": lambda client: client.post("/heroes/", json=HERO),
    "page": lambda client: client.get("/heroes/"),
    "read": lambda client: client.get("/heroes/1"),
    "patch": lambda client: client.patch("/heroes/1", json={"age": 31}),
    "patch if unchanged": lambda client: client.patch("/heroes/1", json={"age": 31}, headers={"If-Match": "*"}),
    "delete": lambda client: client.delete("/heroes/1"),
}


@pytest.fixture
def seen(app: Flask, client: FlaskClient) -> Iterator[dict[str, list[Any]]]:
    """What the engine does while a test runs, with three heroes in the table."""
    for _ in range(3):
        client.post("/heroes/", json=HERO)
    seen: dict[str, list[Any]] = {"statements": [], "checkouts": [], "commits": [], "compiled": []}
    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", lambda *args: seen["statements"].append(args[2]))
    event.listen(engine, "before_cursor_execute", lambda *args: seen["compiled"].append(args[4].compiled))
    event.listen(engine, "checkout", lambda *args: seen["checkouts"].append("checkout"))
    event.listen(engine, "commit", lambda *args: seen["commits"].append("commit"))
    yield seen


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_one_statement_on_one_connection(
    client: FlaskClient, seen: dict[str, list[Any]], operation: str
) -> None:
    assert OPERATIONS[operation](client).status_code == 200

    assert len(seen["statements"]) == 1
    assert len(seen["checkouts"]) == 1
    assert len(seen["commits"]) == (0 if operation in ("page", "read") else 1)


def test_no_statement_is_compiled_twice(client: FlaskClient, seen: dict[str, list[Any]]) -> None:
    cached = ("create", "page", "read", "patch")
    for operation in (*cached, *cached):
        OPERATIONS[operation](client)

    compiled = seen["compiled"]
    assert len(compiled) == 2 * len(cached)
    assert None not in compiled
    assert [id(each) for each in compiled[: len(cached)]] == [id(each) for each in compiled[len(cached) :]]
