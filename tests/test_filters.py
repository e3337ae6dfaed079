"""Filters and sort orders: the same on both databases, each uses an index."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import UniqueConstraint, event

from heroes.extensions import db
from heroes.schemas import HeroQuery
from heroes.web.resource import PAGE_KEYS
from tests.constants import Query, sqlite_only

HEROES = [("b", 30), ("a", None), ("c", 10), ("B", 30), ("ä", 20), ("a", 10), ("z", None)]


@pytest.fixture(autouse=True)
def some_heroes(query: Query) -> None:
    heroes = ", ".join(f"('{name}', {'NULL' if age is None else age}, 's')" for name, age in HEROES)
    query(f"INSERT INTO hero (name, age, secret_name) VALUES {heroes}")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("name=a", [2, 6]),
        ("name=A", []),
        ("name=%C3%A4", [5]),
        ("age=30", [1, 4]),
        ("age=%2030.0", [1, 4]),
        ("min_age=20", [1, 4, 5]),
        ("max_age=20", [3, 5, 6]),
        ("min_age=11&max_age=29", [5]),
        ("min_age=30&max_age=10", []),
        ("name=a&age=10", [6]),
        ("sort=id", [1, 2, 3, 4, 5, 6, 7]),
        ("sort=-id", [7, 6, 5, 4, 3, 2, 1]),
        ("sort=name", [4, 2, 6, 1, 3, 7, 5]),
        ("sort=-name", [5, 7, 3, 1, 2, 6, 4]),
        ("sort=age", [3, 6, 5, 1, 4, 2, 7]),
        ("sort=-age", [1, 4, 5, 3, 6, 2, 7]),
        ("sort=-age&name=a", [6, 2]),
        ("sort=age&limit=2&offset=4", [4, 2]),
    ],
)
def test_filters_and_orders(client: FlaskClient, parameters: str, expected: list[int]) -> None:
    response = client.get(f"/heroes/?{parameters}")

    assert response.status_code == 200, response.json
    assert [hero["id"] for hero in response.get_json()] == expected


@pytest.mark.parametrize(
    ("parameters", "places"),
    [
        ("age=x", ["age"]),
        ("min_age=&max_age=1.5", ["min_age", "max_age"]),
        ("age=9223372036854775808", ["age"]),
        ("name=%00", ["name"]),
        (f"name={'n' * 501}", ["name"]),
        ("sort=secret_name", ["sort"]),
        ("sort=", ["sort"]),
        ("sort=ID", ["sort"]),
        ("limit=101&age=x&sort=x", ["limit", "age", "sort"]),
    ],
)
@sqlite_only
def test_bad_values_are_refused_at_their_place(client: FlaskClient, parameters: str, places: list[str]) -> None:
    response = client.get(f"/heroes/?{parameters}")

    assert response.status_code == 422
    assert [error["loc"] for error in response.get_json()["detail"]] == [["query", place] for place in places]


MANY = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    " INSERT INTO hero (name, age, secret_name) SELECT 'n' || i, i, 's' FROM n",
    "postgresql": "INSERT INTO hero (name, age, secret_name)"
    " SELECT 'n' || i, i, 's' FROM generate_series(1, 20000) AS i",
}
VALUES = {"name": "n5", "age": 5, "min_age": 19990, "max_age": 10, "after": 19990}
UNIQUE = [each for each in db.metadata.tables["hero"].constraints if isinstance(each, UniqueConstraint)]
INDEXES = {"after": "hero_pkey|INTEGER PRIMARY KEY"}
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}


@pytest.mark.parametrize("name", sorted(HeroQuery().fields.keys() - PAGE_KEYS))
def test_each_filter_uses_an_index(app: Flask, client: FlaskClient, query: Query, dialect: str, name: str) -> None:
    query(MANY[dialect])
    if dialect == "postgresql":
        query("ANALYZE hero")
    sent: list[tuple[str, Any]] = []
    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", lambda *args: sent.append((args[2], args[3])))
        assert client.get(f"/heroes/?{name}={VALUES.get(name, 5)}").status_code == 200
        [(statement, values)] = sent
        with db.engine.connect() as connection:
            plan = str(connection.exec_driver_sql(EXPLAIN[dialect] + statement, values).all())

    column = name if name in db.metadata.tables["hero"].c else re.sub("^(min|max)_", "", name)
    # A unique constraint has an index of its own.
    unique = any([each.name for each in constraint.columns][0] == column for constraint in UNIQUE)
    index = f"uq_hero_{column}|sqlite_autoindex_hero" if unique else f"ix_hero_{column}"
    assert re.search(INDEXES.get(name, index), plan), plan
    assert not re.search("SCAN hero|Seq Scan", plan), plan
