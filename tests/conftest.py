"""The fixtures: `app`, `client` and `runner` on a fresh database, `serve` for a real server.

A test that uses `database_url` runs twice, on SQLite and on PostgreSQL.
"""

import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

from heroes import create_app
from heroes.extensions import db
from tests.constants import Query
from tests.databases import migrated, new_database, running_postgres
from tests.servers import Server, serving, start_server

pytest_plugins = "pytester"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server: TEST_DATABASE_URL, or a server that the processes of one test run share."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    with running_postgres(Path(tempfile.gettempdir(), f"heroes-postgres-{run}")) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """The URL of a database with the newest schema; `database_url` empties it for every test."""
    url = new_database(postgres)
    migrated(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("template") / "database.db"
    migrated(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A SQLite file with the newest schema and no heroes, for a test that would find the same on PostgreSQL."""
    path = tmp_path / "database.db"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def new_app(sqlite_url: str) -> Iterator[Callable[..., Flask]]:
    """Create apps with settings of their own on a fresh SQLite file: new_app(METRICS=True)."""
    apps: list[Flask] = []

    def create(**config: object) -> Flask:
        apps.append(create_app({"SQLALCHEMY_DATABASE_URI": sqlite_url} | config))
        return apps[-1]

    yield create
    for app in apps:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The database that a test runs on; use `pytest.mark.parametrize("dialect", [...], indirect=True)` for one only."""
    return str(request.param)


@pytest.fixture
def empty_database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path / 'database.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest) -> str:
    """A database with the newest schema and no heroes."""
    if dialect == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    url: str = request.getfixturevalue("migrated_postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY")
    return url


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service on a fresh database."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "TESTING": True})
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A test client of `app`."""
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    """Run the `flask` commands of `app`."""
    return app.test_cli_runner()


@pytest.fixture
def query(database_url: str) -> Query:
    """Run SQL on the test's database beside the service, and return the rows."""

    def run(sql: str) -> list[tuple[object, ...]]:
        if database_url.startswith("sqlite"):
            with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as file, file:
                return list(file.execute(sql))
        with psycopg.connect(database_url) as connection:
            cursor = connection.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    return run


@pytest.fixture(scope="session")
def shared_gunicorn(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gunicorn with the default settings on a SQLite file; `gunicorn` empties it for every test."""
    folder = tmp_path_factory.mktemp("gunicorn")
    shutil.copyfile(migrated_sqlite, folder / "database.db")
    with serving(f"sqlite:///{folder / 'database.db'}", folder) as server:
        yield server


@pytest.fixture
def gunicorn(shared_gunicorn: Server) -> Server:
    """A gunicorn without heroes, for tests that only send requests; they have the mark `on_gunicorn`."""
    with closing(sqlite3.connect(shared_gunicorn.database_url.removeprefix("sqlite:///"))) as file, file:
        file.executescript("DELETE FROM hero; DELETE FROM idempotency_key; DELETE FROM sqlite_sequence")
    return shared_gunicorn


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start real servers on the test's database and kill them at the end.

    serve(WEB_CONCURRENCY="2", …) starts gunicorn, serve(server="granian", …) granian.
    """
    servers: list[Server] = []

    def start(**environment: str) -> Server:
        servers.append(start_server(database_url, tmp_path, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
