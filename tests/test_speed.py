"""What speed rests on and no machine changes: statements, connections and steps per request."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ROOT
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from heroes.extensions import db
from heroes.schemas import HeroCreate, HeroPublic, HeroQuery

HERO = {"name": "Deadpond", "age": 30, "secret_name": "Dive Wilson"}
OPERATIONS: dict[str, Callable[[FlaskClient], Any]] = {
    "create": lambda client: client.post("/heroes/", json=HERO),
    "page": lambda client: client.get("/heroes/"),
    "read": lambda client: client.get("/heroes/1"),
    "patch": lambda client: client.patch("/heroes/1", json={"age": 31}),
    "patch if unchanged": lambda client: client.patch("/heroes/1", json={"age": 31}, headers={"If-Match": '"1"'}),
    "delete": lambda client: client.delete("/heroes/1"),
}


@pytest.fixture
def seen(app: Flask, client: FlaskClient) -> Iterator[dict[str, list[str]]]:
    """What the engine does while a test runs, with three heroes in the table."""
    for _ in range(3):
        client.post("/heroes/", json=HERO)
    seen: dict[str, list[str]] = {"statements": [], "checkouts": [], "commits": []}
    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", lambda *args: seen["statements"].append(args[2]))
    event.listen(engine, "checkout", lambda *args: seen["checkouts"].append("checkout"))
    event.listen(engine, "commit", lambda *args: seen["commits"].append("commit"))
    yield seen


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_one_statement_on_one_connection(
    client: FlaskClient, seen: dict[str, list[str]], operation: str
) -> None:
    assert OPERATIONS[operation](client).status_code == 200

    assert len(seen["statements"]) == 1
    assert len(seen["checkouts"]) == 1
    # The statement is a transaction by itself: no BEGIN goes before it, no COMMIT after it.
    assert seen["commits"] == []


def test_no_statement_is_compiled_twice(app: Flask, client: FlaskClient, seen: dict[str, list[str]]) -> None:
    for operation in ("create", "page", "read", "patch"):
        OPERATIONS[operation](client)
    with app.app_context():
        compiled = len(db.engine._compiled_cache or ())  # type: ignore[attr-defined]
        for operation in ("create", "page", "read", "patch"):
            OPERATIONS[operation](client)
        assert len(db.engine._compiled_cache or ()) == compiled  # type: ignore[attr-defined]


def calls(work: Callable[[], object]) -> int:
    """How many Python and C functions are called; the same on every machine, and near to the time that they take."""
    count = 0

    def tick(frame: object, what: str, argument: object) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_a_page_costs_no_call_for_each_of_its_rows() -> None:
    schema = HeroPublic(many=True)
    rows = [(f"Hero {number}", number, number) for number in range(100)]

    assert calls(lambda: schema.dump(rows)) <= 10


@pytest.mark.parametrize(
    ("schema", "data", "bound"),
    [(HeroCreate(), HERO, 56), (HeroQuery(), {}, 22), (HeroQuery(), {"offset": "5", "limit": "7"}, 58)],
    ids=["create", "page", "page with numbers"],
)
def test_loading_costs_few_calls(schema: Any, data: Any, bound: int) -> None:
    assert calls(lambda: schema.load(data)) <= bound


# Calls of one request through the whole app, its log line included: four tenths above what they are, so that a
# slow-down by half is noticed.
BOUNDS = {"read": 970, "page": 950, "create": 1060, "patch": 1080}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("operation", BOUNDS)
def test_a_request_costs_few_calls(client: FlaskClient, seen: dict[str, list[str]], operation: str) -> None:
    OPERATIONS[operation](client)
    environ = []
    client.application.wsgi_app = remembering(client.application.wsgi_app, environ)  # type: ignore[method-assign]
    OPERATIONS[operation](client)

    assert environ[0] <= BOUNDS[operation]


def remembering(wsgi_app: Any, counts: list[int]) -> Any:
    """A WSGI app that notes how many calls the other one makes for a request."""

    def app(environ: Any, start_response: Any) -> Any:
        answer: list[Any] = []
        counts.append(calls(lambda: answer.append(wsgi_app(environ, start_response))))
        return answer[0]

    return app


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_start_on_the_newest_schema_loads_no_alembic(database_url: str) -> None:
    trial = "import sys, wsgi; sys.exit('alembic' in sys.modules)"

    subprocess.run([sys.executable, "-c", trial], cwd=ROOT, env=os.environ | {"DATABASE_URL": database_url}, check=True)
