"""A database moves from the tutorial app to heroes and back without losing a row."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from heroes import create_app
from heroes.extensions import db
from tests.contract.wire import ORACLE, Connection, Request, oracle

HERO = b'{"name": "%s", "age": 30, "secret_name": "s"}'


def ask(connection: Connection, method: str, path: str, body: bytes = b"") -> Any:
    answer = connection.send(Request(method, path, body, "application/json" if body else None))
    assert answer.status == 200, answer
    return answer.json


@contextmanager
def client_of(database: Path) -> Iterator[FlaskClient]:
    """Yield a test client of heroes on a SQLite file."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{database}"})
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


def drop_our_columns(database: Path) -> None:
    """Leave only the tutorial's columns, for an oracle that was given a column that heroes has added."""
    with closing(sqlite3.connect(database)) as connection:
        for [name] in connection.execute("SELECT name FROM pragma_table_info('hero')").fetchall():
            if name not in ("id", "name", "age", "secret_name"):
                connection.execute(f"DROP INDEX IF EXISTS ix_hero_{name}")
                connection.execute(f"ALTER TABLE hero DROP COLUMN {name}")


@pytest.mark.skipif(
    not ORACLE.exists() and "CI" not in os.environ, reason="needs the oracle's environment: make .venv-oracle/done"
)
def test_database_moves_from_the_tutorial_to_heroes_and_back(tmp_path: Path) -> None:
    database = tmp_path / "database.db"
    with oracle(database) as tutorial:
        ask(tutorial, "POST", "/heroes/", HERO % b"One")
        ask(tutorial, "POST", "/heroes/", HERO % b"Two")
    drop_our_columns(database)
    with client_of(database) as ours:
        assert [hero["name"] for hero in ours.get("/heroes/").get_json()] == ["One", "Two"]
        assert ours.patch("/heroes/1", json={"age": None}).status_code == 200
        assert ours.post("/heroes/", data=HERO % b"Three", content_type="application/json").status_code == 200
    with oracle(database) as tutorial:
        ask(tutorial, "POST", "/heroes/", HERO % b"Four")
        ask(tutorial, "DELETE", "/heroes/2")
        found = ask(tutorial, "GET", "/heroes/")
    with client_of(database) as ours:
        assert ours.get("/heroes/").json == found

    assert [(hero["name"], hero["age"]) for hero in found] == [("One", None), ("Three", 30), ("Four", 30)]
