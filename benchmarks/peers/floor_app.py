"""The floor: what the server, sqlite3 and orjson cost alone. No framework, no ORM, no validation.

Nothing useful can be much cheaper on the same server and database: a mark to measure against, not a peer.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import orjson

FILE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")
local = threading.local()


def execute(statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Execute one statement, commit, and return its rows. Each thread has a connection."""
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(FILE, isolation_level=None)
        local.connection.execute("PRAGMA synchronous=FULL")
    rows: list[tuple[Any, ...]] = local.connection.execute(statement, values).fetchall()
    return rows


def public(row: tuple[Any, ...]) -> dict[str, Any]:
    return {"name": row[0], "age": row[1], "id": row[2]}


def body(environ: dict[str, Any]) -> Any:
    return orjson.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))


def answer(environ: dict[str, Any]) -> Any:
    """Return what is sent as JSON, or None if the hero does not exist."""
    method, hero_id = environ["REQUEST_METHOD"], environ["PATH_INFO"][len("/heroes/") :]
    if not hero_id:
        if method == "POST":
            hero = body(environ)
            rows = execute(
                "INSERT INTO hero (name, age, secret_name) VALUES (?, ?, ?) RETURNING name, age, id",
                hero["name"],
                hero.get("age"),
                hero["secret_name"],
            )
            return public(rows[0])
        query = parse_qs(environ["QUERY_STRING"])
        limit, offset = int(query.get("limit", ["100"])[0]), int(query.get("offset", ["0"])[0])
        rows = execute("SELECT name, age, id FROM hero ORDER BY id LIMIT ? OFFSET ?", limit, offset)
        return [public(row) for row in rows]
    if method == "PATCH":
        changes = body(environ)
        columns = [column for column in ("name", "age", "secret_name") if column in changes]
        assigned = ", ".join(f"{column} = ?" for column in columns)
        statement = f"UPDATE hero SET {assigned} WHERE id = ? RETURNING name, age, id"
        rows = execute(statement, *(changes[column] for column in columns), int(hero_id))
    elif method == "DELETE":
        rows = execute("DELETE FROM hero WHERE id = ? RETURNING id", int(hero_id))
        return {"ok": True} if rows else None
    else:
        rows = execute("SELECT name, age, id FROM hero WHERE id = ?", int(hero_id))
    return public(rows[0]) if rows else None


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    content = answer(environ)
    status = "200 OK"
    if content is None:
        status, content = "404 Not Found", {"detail": "Hero not found"}
    sent = orjson.dumps(content)
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(sent)))])
    return [sent]
